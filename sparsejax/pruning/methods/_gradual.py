"""Gradual pruning: a schedule says how many weights to prune, a score which: magnitude, chance, saliency."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

import sparsejax.pruning.schedules as schedules
from sparsejax._checks import fail
from sparsejax._surface import former_arguments
from sparsejax._typing import PyTree
from sparsejax.pruning._method import Method, View
from sparsejax.pruning.allocation._scopes import Capacity, Scope, ScopeLike, as_scope, capacities
from sparsejax.pruning.allocation._structures import Structure
from sparsejax.pruning.methods._cadence import Cadence, Fires, Step, cadence, check_reaches
from sparsejax.pruning.methods._exchange import random_scores
from sparsejax.pruning.schedules import Schedule

Kind = Literal["first_order", "mean_absolute", "squared", "fisher"]

_FORMER = "sparsejax.pruning.methods._deprecated"


@dataclass(frozen=True)
class Gradual(Method):
    """At each step of the cadence: keep as many of the highest scores as the schedule says."""

    name: str
    schedule: Schedule
    cadence: Cadence
    scope: Scope
    keep_zeros: bool

    @abc.abstractmethod
    def scores(self, view: View) -> list[jax.Array]:
        """Return a score for each weight, 0 or larger."""

    def first_aux(self, view: View) -> PyTree:
        """Return the state before the first step."""
        return ()

    def init(self, view: View) -> tuple[list[jax.Array], PyTree]:
        """Keep all weights (that are not zero, if zeros stay), unless the first update is at step 0."""
        counts = self.counts(view)
        masks = nonzeros(view) if self.keep_zeros else view.masks
        view = view._replace(masks=masks, aux=self.first_aux(view))
        return (self._choose(view, counts[0]) if self.cadence.start == 0 else masks), view.aux

    def refresh(self, step: Step) -> Fires:
        """Follow the cadence."""
        return self.cadence(step)

    def update(self, view: View) -> tuple[list[jax.Array], PyTree]:
        """Keep the highest scores, as many as the schedule says at this step."""
        counts = jnp.asarray(self.counts(view))
        return self._choose(view, counts[self.cadence.index(view.step)]), view.aux

    def capacity(self, view: View) -> list[Capacity]:
        """Return what the schedule ends with; the network is dense at first."""
        level = schedules.sparsity_at(self.name, self.schedule, self.cadence.steps()[-1])
        return capacities(self.name, self.scope, view, level, "sparse phases")

    def counts(self, view: View) -> np.ndarray:
        """Tabulate the kept units on the host, int32[updates, counts of the scope]."""
        return tabulated(self.name, self.schedule, self.cadence, self.scope, view)

    def _choose(self, view: View, counts: jax.Array | np.ndarray) -> list[jax.Array]:
        ranked = nested(view.structure, self.scores(view), view.masks)
        masks = self.scope.choose(view.structure, ranked, counts)
        return [new & old for new, old in zip(masks, view.masks, strict=True)] if self.keep_zeros else masks


def nonzeros(view: View) -> list[jax.Array]:
    """Return the mask of the weights that are not zero."""
    return [weight != 0 for weight in view.weights]


def tabulated(function: str, schedule: Schedule, steps: Cadence, scope: Scope, view: View) -> np.ndarray:
    """Tabulate a schedule as counts on the host, int32[updates, counts of the scope].

    float32 arithmetic inside the step would lose integers above 2**24; Python's fractions do not.
    """
    known: dict[Any, list[int]] = {}
    rows = []
    for step in steps.steps():
        level = schedules.sparsity_at(function, schedule, step)
        if level not in known:
            known[level] = scope.counts(function, view.structure, view.names, view.shapes, level)
        rows.append(known[level])
    return np.array(rows, np.int32)


def nested(structure: Structure, scores: list[jax.Array], masks: list[jax.Array]) -> list[jax.Array]:
    """Rank pruned units below kept ones that happen to score zero, so masks nest while the sparsity rises.

    Weights that are pruned within a kept unit score 0.
    """
    ranked = []
    for score, mask in zip(scores, masks, strict=True):
        alive = structure.to_mask(structure.to_units(mask.astype(score.dtype)) > 0, mask.shape)
        ranked.append(jnp.where(mask, score, jnp.where(alive, 0, -1).astype(score.dtype)))
    return ranked


class Magnitude(Gradual):
    """The method object behind ``magnitude`` and ``one_shot``."""

    def scores(self, view: View) -> list[jax.Array]:
        """Return the absolute values."""
        return [jnp.abs(weight) for weight in view.weights]


@former_arguments("refresh", use="update_every, start, stop", former=f"{_FORMER}.magnitude")
def magnitude(
    schedule: Schedule,
    *,
    update_every: int,
    start: int = 0,
    stop: int,
    scope: ScopeLike = "global",
    keep_zeros: bool = False,
) -> Method:
    """Prune gradually by magnitude (GMP).

    at each update t:  mask <- top-k(s(t)) of |w|;  in between the mask is fixed

    While the sparsity rises, masks nest: a pruned weight does not return. If a schedule falls, weights return at 0,
    lower flat index first.

    Args:
      schedule: step -> sparsity in [0, 1), any function, see ``schedules``; published ``cubic``. It is evaluated on
        the host at the updates only, and the counts are exact integers.
      update_every: steps from one update of the mask to the next.
      start: first update; 0 is when the optimizer state is made. The mask of step t is in force in the forward pass
        after t optimizer steps.
      stop: last update, also if ``update_every`` does not lead there; at least the end of a schedule that has one.
      scope: ``"global"``, one threshold over all prunable weights, ``"layer"``, the same sparsity in each, ``"erk"``,
        ``"er"``, ``across(...)`` or ``per_layer(...)``. Published headline numbers differ: Zhu & Gupta prune per
        layer, later work globally.
      keep_zeros: what is zero when the optimizer state is made stays zero, from the first step on: a network that is
        70 % sparse trains at 70 % until the schedule asks for more. Otherwise it is dense until ``start``.

    Returns:
      Method for ``pruned``.

    Raises:
      ValueError: unknown scope, steps out of range, or ``stop`` is before the end of the schedule.
      TypeError: ``schedule`` is not a function.

    Source: Zhu & Gupta 2017, "To prune, or not to prune", section 3; Gale et al. 2019, section 3.

    >>> import optax
    >>> from sparsejax.pruning import get_mask, pruned, schedules
    >>> method = magnitude(schedules.cubic(0.0, 0.75, begin=0, end=10), update_every=5, stop=10)
    >>> tx = pruned(optax.sgd(0.1), method)
    >>> params = {"kernel": jnp.arange(8.0).reshape(2, 4)}
    >>> state = tx.init(params)
    >>> for _ in range(10):
    ...     updates, state = tx.update(params, state, params)
    ...     params = optax.apply_updates(params, updates)
    >>> get_mask(state)["kernel"].tolist()
    [[False, False, False, False], [False, False, True, True]]
    """
    steps = cadence("magnitude", update_every, start, stop)
    check_reaches("magnitude", schedule, stop)
    return Magnitude("magnitude", schedule, steps, as_scope("magnitude", scope), keep_zeros)


def one_shot(sparsity: float, *, at: int = 0, scope: ScopeLike = "global", keep_zeros: bool = False) -> Method:
    """Prune once by magnitude, then train the remaining weights.

    at step ``at``:  mask <- top-k(s) of |w|;  fixed from then on

    Without training after it, judge the accuracy only after ``recalibrate`` if there are batch norms.

    Args:
      sparsity: fraction of zeros, in [0, 1).
      at: number of optimizer steps before the pruning; 0 prunes when the optimizer state is made, use
        ``init`` then to have the parameters masked before the first step as well.
      scope, keep_zeros: as for ``magnitude``.

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
    return Magnitude("one_shot", schedule, Cadence(1, at, at), as_scope("one_shot", scope), keep_zeros)


@dataclass(frozen=True)
class Saliency(Gradual):
    """The method object behind ``saliency``; ``aux`` holds one average per weight, float32."""

    kind: Kind
    average: float

    def first_aux(self, view: View) -> PyTree:
        """Return averages of zero."""
        return [jnp.zeros(shape, jnp.float32) for shape in view.shapes]

    def observe(self, view: View) -> PyTree:
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


@former_arguments("refresh", use="update_every, start, stop", former=f"{_FORMER}.saliency")
def saliency(
    schedule: Schedule,
    *,
    update_every: int,
    start: int = 0,
    stop: int,
    kind: Kind = "first_order",
    average: float = 0.0,
    scope: ScopeLike = "global",
    keep_zeros: bool = False,
) -> Method:
    """Prune gradually by the change of the loss that a first- or second-order expansion predicts.

    "first_order": |E[g] * w|;  "mean_absolute": E|g * w|;  "squared": E(g * w)^2;  "fisher": E[g^2] * w^2 / 2 (OBD with
    the diagonal of the empirical Fisher matrix, of batch gradients)

    E is an exponential average over the steps until now.

    Args:
      schedule: step -> sparsity in [0, 1), as for ``magnitude``; 0 at step 0, where there is no gradient yet, if
        ``start`` is 0.
      update_every, start, stop: as for ``magnitude``.
      kind: which saliency.
      average: decay of the average per step, in [0, 1); 0 uses the gradient of the step alone.
      scope, keep_zeros: as for ``magnitude``.

    Returns:
      Method for ``pruned``; keeps one dense float32 average.

    Raises:
      ValueError: a value out of range, or ``stop`` is before the end of the schedule.
      TypeError: ``schedule`` is not a function.

    Source: Molchanov et al. 2017, "Pruning convolutional neural networks for resource efficient inference", equation 7;
      LeCun et al. 1990, "Optimal brain damage", equation 5 ("fisher").

    >>> import sparsejax.pruning.schedules as schedules
    >>> ramp = schedules.cubic(0.0, 0.9, begin=0, end=1000)
    >>> method = saliency(ramp, update_every=100, stop=1000, kind="fisher", average=0.9)
    >>> method.refresh(1000)
    True
    """
    steps = cadence("saliency", update_every, start, stop)
    check_reaches("saliency", schedule, stop)
    if kind not in get_args(Kind):
        fail("saliency", "kind", f"value {kind!r}", f"one of {get_args(Kind)}")
    if not 0 <= average < 1:
        fail("saliency", "average", f"value {average}", "a number in [0, 1)")
    if start == 0 and schedules.sparsity_at("saliency", schedule, 0) > 0:
        hint = "At step 0 there is no gradient to choose by."
        fail("saliency", "start", "value 0", "1 or later with a schedule that is above 0 at step 0", hint)
    return Saliency("saliency", schedule, steps, as_scope("saliency", scope), keep_zeros, kind, float(average))


@former_arguments("refresh", use="update_every, start, stop", former=f"{_FORMER}.random_pruning")
def random_pruning(
    schedule: Schedule,
    *,
    update_every: int,
    start: int = 0,
    stop: int,
    scope: ScopeLike = "layer",
    seed: int = 0,
    keep_zeros: bool = False,
) -> Method:
    """Prune gradually at random: the control of every experiment.

    at each update t:  mask <- top-k(s(t)) of a random number drawn once for each weight

    Args:
      schedule, update_every, start, stop, scope, keep_zeros: as for ``magnitude``.
      seed: of the numbers.

    Returns:
      Method for ``pruned``.

    Raises:
      ValueError: unknown scope, steps out of range, or ``stop`` is before the end of the schedule.
      TypeError: ``schedule`` is not a function.

    Source: Gale et al. 2019, "The state of sparsity in deep neural networks", section 3.1.

    >>> import sparsejax.pruning.schedules as schedules
    >>> random_pruning(schedules.cubic(0.0, 0.9, begin=0, end=10), update_every=4, stop=10).refresh(10)
    True
    """
    steps = cadence("random_pruning", update_every, start, stop)
    check_reaches("random_pruning", schedule, stop)
    return RandomPruning("random_pruning", schedule, steps, as_scope("random_pruning", scope), keep_zeros, seed)
