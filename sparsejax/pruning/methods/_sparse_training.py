"""Sparse from the first step, the number of weights fixed: SET, RigL, MEST."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from sparsejax._checks import fail
from sparsejax.pruning._method import Method, View
from sparsejax.pruning._numbers import check_weight
from sparsejax.pruning.allocation._distributions import as_fraction
from sparsejax.pruning.allocation._scopes import ScopeLike
from sparsejax.pruning.methods import _cadence as _gates
from sparsejax.pruning.methods._exchange import (
    Exchange,
    as_drop,
    check_updates,
    exchange,
    gradient_magnitudes,
    layer_scope,
    magnitudes,
    random_scores,
    unit_counts,
    updates_before,
)
from sparsejax.pruning.schedules import Schedule, constant, cosine_drop


class SET(Exchange):
    """The method object behind ``sparse_evolutionary_training``."""

    name = "sparse_evolutionary_training"

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


def sparse_evolutionary_training(
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

    >>> sparse_evolutionary_training(0.9, every=100, end=1000).refresh(100)
    True
    """
    as_fraction("sparse_evolutionary_training", "sparsity", sparsity)
    check_updates("sparse_evolutionary_training", every, end)
    scope_, gate = layer_scope("sparse_evolutionary_training", scope), updates_before(end, every)
    return SET(float(sparsity), scope_, gate, as_drop("sparse_evolutionary_training", drop), seed)


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


@dataclass(frozen=True)
class MEST(Exchange):
    """The method object behind ``mest``."""

    name = "mest"

    grad_weight: float
    lower: float

    def scores(self, view: View) -> tuple[list[jax.Array], list[jax.Array]]:
        """Weights large or still moving stay, random ones come."""
        pairs = zip(magnitudes(view), gradient_magnitudes(view.grads), strict=True)
        stays = [weight + self.grad_weight * grad for weight, grad in pairs]
        return stays, random_scores(view, self.seed, view.step)

    def update(self, view: View) -> tuple[list[jax.Array], Any]:
        """Prune to the lower count, then grow to the upper one again; at the last update only prune."""
        upper = unit_counts(self.name, self.sparsity, self.scope, view)
        lower = unit_counts(self.name, self.lower, self.scope, view)
        last = view.step == self.gate.end
        leaves = zip(view.masks, *self.scores(view), strict=True)
        masks = [
            exchange(view.structure, mask, stays, comes, lower[i], jnp.where(last, 0, upper[i] - lower[i]))
            for i, (mask, stays, comes) in enumerate(leaves)
        ]
        return masks, view.aux


class HardMEST(MEST):
    """``mest`` with the same count at all times."""

    def update(self, view: View) -> tuple[list[jax.Array], Any]:
        """Exchange weights in every layer."""
        return Exchange.update(self, view)


def mest(
    sparsity: float,
    *,
    every: int,
    end: int,
    grad_weight: float,
    bound: float | None = None,
    drop: float = 0.3,
    scope: ScopeLike = "erk",
    seed: int = 0,
) -> Method:
    """MEST: drop weights that are small and no longer move, grow random ones, within a memory bound.

    every ``every`` steps and layer:  drop by lowest |w| + grad_weight * |g|, down to the lower count; grow at random up
    to the upper count; at ``end`` only drop

    With ``bound`` (soft memory bound) the network trains with the larger count, and grown weights compete for the
    smaller one at the next update. Without it the lower count is (1 - drop) of the upper one and the last
    update does not prune (hard bound). Only gradients of kept weights are used.

    Args:
      sparsity: fraction of zeros that the run ends with, in [0, 1).
      every: period in steps.
      end: step of the last update.
      grad_weight: weight of |g| in the score, at least 0.
      bound: sparsity during training, below ``sparsity``; published example 0.88 for 0.9. None is the hard bound.
      drop: fraction replaced at each update under the hard bound, in (0, 1).
      scope: as for ``static``.
      seed: of masks and growth.

    Returns:
      Method for ``pruned``; use ``init`` to start.

    Raises:
      ValueError: a value out of range.

    Source: Yuan et al. 2021, "MEST: accurate and fast memory-economic sparse training framework on the edge",
      section 3.

    >>> mest(0.9, every=10, end=100, grad_weight=0.01, bound=0.88).refresh(100)
    True
    """
    as_fraction("mest", "sparsity", sparsity)
    check_updates("mest", every, end)
    check_weight("mest", "grad_weight", grad_weight)
    scope_, gate = layer_scope("mest", scope), _gates.every(every, every, end)
    if bound is None:
        return HardMEST(float(sparsity), scope_, gate, as_drop("mest", drop), seed, float(grad_weight), 0.0)
    if not as_fraction("mest", "bound", bound) < as_fraction("mest", "sparsity", sparsity):
        fail("mest", "bound", f"value {bound}", f"a sparsity below {sparsity}")
    args = (float(bound), scope_, gate, constant(0.0), seed, float(grad_weight), float(sparsity))
    return MEST(*args)
