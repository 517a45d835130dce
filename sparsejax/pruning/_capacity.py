"""How much room the kept weights of a leaf need."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Capacity(NamedTuple):
    """What a buffer for the kept weights of a leaf must hold.

    Attributes:
      kind: "fixed" from the first step on; "sparse phases", once or while weights are pruned; "scores", as "sparse
        phases" but known only when the scores are (a global threshold moves it from one mask to the next); "dense".
      entries: kept weights; for "scores" an average share.
    """

    kind: Literal["fixed", "sparse phases", "scores", "dense"]
    entries: int
