"""Gradual pruning: a schedule says how much, a score which weights: magnitude, chance, saliency."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax._checks import fail
from sparsejax.pruning import schedules
from sparsejax.pruning._capacity import Capacity
from sparsejax.pruning._method import Method, View
from sparsejax.pruning.allocation._scopes import Scope, ScopeLike, as_scope, capacities
from sparsejax.pruning.methods._cadence import Every, every
from sparsejax.pruning.methods._exchange import random_scores


@dataclass(frozen=True)
class Gradual(Method):
    """At each step of the gate: keep as many of the highest scores as the schedule says."""

    name: str
    schedule: schedules.Schedule
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
        level = schedules.sparsity_at(self.name, self.schedule, self.gate.end)
        return capacities(self.name, self.scope, view, level, "sparse phases")

    def counts(self, view: View) -> np.ndarray:
        """Tabulate the kept units on the host, int32[updates, counts of the scope]."""
        return tabulated(self.name, self.schedule, self.gate, self.scope, view)

    def _choose(self, view: View, counts: jax.Array | np.ndarray) -> list[jax.Array]:
        return self.scope.choose(view.structure, nested(self.scores(view), view.masks), counts)


def tabulated(function: str, schedule: schedules.Schedule, gate: Every, scope: Scope, view: View) -> np.ndarray:
    """Tabulate a schedule as counts on the host, int32[updates, counts of the scope].

    float32 arithmetic inside the step would lose integers above 2**24; Python's fractions do not.
    """
    known: dict[Any, list[int]] = {}
    rows = []
    for step in gate.steps():
        level = schedules.sparsity_at(function, schedule, step)
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


class Magnitude(Gradual):
    """The method object behind ``magnitude`` and ``one_shot``."""

    def scores(self, view: View) -> list[jax.Array]:
        """Return the absolute values."""
        return [jnp.abs(weight) for weight in view.weights]


def magnitude(schedule: schedules.Schedule, *, refresh: Every, scope: ScopeLike = "global") -> Method:
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
    schedule = schedules.one_shot(sparsity, at)
    return Magnitude("one_shot", schedule, every(1, at, at), as_scope("one_shot", scope))


Kind = Literal["first_order", "mean_absolute", "squared", "fisher"]


@dataclass(frozen=True)
class Saliency(Gradual):
    """The method object behind ``saliency``; ``aux`` holds one average per weight, float32."""

    kind: Kind
    average: float

    def first_aux(self, view: View) -> Any:
        """Return averages of zero."""
        return [jnp.zeros(shape, jnp.float32) for shape in view.shapes]

    def observe(self, view: View) -> Any:
        """Update the averages with the dense gradient of the step."""
        samples = [self._sample(*pair) for pair in zip(view.grads, view.weights, strict=True)]
        return [self.average * old + (1 - self.average) * new for old, new in zip(view.aux, samples, strict=True)]

    def _sample(self, grad: jax.Array, weight: jax.Array) -> jax.Array:
        g, w = grad.astype(jnp.float32), weight.astype(jnp.float32)
        return {"first_order": g, "mean_absolute": jnp.abs(g * w), "squared": (g * w) ** 2, "fisher": g * g}[self.kind]

    def scores(self, view: View) -> list[jax.Array]:
        """Return the saliencies."""
        weights = [weight.astype(jnp.float32) for weight in view.weights]
        pairs = zip(view.aux, weights, strict=True)
        if self.kind == "first_order":
            return [jnp.abs(mean * weight) for mean, weight in pairs]
        if self.kind == "fisher":
            return [0.5 * mean * weight**2 for mean, weight in pairs]
        return view.aux


@dataclass(frozen=True)
class RandomPruning(Gradual):
    """The method object behind ``random_pruning``."""

    seed: int

    def scores(self, view: View) -> list[jax.Array]:
        """Return the same random numbers every time, so that masks nest."""
        return random_scores(view, self.seed)


def saliency(
    schedule: schedules.Schedule,
    *,
    refresh: Every,
    kind: Kind = "first_order",
    average: float = 0.0,
    scope: ScopeLike = "global",
) -> Method:
    """Prune gradually by the change of the loss that a first- or second-order expansion predicts.

    "first_order": |E[g] * w|;  "mean_absolute": E|g * w|;  "squared": E(g * w)^2;  "fisher": E[g^2] * w^2 / 2 (OBD with
    the diagonal of the empirical Fisher matrix, of batch gradients)

    E is an exponential average over the steps until now.

    Args:
      schedule: step -> sparsity in [0, 1), as for ``magnitude``.
      refresh: gate, see ``every``; not at step 0, where no gradient has been seen.
      kind: which saliency.
      average: decay of the average per step, in [0, 1); 0 uses the gradient of the step alone.
      scope: as for ``magnitude``.

    Returns:
      Method for ``pruned``; keeps one dense float32 average.

    Raises:
      ValueError: a value out of range.
      TypeError: ``schedule`` is no function, or ``refresh`` no gate.

    Source: Molchanov et al. 2017, "Pruning convolutional neural networks for resource efficient inference", equation 7;
      LeCun et al. 1990, "Optimal brain damage", equation 5 ("fisher").

    >>> from sparsejax.pruning import every, schedules
    >>> method = saliency(schedules.one_shot(0.5, 1), refresh=every(1, 1, 1), kind="fisher", average=0.9)
    >>> method.refresh(1)
    True
    """
    check_gradual("saliency", schedule, refresh)
    if kind not in get_args(Kind):
        fail("saliency", "kind", f"value {kind!r}", f"one of {get_args(Kind)}")
    if not 0 <= average < 1:
        fail("saliency", "average", f"value {average}", "a number in [0, 1)")
    if refresh.begin == 0:
        fail("saliency", "refresh", "its first update at step 0", "one at step 1 or later, after a gradient")
    return Saliency("saliency", schedule, refresh, as_scope("saliency", scope), kind, float(average))


def random_pruning(
    schedule: schedules.Schedule, *, refresh: Every, scope: ScopeLike = "layer", seed: int = 0
) -> Method:
    """Prune gradually at random: the control of every experiment.

    at each step t of ``refresh``:  mask <- top-k(s(t)) of a random number drawn once for each weight

    Args:
      schedule: step -> sparsity in [0, 1), as for ``magnitude``.
      refresh: gate, see ``every``.
      scope: as for ``magnitude``.
      seed: of the numbers.

    Returns:
      Method for ``pruned``.

    Raises:
      ValueError: unknown scope, or the last refresh is before the end of the schedule.
      TypeError: ``schedule`` is no function, or ``refresh`` no gate.

    Source: Gale et al. 2019, "The state of sparsity in deep neural networks", section 3.1.

    >>> from sparsejax.pruning import every, schedules
    >>> random_pruning(schedules.constant(0.5), refresh=every(1, 0, 0)).refresh(0)
    True
    """
    check_gradual("random_pruning", schedule, refresh)
    return RandomPruning("random_pruning", schedule, refresh, as_scope("random_pruning", scope), seed)
