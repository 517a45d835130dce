"""What gradual methods share: a schedule tabulated as exact counts, and a choice by scores."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax._checks import fail
from sparsejax.pruning import _schedules
from sparsejax.pruning._capacity import Capacity
from sparsejax.pruning._method import Method, View
from sparsejax.pruning.allocation._scopes import Scope, capacities
from sparsejax.pruning.methods._cadence import Every


@dataclass(frozen=True)
class Gradual(Method):
    """At each step of the gate: keep as many of the highest scores as the schedule says."""

    name: str
    schedule: _schedules.Schedule
    gate: Every
    scope: Scope

    @abc.abstractmethod
    def scores(self, view: View) -> list[jax.Array]:
        """Return a score for each weight, 0 or larger."""

    def first_aux(self, view: View) -> Any:
        """Return the state before the first step."""
        return ()

    def init(self, view: View) -> tuple[list[jax.Array], Any]:
        """Keep all weights, unless the gate fires at step 0."""
        aux = self.first_aux(view)
        counts = self.counts(view)
        return (self._choose(view._replace(aux=aux), counts[0]) if self.gate.begin == 0 else view.masks), aux

    def refresh(self, step: Any) -> Any:
        """Fire when the gate does."""
        return self.gate(step)

    def update(self, view: View) -> tuple[list[jax.Array], Any]:
        """Keep the highest scores, as many as the schedule says at this step."""
        counts = jnp.asarray(self.counts(view))
        return self._choose(view, counts[self.gate.index(view.step)]), view.aux

    def capacity(self, view: View) -> list[Capacity]:
        """Dense at first, what the schedule ends with at last."""
        level = _schedules.sparsity_at(self.name, self.schedule, self.gate.end)
        return capacities(self.name, self.scope, view, level, "sparse phases")

    def counts(self, view: View) -> np.ndarray:
        """Tabulate the kept units on the host, int32[updates, counts of the scope]."""
        return tabulated(self.name, self.schedule, self.gate, self.scope, view)

    def _choose(self, view: View, counts: jax.Array | np.ndarray) -> list[jax.Array]:
        return self.scope.choose(view.structure, nested(self.scores(view), view.masks), counts)


def tabulated(function: str, schedule: _schedules.Schedule, gate: Every, scope: Scope, view: View) -> np.ndarray:
    """Tabulate a schedule as counts on the host, int32[updates, counts of the scope].

    float32 arithmetic inside the step would lose integers above 2**24; Python's fractions do not.
    """
    known: dict[Any, list[int]] = {}
    rows = []
    for step in gate.steps():
        level = _schedules.sparsity_at(function, schedule, step)
        if level not in known:
            known[level] = scope.counts(function, view.structure, view.names, view.shapes, level)
        rows.append(known[level])
    return np.array(rows, np.int32)


def nested(scores: list[jax.Array], masks: list[jax.Array]) -> list[jax.Array]:
    """Rank pruned weights below kept ones that happen to score zero, so masks nest while the sparsity rises."""
    pairs = zip(scores, masks, strict=True)
    return [jnp.where(mask, score, jnp.full((), -1, score.dtype)) for score, mask in pairs]


def check_gradual(function: str, schedule: Any, refresh: Any) -> None:
    """Refuse a schedule or a gate that is none, or a gate that stops before the schedule ends."""
    if not callable(schedule):
        got, hint = f"type {type(schedule).__name__}", "A fixed sparsity is written one_shot(...)."
        fail(function, "schedule", got, "a function step -> sparsity", hint, TypeError)
    if not isinstance(refresh, Every):
        fail(function, "refresh", f"type {type(refresh).__name__}", "a gate, every(...)", error=TypeError)
    if isinstance(end := getattr(schedule, "end", None), int) and refresh.end < end:
        fail(
            function,
            "refresh",
            f"its last update at step {refresh.end}",
            f"one at the end of the schedule, {end}, or later",
            "The final sparsity would never be reached.",
        )
