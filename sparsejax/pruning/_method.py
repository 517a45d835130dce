"""What a pruning method is: pure functions over the prunable leaves."""

from __future__ import annotations

import abc
import math
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp

from sparsejax.pruning._capacity import Capacity
from sparsejax.pruning.allocation._structures import Structure


class View(NamedTuple):
    """What a method sees; all lists run over the prunable leaves, in flattening order.

    Attributes:
      names: ``/``-joined path of each leaf.
      weights: the weights; in ``update`` as they will stand when the new mask takes effect.
      masks: the mask until now, boolean, True keeps the weight.
      step: optimizer steps done, int32 scalar; in ``update`` the mask is for the forward pass that follows them.
      aux: the method's own state, a pytree of arrays.
      structure: how scores become masks.
      grads: gradient of the loss at the forward weights of this step, dense; empty in ``init``.
    """

    names: list[str]
    weights: list[jax.Array]
    masks: list[jax.Array]
    step: jax.Array | int
    aux: Any
    structure: Structure
    grads: list[jax.Array]

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Shape of each leaf."""
        return [weight.shape for weight in self.weights]


class Method(abc.ABC):
    """A pruning method. All state is in ``aux``; random draws come from a seed, the step and the leaf's path.

    Attributes:
      outside: what happens to a weight outside the mask: it is "zero"; or it stays in the parameters unused, and
        there "keep" its value or "train" on (the forward pass then needs ``forward_params``).
      enters: value of a weight that comes back: "zero", or the "candidate" that the optimizer proposes.
      reset: moments of weights that no longer train are set to zero at a change of the mask ("dropped"), or "none".
      skips_inner: a step that changes the mask makes no optimizer step.
    """

    outside: ClassVar[Literal["zero", "keep", "train"]] = "zero"
    enters: ClassVar[Literal["zero", "candidate"]] = "zero"
    skips_inner: ClassVar[bool] = False

    @property
    def reset(self) -> Literal["dropped", "none"]:
        """Which moments are set to zero at a change of the mask."""
        return "dropped"

    @abc.abstractmethod
    def init(self, view: View) -> tuple[list[jax.Array], Any]:
        """Return the first masks and the first ``aux``; ``view.masks`` is all True, ``view.step`` is 0."""

    @abc.abstractmethod
    def refresh(self, step: Any) -> Any:
        """Tell whether ``update`` is to run after ``step`` optimizer steps; returns a bool scalar."""

    @abc.abstractmethod
    def update(self, view: View) -> tuple[list[jax.Array], Any]:
        """Return the new masks and ``aux``, of unchanged shapes and dtypes; runs under ``lax.cond``."""

    def observe(self, view: View) -> Any:
        """Return the new ``aux``; called in every step, before anything else."""
        return view.aux

    def trained(self, view: View) -> list[jax.Array]:
        """Return which weights train while ``view.masks`` and ``view.aux`` are in force."""
        return view.masks

    def gradients(self, view: View) -> list[jax.Array]:
        """Return the gradients that the inner optimizer is to see."""
        pairs = zip(self.trained(view), view.grads, strict=True)
        return [jnp.where(trains, grad, jnp.zeros_like(grad)) for trains, grad in pairs]

    def capacity(self, view: View) -> list[Capacity]:
        """Return what a buffer for the kept weights of each leaf must hold; by default all of them.

        Only names, shapes and structure of ``view`` may be used.
        """
        return [Capacity("dense", math.prod(shape)) for shape in view.shapes]

    def restarts(self, step: Any) -> Any:
        """Tell whether the moments of all parameters start anew after ``step`` steps; None is never."""
        return None
