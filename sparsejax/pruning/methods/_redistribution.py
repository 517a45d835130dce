"""Sparse training in which weights move between layers: sparse momentum (SNFS) and GraNet."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax._checks import fail
from sparsejax._surface import former_arguments
from sparsejax._typing import PyTree
from sparsejax.pruning._method import Method, View
from sparsejax.pruning.allocation._distributions import as_fraction
from sparsejax.pruning.allocation._scopes import Scope, ScopeLike, across
from sparsejax.pruning.allocation._structures import Unstructured
from sparsejax.pruning.methods._cadence import Cadence, Fires, Step, cadence, check_reaches
from sparsejax.pruning.methods._exchange import (
    PARTS,
    as_drop,
    drop_table,
    exchange,
    gradient_magnitudes,
    layer_scope,
    magnitudes,
    part_of,
    random_masks,
)
from sparsejax.pruning.methods._gradual import nested, nonzeros, tabulated
from sparsejax.pruning.schedules import Schedule, cosine, cosine_drop, sparsity_at

_FORMER = "sparsejax.pruning.methods._deprecated"


def _dropped(function: str, drop: Schedule, steps: Cadence, view: View) -> tuple[list[jax.Array], list[jax.Array]]:
    """Return the weights kept now in each leaf, and how many of them are dropped at this step."""
    parts = np.floor(drop_table(function, drop, steps) * PARTS).astype(np.int32)
    now = jnp.asarray(parts)[steps.index(view.step)]
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
    cadence: Cadence
    drop: Schedule
    momentum: float
    seed: int

    def init(self, view: View) -> tuple[list[jax.Array], PyTree]:
        """Draw the first masks at random."""
        _check_unstructured("snfs", view)
        masks = random_masks("snfs", self.sparsity, self.scope, view, self.seed)
        return masks, [jnp.zeros(shape, jnp.float32) for shape in view.shapes]

    def refresh(self, step: Step) -> Fires:
        """Follow the cadence."""
        return self.cadence(step)

    def observe(self, view: View) -> PyTree:
        """Average the dense gradient."""
        mu = self.momentum
        return [mu * old + (1 - mu) * grad for old, grad in zip(view.aux, view.grads, strict=True)]

    def update(self, view: View) -> tuple[list[jax.Array], PyTree]:
        """Drop a fraction in each layer, and share the freed weights by momentum."""
        kept, dropped = _dropped("snfs", self.drop, self.cadence, view)
        moving = [jnp.abs(momentum) for momentum in view.aux]
        sums = [jnp.sum(jnp.where(mask, m, 0)) for mask, m in zip(view.masks, moving, strict=True)]
        shares = jnp.stack([total / jnp.maximum(count, 1) for total, count in zip(sums, kept, strict=True)])
        room = jnp.stack([m.size - (k - d) for m, k, d in zip(view.masks, kept, dropped, strict=True)])
        grown = _shared(jnp.sum(jnp.stack(dropped)), shares, room)
        leaves = zip(view.masks, magnitudes(view), moving, strict=True)
        masks = [
            exchange(view.structure, mask, stay, grow, kept[i] - dropped[i], grown[i])
            for i, (mask, stay, grow) in enumerate(leaves)
        ]
        return masks, view.aux


def _shared(budget: jax.Array, shares: jax.Array, room: jax.Array) -> jax.Array:
    """Share an integer budget in proportion, no part above its room; the first with room get the remainder."""
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
    pruning: Cadence
    exchanges: Cadence  # the same steps, except with the arguments of 0.1.0
    drop: Schedule
    seed: int
    keep_zeros: bool = False

    def init(self, view: View) -> tuple[list[jax.Array], PyTree]:
        """Draw the first masks at random if the schedule starts sparse, or read them off the zeros."""
        _check_unstructured("granet", view)
        if self.keep_zeros:
            return nonzeros(view), ()
        initial = sparsity_at("granet", self.schedule, 0)
        if initial == 0:
            return view.masks, ()
        return random_masks("granet", float(initial), self.scope, view, self.seed), ()

    def refresh(self, step: Step) -> Fires:
        """Follow the cadence."""
        return self.exchanges(step) | self.pruning(step)

    def update(self, view: View) -> tuple[list[jax.Array], PyTree]:
        """Prune by global magnitude to the count of the step, then exchange in each layer."""
        table = jnp.asarray(tabulated("granet", self.schedule, self.pruning, across(), view))
        now = table[self.pruning.index(jnp.minimum(view.step, self.pruning.steps()[-1]))]
        masks = across().choose(view.structure, nested(view.structure, magnitudes(view), view.masks), now)
        # A step at which only pruning is due, or none of a count that is reached already, changes nothing here.
        pruned = view._replace(masks=[new & old for new, old in zip(masks, view.masks, strict=True)])
        kept, dropped = _dropped("granet", self.drop, self.exchanges, pruned)
        dropped = [jnp.where(self.exchanges(view.step), count, 0) for count in dropped]
        leaves = zip(pruned.masks, magnitudes(view), gradient_magnitudes(view.grads), strict=True)
        return [
            exchange(view.structure, mask, stay, grow, kept[i] - dropped[i], dropped[i])
            for i, (mask, stay, grow) in enumerate(leaves)
        ], view.aux


@former_arguments("every", "end", use="update_every, start, stop", former=f"{_FORMER}.snfs")
def snfs(
    sparsity: float,
    *,
    update_every: int,
    start: int = 0,
    stop: int,
    drop: Schedule | float | None = None,
    momentum: float = 0.9,
    scope: ScopeLike = "erk",
    seed: int = 0,
) -> Method:
    """Drop the smallest weights, grow where the momentum of the gradient is large (SNFS, sparse momentum).

    at each update:  in each layer drop a fraction of the kept weights of smallest |w|; share the freed number
    among layers in proportion to the mean |m| of their kept weights; in a layer grow where |m| is largest, at 0

    m averages the dense gradient, so it needs the memory of a dense moment. Counts of layers change, the total does
    not. Fractions are counted in 1024ths; the first layers with room get the remainder of the rounding.

    Args:
      sparsity: fraction of zeros, in [0, 1).
      update_every: period in steps; published: an epoch.
      start: first update. The mask at step 0 is random in any case.
      stop: last update, at least 1.
      drop: fraction that is replaced, a number in (0, 1] or a schedule; None is the published cosine from 0.5,
        ``cosine_drop(0.5, stop + update_every)``: it is 0 where the next update would be.
      momentum: decay of the average, in [0, 1).
      scope: as for ``static``, of the first masks.
      seed: of the first masks.

    Returns:
      Method for ``pruned``; use ``init`` to start.

    Raises:
      ValueError: a value out of range, or a structure other than unstructured.

    Source: Dettmers & Zettlemoyer 2019, "Sparse networks from scratch: faster training without losing performance",
      section 3.

    >>> method = snfs(0.9, update_every=10, stop=90)
    >>> method.refresh(90), method.refresh(100)
    (True, False)
    """
    as_fraction("snfs", "sparsity", sparsity)
    steps = cadence("snfs", update_every, start, stop, first=1)
    if not 0 <= momentum < 1:
        fail("snfs", "momentum", f"value {momentum}", "a number in [0, 1)")
    fraction = cosine_drop(0.5, stop + update_every) if drop is None else as_drop("snfs", drop)
    return SNFS(float(sparsity), layer_scope("snfs", scope), steps, fraction, float(momentum), seed)


@former_arguments("refresh", "end", use="update_every, start, stop", former=f"{_FORMER}.granet")
def granet(
    schedule: Schedule,
    *,
    update_every: int,
    start: int = 0,
    stop: int,
    drop: Schedule | float | None = None,
    scope: ScopeLike = "erk",
    seed: int = 0,
    keep_zeros: bool = False,
) -> Method:
    """Prune gradually, and at every update exchange some of the remaining weights (GraNet).

    at each update t:  (a) mask <- top-k(s(t)) of |w| over all layers;
    (b) in each layer drop a fraction r(t) of the kept weights of smallest |w|, grow as many of largest |g|, at 0

    After the end of the schedule (a) changes nothing. g is the dense gradient of that step. Fractions are counted in
    1024ths.

    Args:
      schedule: step -> sparsity; published: cubic from 0 or 0.5, until epoch 30 of 100.
      update_every: period in steps; published 4000.
      start: first update after step 0.
      stop: last update, at least 1 and at least the end of the schedule.
      drop: r(t), a number in (0, 1] or a schedule; None is the published cosine from 0.5 to 0.005 at ``stop``.
      scope: as for ``static``, of the first masks if the schedule starts sparse.
      seed: of the first masks.
      keep_zeros: start with the weights that are not zero instead of a random mask. Their number never rises; (b) may
        exchange them for others.

    Returns:
      Method for ``pruned``; use ``init`` to start where the schedule starts sparse.

    Raises:
      ValueError: a value out of range, or a structure other than unstructured.
      TypeError: ``schedule`` is not a function.

    Source: Liu et al. 2021, "Sparse training via boosting pruning plasticity with neuroregeneration" (GraNet),
      section 4.

    >>> from sparsejax.pruning import schedules
    >>> method = granet(schedules.cubic(0.5, 0.9, begin=0, end=30), update_every=10, start=10, stop=70)
    >>> [step for step in range(100) if method.refresh(step)]
    [10, 20, 30, 40, 50, 60, 70]
    """
    steps = cadence("granet", update_every, start, stop, first=1)
    check_reaches("granet", schedule, stop)
    fraction = cosine(0.5, 0.005, begin=0, end=stop) if drop is None else as_drop("granet", drop)
    return GraNet(schedule, layer_scope("granet", scope), steps, steps, fraction, seed, keep_zeros)
