"""Data sets by a short text, for the command line."""

from __future__ import annotations

from sparsejax._checks import fail
from sparsejax.data._dataset import Dataset
from sparsejax.data._digits import digits
from sparsejax.data._idx_dataset import idx_dataset


def load(spec: str) -> Dataset:
    """Load a data set named by a text.

    Args:
      spec: "digits" (see `digits`), or "idx:PATH" with the path of a folder (see `idx_dataset`).

    Returns:
      The `Dataset`, pixels in [0, 1].

    Raises:
      ValueError: any other text, or what the loader raises.
      FileNotFoundError: no such folder.

    >>> load("digits").num_classes
    10
    """
    if spec == "digits":
        return digits()
    kind, _, path = spec.partition(":")
    if kind == "idx" and path:
        return idx_dataset(path)
    fail("load", "spec", f"value {spec!r}", "'digits' or 'idx:PATH'")
