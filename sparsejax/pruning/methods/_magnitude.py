"""Magnitude pruning: keep the weights that are largest in absolute value, at once or gradually."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from sparsejax.pruning import _schedules
from sparsejax.pruning._method import Method, View
from sparsejax.pruning.allocation._scopes import ScopeLike, as_scope
from sparsejax.pruning.methods._cadence import Every, every
from sparsejax.pruning.methods._gradual import Gradual, check_gradual


class Magnitude(Gradual):
    """The method object behind ``magnitude`` and ``one_shot``."""

    def scores(self, view: View) -> list[jax.Array]:
        """Return the absolute values."""
        return [jnp.abs(weight) for weight in view.weights]


def magnitude(schedule: _schedules.Schedule, *, refresh: Every, scope: ScopeLike = "global") -> Method:
    """Prune gradually by magnitude (GMP).

    at each step t of ``refresh``:  mask <- top-k(s(t)) of |w|;  in between the mask is fixed

    While the sparsity rises, masks nest: a pruned weight does not come back. If a schedule falls, weights
    come back at 0, lower flat index first.

    Args:
      schedule: step -> sparsity in [0, 1), any function, see ``schedules``; published ``cubic``. It is evaluated on
        the host at the steps of ``refresh`` only, and the counts are exact integers.
      refresh: gate, see ``every``. The mask that it makes at step t is in force in the forward pass after t
        optimizer steps. It must reach the end of a schedule that has one.
      scope: ``"global"``, one threshold over all prunable weights, ``"layer"``, the same sparsity in each, ``"erk"``,
        ``"er"``, ``across(...)`` or ``per_layer(...)``. Published headline numbers differ: Zhu & Gupta prune per
        layer, later work globally.

    Returns:
      Method for ``pruned``.

    Raises:
      ValueError: unknown scope, or the last refresh is before the end of the schedule.
      TypeError: ``schedule`` is no function, or ``refresh`` no gate.

    Source: Zhu & Gupta 2017, "To prune, or not to prune", section 3; Gale et al. 2019, section 3.

    >>> import optax
    >>> from sparsejax.pruning import get_mask, pruned, schedules
    >>> method = magnitude(schedules.cubic(0.0, 0.75, begin=0, end=10), refresh=every(5, 0, 10))
    >>> tx = pruned(optax.sgd(0.1), method)
    >>> params = {"kernel": jnp.arange(8.0).reshape(2, 4)}
    >>> state = tx.init(params)
    >>> for _ in range(10):
    ...     updates, state = tx.update(params, state, params)
    ...     params = optax.apply_updates(params, updates)
    >>> get_mask(state)["kernel"].tolist()
    [[False, False, False, False], [False, False, True, True]]
    """
    check_gradual("magnitude", schedule, refresh)
    return Magnitude("magnitude", schedule, refresh, as_scope("magnitude", scope))


def one_shot(sparsity: float, *, at: int = 0, scope: ScopeLike = "global") -> Method:
    """Prune once by magnitude, then train what is left.

    at step ``at``:  mask <- top-k(s) of |w|;  fixed from then on

    Without training after it, judge the accuracy only after ``recalibrate`` if there are batch norms.

    Args:
      sparsity: fraction of zeros, in [0, 1).
      at: number of optimizer steps before the pruning; 0 prunes when the optimizer state is made, use
        ``init`` then to have the parameters masked before the first step as well.
      scope: as for ``magnitude``.

    Returns:
      Method for ``pruned``.

    Raises:
      ValueError: sparsity outside [0, 1), negative step, or unknown scope.

    Source: Han et al. 2015, "Learning both weights and connections for efficient neural networks", section 3.

    >>> import optax
    >>> from sparsejax.pruning import init, pruned
    >>> params, state = init(pruned(optax.sgd(0.1), one_shot(0.5)), {"kernel": jnp.arange(4.0).reshape(2, 2)})
    >>> params["kernel"].tolist()
    [[0.0, 0.0], [2.0, 3.0]]
    """
    schedule = _schedules.one_shot(sparsity, at)
    return Magnitude("one_shot", schedule, every(1, at, at), as_scope("one_shot", scope))
