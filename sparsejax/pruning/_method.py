"""What a pruning method is: three pure functions over the prunable leaves."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import jax

from sparsejax.pruning._structures import Structure


class View(NamedTuple):
    """What a method sees when it chooses a mask; all lists run over the prunable leaves, in flattening order.

    Attributes:
      names: ``/``-joined path of each leaf.
      weights: the weights as they will stand when the new mask takes effect.
      masks: the mask until now, boolean, True keeps the weight.
      step: optimizer steps done, int32 scalar; the mask is for the forward pass that follows them.
      aux: the method's own state, a pytree of arrays.
      structure: how scores become masks.
    """

    names: list[str]
    weights: list[jax.Array]
    masks: list[jax.Array]
    step: jax.Array | int
    aux: Any
    structure: Structure


class Method(Protocol):
    """A pruning method. All state is in ``aux``; a method that draws random numbers keeps its key there."""

    def init(self, view: View) -> tuple[list[jax.Array], Any]:
        """Return the first masks and the first ``aux``; ``view.masks`` is all True, ``view.step`` is 0."""
        ...

    def refresh(self, step: jax.Array) -> jax.Array:
        """Tell whether ``update`` is to run after ``step`` optimizer steps; returns a bool scalar."""
        ...

    def update(self, view: View) -> tuple[list[jax.Array], Any]:
        """Return the new masks and ``aux``, of unchanged shapes and dtypes; runs under ``lax.cond``."""
        ...
