"""Sparse training in which weights move between layers: sparse momentum (SNFS) and GraNet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax._checks import fail
from sparsejax.pruning._method import Method, View
from sparsejax.pruning.allocation._distributions import as_fraction
from sparsejax.pruning.allocation._scopes import Scope, ScopeLike, across
from sparsejax.pruning.allocation._structures import Unstructured
from sparsejax.pruning.methods._cadence import Every
from sparsejax.pruning.methods._exchange import (
    PARTS,
    check_updates,
    drop_table,
    exchange,
    gradient_magnitudes,
    layer_scope,
    magnitudes,
    part_of,
    random_masks,
    updates_before,
)
from sparsejax.pruning.methods._gradual import check_gradual, nested, tabulated
from sparsejax.pruning.schedules import Schedule, cosine, cosine_drop, sparsity_at


def _dropped(drop: Schedule, gate: Every, view: View) -> tuple[list[jax.Array], list[jax.Array]]:
    """Return the weights kept now in each leaf, and how many of them are dropped at this step."""
    parts = np.floor(drop_table(drop, gate) * PARTS).astype(np.int32)
    now = jnp.asarray(parts)[gate.index(view.step)]
    kept = [jnp.sum(mask, dtype=jnp.int32) for mask in view.masks]
    return kept, [part_of(count, now) for count in kept]


def _check_unstructured(function: str, view: View) -> None:
    if not isinstance(view.structure, Unstructured):
        fail(function, "structure", type(view.structure).__name__, "unstructured(), as weights move between layers")


@dataclass(frozen=True)
class SNFS(Method):
    """The method object behind ``snfs``; ``aux`` holds the momentum of all weights, float32."""

    sparsity: float
    scope: Scope
    gate: Every
    drop: Schedule
    momentum: float
    seed: int

    def init(self, view: View) -> tuple[list[jax.Array], Any]:
        """Draw the first masks at random."""
        _check_unstructured("snfs", view)
        masks = random_masks("snfs", self.sparsity, self.scope, view, self.seed)
        return masks, [jnp.zeros(shape, jnp.float32) for shape in view.shapes]

    def refresh(self, step: Any) -> Any:
        """Fire when the gate does."""
        return self.gate(step)

    def observe(self, view: View) -> Any:
        """Average the dense gradient."""
        mu = self.momentum
        return [mu * old + (1 - mu) * grad for old, grad in zip(view.aux, view.grads, strict=True)]

    def update(self, view: View) -> tuple[list[jax.Array], Any]:
        """Drop a fraction in each layer, and share the freed weights by momentum."""
        kept, dropped = _dropped(self.drop, self.gate, view)
        moving = [jnp.abs(momentum) for momentum in view.aux]
        sums = [jnp.sum(jnp.where(mask, m, 0)) for mask, m in zip(view.masks, moving, strict=True)]
        shares = jnp.stack([total / jnp.maximum(count, 1) for total, count in zip(sums, kept, strict=True)])
        room = jnp.stack([m.size - (k - d) for m, k, d in zip(view.masks, kept, dropped, strict=True)])
        grown = _shared(jnp.sum(jnp.stack(dropped)), shares, room)
        leaves = zip(view.masks, magnitudes(view), moving, strict=True)
        masks = [
            exchange(view.structure, mask, stays, comes, kept[i] - dropped[i], grown[i])
            for i, (mask, stays, comes) in enumerate(leaves)
        ]
        return masks, view.aux


def _shared(budget: jax.Array, shares: jax.Array, room: jax.Array) -> jax.Array:
    """Share an integer budget in proportion, no part above its room; what remains goes to the first with room."""
    parts = jnp.floor(budget * (shares / jnp.maximum(jnp.sum(shares), jnp.finfo(jnp.float32).tiny)))
    parts = jnp.minimum(parts.astype(jnp.int32), room)
    left, free = budget - jnp.sum(parts), room - parts
    before = jnp.cumsum(free) - free
    return parts + jnp.clip(left - before, 0, free)


@dataclass(frozen=True)
class GraNet(Method):
    """The method object behind ``granet``."""

    schedule: Schedule
    scope: Scope
    pruning: Every
    gate: Every
    drop: Schedule
    seed: int

    def init(self, view: View) -> tuple[list[jax.Array], Any]:
        """Draw the first masks at random, if the schedule starts sparse."""
        _check_unstructured("granet", view)
        initial = sparsity_at("granet", self.schedule, 0)
        if initial == 0:
            return view.masks, ()
        return random_masks("granet", float(initial), self.scope, view, self.seed), ()

    def refresh(self, step: Any) -> Any:
        """Fire when weights are pruned or exchanged."""
        return self.gate(step) | self.pruning(step)

    def update(self, view: View) -> tuple[list[jax.Array], Any]:
        """Prune by global magnitude to the count of the step, then exchange in each layer."""
        table = jnp.asarray(tabulated("granet", self.schedule, self.pruning, across(), view))
        now = table[self.pruning.index(jnp.minimum(view.step, self.pruning.end))]
        masks = across().choose(view.structure, nested(magnitudes(view), view.masks), now)
        # A step at which only pruning is due, or none of a count that is reached already, changes nothing here.
        pruned = view._replace(masks=[new & old for new, old in zip(masks, view.masks, strict=True)])
        kept, dropped = _dropped(self.drop, self.gate, pruned)
        dropped = [jnp.where(self.gate(view.step), count, 0) for count in dropped]
        leaves = zip(pruned.masks, magnitudes(view), gradient_magnitudes(view.grads), strict=True)
        return [
            exchange(view.structure, mask, stays, comes, kept[i] - dropped[i], dropped[i])
            for i, (mask, stays, comes) in enumerate(leaves)
        ], view.aux


def snfs(
    sparsity: float,
    *,
    every: int,
    end: int,
    drop: Schedule | None = None,
    momentum: float = 0.9,
    scope: ScopeLike = "erk",
    seed: int = 0,
) -> Method:
    """Sparse momentum (SNFS): drop the smallest weights, grow where the momentum of the gradient is large.

    every ``every`` steps:  in each layer drop a fraction of the kept weights of smallest |w|; share the freed number
    among layers in proportion to the mean |m| of their kept weights; in a layer grow where |m| is largest, at 0

    m averages the dense gradient, so it needs the memory of a dense moment. Counts of layers change, the total does
    not. Fractions are counted in 1024ths; what rounding leaves goes to the first layers with room.

    Args:
      sparsity: fraction of zeros, in [0, 1).
      every: period in steps; published: an epoch.
      end: step from which nothing changes.
      drop: fraction that is replaced, a schedule; None is ``cosine_drop(0.5, end)``, published.
      momentum: decay of the average, in [0, 1).
      scope: as for ``static``, of the first masks.
      seed: of the first masks.

    Returns:
      Method for ``pruned``; use ``init`` to start.

    Raises:
      ValueError: a value out of range, or a structure other than unstructured.

    Source: Dettmers & Zettlemoyer 2019, "Sparse networks from scratch: faster training without losing performance",
      section 3.

    >>> snfs(0.9, every=10, end=100).refresh(90)
    True
    """
    as_fraction("snfs", "sparsity", sparsity)
    check_updates("snfs", every, end)
    if not 0 <= momentum < 1:
        fail("snfs", "momentum", f"value {momentum}", "a number in [0, 1)")
    fraction = cosine_drop(0.5, end) if drop is None else drop
    gate = updates_before(end, every)
    return SNFS(float(sparsity), layer_scope("snfs", scope), gate, fraction, float(momentum), seed)


def granet(
    schedule: Schedule,
    *,
    refresh: Every,
    end: int,
    drop: Schedule | None = None,
    scope: ScopeLike = "erk",
    seed: int = 0,
) -> Method:
    """GraNet: prune gradually, and at every update exchange some of what is left.

    at each step of ``refresh``, and with its period on until ``end``:  (a) mask <- top-k(s(t)) of |w| over all layers;
    (b) in each layer drop a fraction r(t) of the kept weights of smallest |w|, grow as many of largest |g|, at 0

    After ``refresh`` ends only (b) is left. g is the dense gradient of that step. Fractions are counted in 1024ths.

    Args:
      schedule: step -> sparsity; published: cubic from 0 or 0.5.
      refresh: gate of (a), see ``every``; published: every 4000 steps until epoch 30 of 100.
      end: step from which nothing changes.
      drop: r(t), a schedule; None is the published cosine from 0.5 to 0.005 at ``end``.
      scope: as for ``static``, of the first masks if the schedule starts sparse.
      seed: of the first masks.

    Returns:
      Method for ``pruned``; use ``init`` to start where the schedule starts sparse.

    Raises:
      ValueError: a value out of range, or a structure other than unstructured.
      TypeError: ``schedule`` is no function, or ``refresh`` no gate.

    Source: Liu et al. 2021, "Sparse training via boosting pruning plasticity with neuroregeneration" (GraNet),
      section 4.

    >>> from sparsejax.pruning import every, schedules
    >>> method = granet(schedules.cubic(0.5, 0.9, begin=0, end=30), refresh=every(10, 10, 30), end=80)
    >>> [step for step in range(100) if method.refresh(step)]
    [10, 20, 30, 40, 50, 60, 70]
    """
    check_gradual("granet", schedule, refresh)
    if end <= refresh.end:
        fail("granet", "end", f"value {end}", f"a step after the last pruning, {refresh.end}")
    fraction = cosine(0.5, 0.005, begin=0, end=end) if drop is None else drop
    last = refresh.begin + (end - 1 - refresh.begin) // refresh.delta * refresh.delta
    gate = Every(refresh.delta, refresh.begin, last)
    return GraNet(schedule, layer_scope("granet", scope), refresh, gate, fraction, seed)
