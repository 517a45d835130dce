"""Structures: which shapes the set of kept weights may take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import jax

from sparsejax.pruning._select import select


class Structure(Protocol):
    """What a structure must do: turn scores and a count into masks."""

    def select(self, scores: Sequence[jax.Array], k: jax.Array | int) -> list[jax.Array]:
        """Mark ``k`` weights in the arrays taken together, in boolean arrays of their shapes."""
        ...


@dataclass(frozen=True)
class Unstructured:
    """Every weight stands for itself; built by ``unstructured``."""

    def select(self, scores: Sequence[jax.Array], k: jax.Array | int) -> list[jax.Array]:
        """Mark exactly the ``k`` largest scores, ties to the lower flat index."""
        return select(scores, k)


def unstructured() -> Unstructured:
    """Prune single weights, anywhere.

    mask = top-k of the scores, ties by flat index

    Returns:
      Structure.

    Source: Han et al. 2015, "Learning both weights and connections for efficient neural networks".

    >>> import jax.numpy as jnp
    >>> unstructured().select([jnp.array([0.1, 3.0, 2.0])], 2)[0].tolist()
    [False, True, True]
    """
    return Unstructured()
