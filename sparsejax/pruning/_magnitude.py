"""Magnitude pruning: keep the weights that are largest in absolute value, at once or gradually."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax._checks import fail
from sparsejax.pruning import _schedules
from sparsejax.pruning._distributions import kept
from sparsejax.pruning._gates import Every, every
from sparsejax.pruning._method import Method, View

Scope = Literal["global", "layer"]
_SCOPES = ("global", "layer")


@dataclass(frozen=True)
class Magnitude:
    """The method object behind ``magnitude`` and ``one_shot``."""

    schedule: _schedules.Schedule
    gate: Every
    scope: Scope

    def init(self, view: View) -> tuple[list[jax.Array], Any]:
        """Keep all weights, unless the gate fires at step 0."""
        counts = self._counts(view)
        return (self._choose(view, counts[0]) if self.gate.begin == 0 else view.masks), ()

    def refresh(self, step: jax.Array) -> jax.Array:
        """Fire when the gate does."""
        return self.gate(step)

    def update(self, view: View) -> tuple[list[jax.Array], Any]:
        """Keep the largest weights, as many as the schedule says at this step."""
        counts = jnp.asarray(self._counts(view))
        return self._choose(view, counts[self.gate.index(jnp.asarray(view.step))]), ()

    def _counts(self, view: View) -> np.ndarray:
        """Tabulate the kept counts on the host, int32[updates, groups].

        float32 arithmetic inside the step would lose integers above 2**24; Python's fractions do not.
        """
        sizes = [weight.size for weight in view.weights]
        groups = [sum(sizes)] if self.scope == "global" else sizes
        levels = [_schedules.sparsity_at("magnitude", self.schedule, step) for step in self.gate.steps()]
        return np.array([[kept(level, size) for size in groups] for level in levels], np.int32)

    def _choose(self, view: View, counts: jax.Array | np.ndarray) -> list[jax.Array]:
        # Pruned weights rank below kept ones that happen to be zero, so masks nest while the sparsity rises.
        scores = [
            jnp.where(mask, jnp.abs(weight), jnp.full((), -1, weight.dtype))
            for weight, mask in zip(view.weights, view.masks, strict=True)
        ]
        if self.scope == "global":
            return view.structure.select(scores, counts[0])
        return [view.structure.select([score], counts[i])[0] for i, score in enumerate(scores)]


def _check_scope(function: str, scope: str) -> None:
    if scope not in _SCOPES:
        fail(function, "scope", f"value {scope!r}", f"one of {_SCOPES}")


def magnitude(schedule: _schedules.Schedule, *, refresh: Every, scope: Scope = "global") -> Method:
    """Prune gradually by magnitude (GMP).

    at each step t of ``refresh``:  mask <- top-k(s(t)) of |w|;  in between the mask is fixed

    While the sparsity rises, masks nest: a pruned weight does not come back. If a schedule falls, weights
    come back at 0, lower flat index first.

    Args:
      schedule: step -> sparsity in [0, 1), any function, see ``schedules``. It is evaluated on the host at
        the steps of ``refresh`` only, and the counts are exact integers.
      refresh: gate, see ``every``. The mask that it makes at step t is in force in the forward pass after t
        optimizer steps. It must reach the end of a schedule that has one.
      scope: ``"global"``, one threshold over all prunable weights, or ``"layer"``, the same sparsity in each.
        Published headline numbers differ: Zhu & Gupta prune per layer, later work globally.

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
    _check_scope("magnitude", scope)
    if not callable(schedule):
        fail(
            "magnitude",
            "schedule",
            f"type {type(schedule).__name__}",
            "a function step -> sparsity",
            "A fixed sparsity is written one_shot(...).",
            TypeError,
        )
    if not isinstance(refresh, Every):
        fail("magnitude", "refresh", f"type {type(refresh).__name__}", "a gate, every(...)", error=TypeError)
    if isinstance(end := getattr(schedule, "end", None), int) and refresh.end < end:
        fail(
            "magnitude",
            "refresh",
            f"its last update at step {refresh.end}",
            f"one at the end of the schedule, {end}, or later",
            "The final sparsity would never be reached.",
        )
    return Magnitude(schedule, refresh, scope)


def one_shot(sparsity: float, *, at: int = 0, scope: Scope = "global") -> Method:
    """Prune once by magnitude, then train what is left.

    at step ``at``:  mask <- top-k(s) of |w|;  fixed from then on

    Args:
      sparsity: fraction of zeros, in [0, 1).
      at: number of optimizer steps before the pruning; 0 prunes when the optimizer state is made, use
        ``init`` then to have the parameters masked before the first step as well.
      scope: ``"global"``, one threshold over all prunable weights, or ``"layer"``, the same sparsity in each.

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
    _check_scope("one_shot", scope)
    return Magnitude(_schedules.one_shot(sparsity, at), every(1, at, at), scope)
