"""Masks that are learned with the weights: movement pruning and soft thresholds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sparsejax._checks import check_weight, fail
from sparsejax._surface import former_arguments, renamed_arguments
from sparsejax._typing import PyTree
from sparsejax.pruning._filters import KERNELS, Predicate, select_leaves
from sparsejax.pruning._masks import masked_leaves
from sparsejax.pruning._method import Method, View
from sparsejax.pruning.allocation._scopes import Scope, ScopeLike, as_scope
from sparsejax.pruning.methods._cadence import Cadence, Fires, Step, cadence, check_reaches, end_of
from sparsejax.pruning.methods._gradual import tabulated
from sparsejax.pruning.schedules import Schedule


class MovementState(NamedTuple):
    """Scores of the prunable leaves, float32, and the state of their optimizer."""

    scores: list[jax.Array]
    optimizer: Any


@dataclass(frozen=True)
class _Movement(Method):
    """Base of both variants: scores and their optimizer."""

    outside = "keep"

    scores_tx: optax.GradientTransformation

    @property
    def reset(self) -> Literal["none"]:
        """Moments of masked weights stay: masks may change in every step."""
        return "none"

    def init(self, view: View) -> tuple[list[jax.Array], PyTree]:
        """Keep all weights; all scores are zero."""
        scores = [jnp.zeros(shape, jnp.float32) for shape in view.shapes]
        return view.masks, MovementState(scores, self.scores_tx.init(scores))

    def score_gradients(self, view: View) -> list[jax.Array]:
        """Return the straight-through gradient of the loss with respect to the scores, g * w."""
        pairs = zip(view.grads, view.weights, strict=True)
        return [grad.astype(jnp.float32) * weight.astype(jnp.float32) for grad, weight in pairs]

    def observe(self, view: View) -> PyTree:
        """Take a step on the scores."""
        updates, state = self.scores_tx.update(self.score_gradients(view), view.aux.optimizer, view.aux.scores)
        return MovementState([s + u for s, u in zip(view.aux.scores, jax.tree.leaves(updates), strict=True)], state)


@dataclass(frozen=True)
class Movement(_Movement):
    """The method object behind ``movement``."""

    schedule: Schedule
    cadence: Cadence
    scope: Scope
    every_step_after: bool = False  # with the arguments of 0.1.0

    def refresh(self, step: Step) -> Fires:
        """Follow the cadence."""
        fires = self.cadence(step)
        return fires | (step > self.cadence.steps()[-1]) if self.every_step_after else fires

    def update(self, view: View) -> tuple[list[jax.Array], PyTree]:
        """Keep the highest scores, as many as the schedule says at this step, after its end as many as there."""
        steps = self.cadence
        last = max(steps.start, end_of(self.schedule) or 0) if steps.stop is None else steps.stop
        steps = Cadence(steps.update_every, steps.start, last)
        table = jnp.asarray(tabulated("movement", self.schedule, steps, self.scope, view))
        counts = table[steps.index(jnp.minimum(view.step, last))]
        return self.scope.choose(view.structure, view.aux.scores, counts), view.aux


@dataclass(frozen=True)
class SoftMovement(_Movement):
    """The method object behind ``soft_movement``."""

    threshold: float
    penalty: float
    cadence: Cadence

    def refresh(self, step: Step) -> Fires:
        """Follow the cadence."""
        return self.cadence(step)

    def score_gradients(self, view: View) -> list[jax.Array]:
        """Add the gradient of the penalty, whose mean runs over all scores."""
        size = sum(score.size for score in view.aux.scores)
        slopes = [jax.nn.sigmoid(s) * (1 - jax.nn.sigmoid(s)) for s in view.aux.scores]
        return [g + self.penalty / size * s for g, s in zip(super().score_gradients(view), slopes, strict=True)]

    def update(self, view: View) -> tuple[list[jax.Array], PyTree]:
        """Keep the weights whose score is above the threshold."""
        return [jax.nn.sigmoid(score) > self.threshold for score in view.aux.scores], view.aux


@former_arguments("refresh", use="update_every, start, stop", former="sparsejax.pruning.methods._deprecated.movement")
def movement(
    schedule: Schedule,
    *,
    update_every: int = 1,
    start: int = 0,
    stop: int | None = None,
    scores_tx: optax.GradientTransformation,
    scope: ScopeLike = "global",
) -> Method:
    """Keep the weights that move away from zero while a pre-trained network is fine-tuned.

    forward: w * mask, mask = top-k(t) of S;  S <- optimizer(S, g * w), g at the masked point;
    w <- optimizer(w, g * mask)

    Under SGD, S adds up -lr * g * w. Masked weights keep their value and may return, also after the end of the
    schedule. The loss must use ``forward_params(params, opt_state)``.

    Args:
      schedule: step -> sparsity in [0, 1); published: cubic after a dense warm-up, with a constant tail.
      update_every: steps from one update of the mask to the next; published: 1.
      start: first update after step 0, at which all weights are kept.
      stop: last update; None is never, as published. It must not be None for a schedule that does not say where it
        ends (those of ``sparsejax.pruning.schedules`` that rise do).
      scores_tx: optimizer of the scores; published: the same family as for the weights, learning rate 1e-2.
      scope: as for ``magnitude``.

    Returns:
      Method for ``pruned``. Scores are dense, as is their optimizer's state.

    Raises:
      ValueError: unknown scope, steps out of range, or ``stop`` is before the end of the schedule.
      TypeError: ``schedule`` is not a function.

    Source: Sanh et al. 2020, "Movement pruning: adaptive sparsity by fine-tuning", section 4.

    >>> from sparsejax.pruning import get_mask, pruned, schedules
    >>> method = movement(schedules.one_shot(0.5, 1), start=1, scores_tx=optax.sgd(1.0))
    >>> tx, params = pruned(optax.sgd(0.1), method), {"kernel": jnp.array([[1.0, -1.0]])}
    >>> _, state = tx.update({"kernel": jnp.array([[1.0, 1.0]])}, tx.init(params), params)
    >>> get_mask(state)["kernel"].tolist()
    [[False, True]]
    """
    steps = cadence("movement", update_every, start, stop)
    if stop is None and callable(schedule) and end_of(schedule) is None:
        hint = "This schedule does not say where it ends."
        fail("movement", "stop", "value None", "the step of the last update", hint)
    check_reaches("movement", schedule, (end_of(schedule) or 0) if stop is None else stop)
    return Movement(scores_tx, schedule, steps, as_scope("movement", scope))


@renamed_arguments(begin="start")
def soft_movement(
    *,
    threshold: float,
    penalty: float,
    scores_tx: optax.GradientTransformation,
    update_every: int = 1,
    start: int = 0,
    stop: int | None = None,
) -> Method:
    """Keep the weights whose movement score is above a threshold, however many they are.

    mask = sigmoid(S) > threshold;  S <- optimizer(S, g * w + penalty * d mean(sigmoid(S)) / dS)

    The sparsity follows from the penalty and drifts; structures other than unstructured have no effect.

    Args:
      threshold: in (0, 0.5): scores start at 0, where the sigmoid is 0.5.
      penalty: weight of the mean of sigmoid(S) in the loss, at least 0; the sparsity is set by it.
      scores_tx: optimizer of the scores.
      update_every: steps from one update of the mask to the next; published: 1.
      start: first update after step 0, at which all weights are kept.
      stop: last update; None is never, as published.

    Returns:
      Method for ``pruned``; the loss must use ``forward_params(params, opt_state)``.

    Raises:
      ValueError: a value out of range.

    Source: Sanh et al. 2020, "Movement pruning", section 4, soft movement pruning.

    >>> soft_movement(threshold=0.1, penalty=400.0, scores_tx=optax.sgd(1.0)).refresh(0)
    True
    """
    if not 0 < threshold < 0.5:
        fail("soft_movement", "threshold", f"value {threshold}", "a number in (0, 0.5)")
    check_weight("soft_movement", "penalty", penalty)
    steps = cadence("soft_movement", update_every, start, stop)
    return SoftMovement(scores_tx, float(threshold), float(penalty), steps)


class SoftThresholdParams(NamedTuple):
    """The trained parameters of ``soft_threshold``.

    Attributes:
      weights: parameters; those of prunable leaves stand behind their threshold.
      thresholds: scalar theta per prunable leaf; ``optax.MaskedNode()`` for others.
    """

    weights: PyTree
    thresholds: PyTree


@dataclass(frozen=True)
class SoftThreshold:
    """A reparametrisation; built by ``soft_threshold``. Train what ``init`` returns, use what ``forward`` returns."""

    where: Predicate
    initial: float

    def init(self, params: PyTree) -> SoftThresholdParams:
        """Add the thresholds."""
        leaves = select_leaves("soft_threshold", self.where, params)
        thetas = [jnp.asarray(self.initial, leaf.dtype) for leaf in leaves.prunable]
        return SoftThresholdParams(params, leaves.masked_tree(thetas))

    def forward(self, trained: SoftThresholdParams) -> PyTree:
        """Return the parameters of the network; differentiable in weights and thresholds."""
        leaves, thetas = masked_leaves("soft_threshold", trained.weights, trained.thresholds, "thresholds")
        return leaves.replaced([_soft(*pair) for pair in zip(leaves.prunable, thetas, strict=True)])

    def export(self, trained: SoftThresholdParams) -> tuple[PyTree, PyTree]:
        """Return the final parameters and their masks, for ``fixed`` and ``sparsify``."""
        params = self.forward(trained)
        leaves, _ = masked_leaves("soft_threshold", params, trained.thresholds, "thresholds")
        return params, leaves.masked_tree([leaf != 0 for leaf in leaves.prunable])


def _soft(weight: jax.Array, theta: jax.Array) -> jax.Array:
    return jnp.sign(weight) * jax.nn.relu(jnp.abs(weight) - jax.nn.sigmoid(theta))


def soft_threshold(*, where: Predicate = KERNELS, initial: float = -3200.0) -> SoftThreshold:
    """Learn a threshold for each layer together with its weights (STR, soft threshold reparametrisation).

    w~ = sign(w) * relu(|w| - sigmoid(theta_l));  dL/dtheta = -sigmoid'(theta) * sum of sign(w) * g over
    |w| > sigmoid(theta)

    The sparsity follows from weight decay, which acts on theta too and pulls it towards 0; it is not set. Not an
    optimizer wrapper: give the optimizer ``SoftThresholdParams``.

    Args:
      where: filter of the leaves with a threshold.
      initial: theta at the start; published -3200 (ResNet-50, 90 %, with weight decay 2.25e-5 and learning rate 0.256
        over 100 epochs), at which the threshold is 0 and only decay moves theta.

    Returns:
      Object with ``init``, ``forward``, ``export``.

    Raises:
      ValueError: from ``init``, if ``where`` selects nothing.

    Source: Kusupati et al. 2020, "Soft threshold weight reparameterization for learnable sparsity", equations 4 and 6.

    >>> method = soft_threshold(initial=0.0)
    >>> trained = method.init({"kernel": jnp.array([[0.25, -1.0]])})
    >>> method.forward(trained)["kernel"].tolist()
    [[0.0, -0.5]]
    """
    return SoftThreshold(where, float(initial))
