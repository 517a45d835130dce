"""MEST: sparse training within a memory bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from sparsejax._checks import fail
from sparsejax.pruning._method import Method, View
from sparsejax.pruning._numbers import check_weight
from sparsejax.pruning._schedules import constant
from sparsejax.pruning.allocation._distributions import as_fraction
from sparsejax.pruning.allocation._scopes import ScopeLike
from sparsejax.pruning.methods import _cadence as _gates
from sparsejax.pruning.methods._regrow import (
    check_updates,
    exchange,
    gradient_magnitudes,
    layer_scope,
    magnitudes,
    random_scores,
    unit_counts,
)
from sparsejax.pruning.methods._sparse_training import Exchange, as_drop


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
