"""Sparse from the first step, the same number of weights throughout: static random masks, SET, RigL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax._checks import fail
from sparsejax.pruning._capacity import Capacity
from sparsejax.pruning._method import Method, View
from sparsejax.pruning._schedules import Schedule
from sparsejax.pruning._schedules_more import cosine_drop
from sparsejax.pruning.allocation._distributions import as_fraction
from sparsejax.pruning.allocation._scopes import Scope, ScopeLike, capacities
from sparsejax.pruning.methods._cadence import Every
from sparsejax.pruning.methods._regrow import (
    check_updates,
    drop_table,
    exchange,
    gradient_magnitudes,
    layer_scope,
    magnitudes,
    random_masks,
    random_scores,
    unit_counts,
    updates_before,
)


@dataclass(frozen=True)
class Static(Method):
    """The method object behind ``static``."""

    sparsity: float
    scope: Scope
    seed: int

    def init(self, view: View) -> tuple[list[jax.Array], Any]:
        """Draw the masks."""
        return random_masks("static", self.sparsity, self.scope, view, self.seed), ()

    def refresh(self, step: Any) -> Any:
        """Never fire."""
        return step < 0

    def update(self, view: View) -> tuple[list[jax.Array], Any]:
        """Keep the masks."""
        return view.masks, view.aux

    def capacity(self, view: View) -> list[Capacity]:
        """Always the same."""
        level = as_fraction("static", "sparsity", self.sparsity)
        return capacities("static", self.scope, view, level, "fixed")


@dataclass(frozen=True)
class Exchange(Method):
    """At each step of the gate: drop a fraction of the kept weights and grow as many; the counts never change."""

    name: ClassVar[str]

    sparsity: float
    scope: Scope
    gate: Every
    drop: Schedule
    seed: int

    def init(self, view: View) -> tuple[list[jax.Array], Any]:
        """Draw the first masks at random."""
        return random_masks(self.name, self.sparsity, self.scope, view, self.seed), self.first_aux(view)

    def first_aux(self, view: View) -> Any:
        """Return the state before the first step."""
        return ()

    def refresh(self, step: Any) -> Any:
        """Fire when the gate does."""
        return self.gate(step)

    def capacity(self, view: View) -> list[Capacity]:
        """Always the same."""
        level = as_fraction(self.name, "sparsity", self.sparsity)
        return capacities(self.name, self.scope, view, level, "fixed")

    def scores(self, view: View) -> tuple[list[jax.Array], list[jax.Array]]:
        """Return the scores by which kept weights stay, and others come."""
        raise NotImplementedError

    def update(self, view: View) -> tuple[list[jax.Array], Any]:
        """Exchange weights in every layer."""
        kept = unit_counts(self.name, self.sparsity, self.scope, view)
        table = np.floor(np.outer(drop_table(self.drop, self.gate), kept)).astype(np.int32)
        dropped = jnp.asarray(table)[self.gate.index(view.step)]
        leaves = zip(view.masks, *self.scores(view), strict=True)
        masks = [
            exchange(view.structure, mask, stays, comes, kept[i] - dropped[i], dropped[i])
            for i, (mask, stays, comes) in enumerate(leaves)
        ]
        return masks, view.aux


class SET(Exchange):
    """The method object behind ``set_``."""

    name = "set_"

    def scores(self, view: View) -> tuple[list[jax.Array], list[jax.Array]]:
        """Large weights stay, random ones come."""
        return magnitudes(view), random_scores(view, self.seed, view.step)


@dataclass(frozen=True)
class RigL(Exchange):
    """The method object behind ``rigl``."""

    name = "rigl"
    skips_inner = True

    grow_grad_steps: int
    drop_noise: float

    def first_aux(self, view: View) -> Any:
        """Return sums of gradients, if more than one step's are used."""
        if self.grow_grad_steps == 1:
            return ()
        return [jnp.zeros(shape, jnp.float32) for shape in view.shapes]

    def observe(self, view: View) -> Any:
        """Add up the gradients of the last steps before an update."""
        if self.grow_grad_steps == 1:
            return ()
        # Steps of a period count from 1 to `delta`; the last `grow_grad_steps` of them are used.
        position = jnp.asarray(view.step) % self.gate.delta
        first = self.gate.delta - self.grow_grad_steps
        pairs = zip(view.aux, view.grads, strict=True)
        return [jnp.where(position > first, total, 0) + jnp.where(position >= first, g, 0) for total, g in pairs]

    def scores(self, view: View) -> tuple[list[jax.Array], list[jax.Array]]:
        """Large weights stay, weights of large gradient come."""
        stays = magnitudes(view)
        if self.drop_noise:
            key = jax.random.fold_in(jax.random.key(self.seed), view.step)
            keys = jax.random.split(key, len(stays))
            stays = [s + self.drop_noise * jax.random.normal(k, s.shape) for s, k in zip(stays, keys, strict=True)]
        return stays, gradient_magnitudes(view.grads if self.grow_grad_steps == 1 else view.aux)


def static(sparsity: float, *, scope: ScopeLike = "erk", seed: int = 0) -> Method:
    """Train inside a random mask that never changes: the baseline of all sparse training.

    mask = k random weights of each layer, for good

    Args:
      sparsity: fraction of zeros, in [0, 1).
      scope: how it is shared: ``"erk"``, ``"er"``, ``"layer"`` or ``per_layer(...)``.
      seed: of the masks.

    Returns:
      Method for ``pruned``. Use ``init`` to start.

    Raises:
      ValueError: a value out of range.

    Source: Evci et al. 2020, "RigL", section 4 (static); initial weights: see ``rescale_by_density``.

    >>> import optax
    >>> from sparsejax.pruning import metrics, pruned
    >>> state = pruned(optax.sgd(0.1), static(0.75)).init({"kernel": jnp.ones((4, 4))})
    >>> int(metrics(state)["nnz"])
    4
    """
    as_fraction("static", "sparsity", sparsity)
    return Static(float(sparsity), layer_scope("static", scope), seed)


def set_(
    sparsity: float,
    *,
    every: int,
    end: int,
    drop: Schedule | float = 0.3,
    scope: ScopeLike = "erk",
    seed: int = 0,
) -> Method:
    """Sparse evolutionary training: drop the smallest weights, grow random ones.

    every ``every`` steps and layer:  drop floor(f * k) kept weights of smallest |w|, grow as many at random, at 0

    A weight just dropped may be drawn again; it then keeps its value. (The original drops the smallest positive and
    the largest negative weights, each a fraction of its own sign.)

    Args:
      sparsity: fraction of zeros, in [0, 1).
      every: period in steps; published: an epoch.
      end: step from which nothing changes.
      drop: fraction f of the kept weights that is replaced, or a schedule of it; published 0.3.
      scope: as for ``static``; published: Erdos-Renyi.
      seed: of masks and growth.

    Returns:
      Method for ``pruned``; use ``init`` to start. The number of kept weights of each layer never changes.

    Raises:
      ValueError: a value out of range.

    Source: Mocanu et al. 2018, "Scalable training of artificial neural networks with adaptive sparse connectivity
      inspired by network science" (SET), algorithm 1.

    >>> set_(0.9, every=100, end=1000).refresh(100)
    True
    """
    as_fraction("set_", "sparsity", sparsity)
    check_updates("set_", every, end)
    scope_, gate = layer_scope("set_", scope), updates_before(end, every)
    return SET(float(sparsity), scope_, gate, as_drop("set_", drop), seed)


def rigl(
    sparsity: float,
    *,
    end: int,
    every: int = 100,
    drop: Schedule | float | None = None,
    scope: ScopeLike = "erk",
    seed: int = 0,
    grow_grad_steps: int = 1,
    drop_noise: float = 0.0,
) -> Method:
    """RigL: drop the smallest weights, grow those of the largest gradient.

    every ``every`` steps while t < end, in each layer:  drop floor(f(t) * k) kept weights of smallest |w|; grow as many
    of largest |g| among the rest, at 0, with moments 0;  f(t) = 0.15 * (1 + cos(pi * t / end))

    g is the dense gradient of that step, at the masked weights; the step makes no optimizer step. A weight just
    dropped may return, with value and moments. With ``row_balanced()`` as structure every unit keeps its fan-in (SRigL
    without neuron ablation).

    Args:
      sparsity: fraction of zeros, in [0, 1).
      end: step from which nothing changes; published: 75 % of training.
      every: period in steps; published 100.
      drop: fraction of the kept weights that is replaced, or a schedule; None is ``cosine_drop(0.3, end)``, published.
      scope: as for ``static``; published: ERK and uniform.
      seed: of the first masks.
      grow_grad_steps: steps before an update whose gradients are averaged; helps with small batches.
      drop_noise: standard deviation of noise on |w| when dropping; the authors' code has 1e-5, against ties.

    Returns:
      Method for ``pruned``; use ``init`` to start. The number of kept weights of each layer never changes.

    Raises:
      ValueError: a value out of range.

    Source: Evci et al. 2020, "Rigging the lottery: making all tickets winners", section 3 and algorithm 1.

    >>> method = rigl(0.9, end=1000)
    >>> method.refresh(900), method.refresh(1000)
    (True, False)
    """
    as_fraction("rigl", "sparsity", sparsity)
    check_updates("rigl", every, end)
    if not 1 <= grow_grad_steps <= every:
        fail("rigl", "grow_grad_steps", f"value {grow_grad_steps}", f"1 to every = {every}")
    fraction = cosine_drop(0.3, end) if drop is None else as_drop("rigl", drop)
    scope_, gate = layer_scope("rigl", scope), updates_before(end, every)
    return RigL(float(sparsity), scope_, gate, fraction, seed, grow_grad_steps, float(drop_noise))


def as_drop(function: str, drop: Schedule | float) -> Schedule:
    """Return a schedule of the drop fraction."""
    if callable(drop):
        return drop
    if not 0 < drop < 1:
        fail(function, "drop", f"value {drop}", "a fraction in (0, 1), or a schedule")
    return lambda step: float(drop)
