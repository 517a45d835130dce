"""Gradual pruning by other scores than magnitude: first-order saliency, squared gradients, chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from sparsejax._checks import fail
from sparsejax.pruning._method import Method, View
from sparsejax.pruning._schedules import Schedule
from sparsejax.pruning.allocation._scopes import ScopeLike, as_scope
from sparsejax.pruning.methods._cadence import Every
from sparsejax.pruning.methods._gradual import Gradual, check_gradual
from sparsejax.pruning.methods._regrow import random_scores

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
class Random(Gradual):
    """The method object behind ``random_``."""

    seed: int

    def scores(self, view: View) -> list[jax.Array]:
        """Return the same random numbers every time, so that masks nest."""
        return random_scores(view, self.seed)


def saliency(
    schedule: Schedule,
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


def random_(schedule: Schedule, *, refresh: Every, scope: ScopeLike = "layer", seed: int = 0) -> Method:
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
    >>> random_(schedules.constant(0.5), refresh=every(1, 0, 0)).refresh(0)
    True
    """
    check_gradual("random_", schedule, refresh)
    return Random("random_", schedule, refresh, as_scope("random_", scope), seed)
