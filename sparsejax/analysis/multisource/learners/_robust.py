"""Distributionally robust fairness constraints: fair for every weighting of the rows near the uniform one."""

from __future__ import annotations

import functools
from collections.abc import Collection
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from sparsejax._checks import fail
from sparsejax.analysis._arrays import read_number
from sparsejax.analysis._frames import one_of
from sparsejax.analysis.multisource._inputs import Labels
from sparsejax.analysis.multisource.learners._base import CLIP, LinearClassifier, LinearFit

_ROUND = 256  # Numbers of rows are rounded up to a multiple: programs are compiled per shape.
_DRAWS = 10  # weightings of each group that a kept iterate is tested on
_FEASIBLE = 1e-8
PUBLISHED_DECISIONS = ("draws", "hinge", "simultaneous")


class RobustLearner(LinearClassifier):
    """Linear classifier under fairness constraints that hold for all weightings near the training set; "dro".

    Minimises the class-balanced cross-entropy subject to, for each group g,

        | P(y=1) - sum_i w_i sigma(logit_i) | <= slack    for all w >= 0 on the group with sum 1, |w - 1/n_g|_1 <= 2 tv

    by gradient steps on the classifier and projected ascent steps on the weights and on one multiplier per group. The
    iterate with the lowest loss is kept among those that meet the constraints for the current weights and for ten
    weightings drawn at random. While it predicts one class for every row, the slack is doubled and all starts again.

    Args:
      tv: total variation between the training set and the true distribution, in [0, 1); in the study the share of
        manipulated sources.
      slack: first slack.
      steps: of each attempt.
      learning_rate, weight_rate, multiplier_rate: step sizes of the classifier, the weights and the multipliers.
      legacy: True for all decisions of the published numbers, or the names of some: "draws", the weightings of the test
        are the mean of the uniform weighting and a random one, whatever ``tv``, instead of on the boundary of the ball;
        "hinge", a constraint that is met counts as 0, so multipliers never fall; "simultaneous", classifier, weights
        and multipliers step from the same point, instead of one after the other.
      random_state: seed of the draws.

    Attributes:
      slack_: of the last attempt.

    Source: Wang et al. 2020, "Robust Optimization for Fairness with Noisy Protected Groups", distribution balls, as
    used by Iofinova et al. 2022.
    """

    def __init__(
        self,
        tv: float = 0.0,
        *,
        slack: float = 0.01,
        steps: int = 1000,
        learning_rate: float = 1e-2,
        weight_rate: float = 1e-2,
        multiplier_rate: float = 1e-1,
        legacy: bool | Collection[str] = False,
        random_state: int = 0,
    ):
        self.tv = tv
        self.slack = slack
        self.steps = steps
        self.learning_rate = learning_rate
        self.weight_rate = weight_rate
        self.multiplier_rate = multiplier_rate
        self.legacy = legacy
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike, *, sensitive_features: Labels = None) -> Self:
        """Fit.

        Raises:
          ValueError: labels or attribute not binary, missing values, or ``tv`` or ``slack`` out of range.
        """
        tv = read_number("RobustLearner.fit", "tv", self.tv)
        slack = read_number("RobustLearner.fit", "slack", self.slack)
        if not 0 <= tv < 1:
            fail("RobustLearner.fit", "tv", f"value {self.tv}", "a number in [0, 1)")
        if not slack > 0:
            fail("RobustLearner.fit", "slack", f"value {self.slack}", "a positive number")
        legacy = _decisions(self.legacy)
        matrix, labels, a = self._inputs(X, y, sensitive_features)
        padding = -len(labels) % _ROUND
        columns = np.pad(np.column_stack([matrix, np.ones(len(matrix))]), ((0, padding), (0, 0)))
        member = np.pad(np.stack([a == 0, a == 1]), ((0, 0), (0, padding)))
        y_padded = np.pad(labels, (0, padding))
        rates = np.array([self.learning_rate, self.weight_rate, self.multiplier_rate])
        self.slack_ = slack
        with jax.enable_x64(True):
            while True:
                key = jax.random.key(self.random_state)
                theta = _train(columns, y_padded, member, key, self.slack_, tv, rates, steps=self.steps, legacy=legacy)
                self._set(LinearFit(np.asarray(theta), self.steps))
                decisions = matrix @ self.coef_[0] + self.intercept_[0] >= 0
                if 0 < decisions.mean() < 1 or self.slack_ >= 1:  # a slack of 1 forbids nothing
                    return self
                self.slack_ *= 2


def _decisions(legacy: bool | Collection[str]) -> frozenset[str]:
    if isinstance(legacy, bool):
        return frozenset(PUBLISHED_DECISIONS if legacy else ())
    names = {legacy} if isinstance(legacy, str) else set(legacy)
    for name in names:
        one_of("RobustLearner.fit", "legacy", name, PUBLISHED_DECISIONS)
    return frozenset(names)


@functools.partial(jax.jit, static_argnames=("steps", "legacy"))
def _train(
    X: jax.Array,
    y: jax.Array,
    member: jax.Array,
    key: jax.Array,
    slack: jax.Array,
    tv: jax.Array,
    rates: jax.Array,
    *,
    steps: int,
    legacy: frozenset[str],
) -> jax.Array:
    real = X[:, -1]  # the intercept's column is 0 in padding rows
    sizes = member.sum(1, keepdims=True)
    uniform = member / sizes
    positive = (y * real).sum() / real.sum()
    balance = 0.5 * real * jnp.where(y == 1, 1 / (y * real).sum(), 1 / ((1 - y) * real).sum())

    def loss(logits: jax.Array) -> jax.Array:
        return balance @ (jnp.logaddexp(0.0, logits) - y * logits)

    def violation(weights: jax.Array, logits: jax.Array) -> jax.Array:
        normal = weights / weights.sum(-1, keepdims=True)
        return jnp.abs(positive - normal @ jax.nn.sigmoid(logits)) - slack

    def lagrangian(theta: jax.Array, weights: jax.Array, multipliers: jax.Array) -> jax.Array:
        logits = jnp.clip(X @ theta, -CLIP, CLIP)
        over = violation(weights, logits)
        return loss(logits) + multipliers @ (jnp.maximum(over, 0) if "hinge" in legacy else over)

    def survives(logits: jax.Array, step: jax.Array) -> jax.Array:
        draws = _draws(jax.random.fold_in(key, step), member, uniform, tv, "draws" in legacy)
        return (violation(draws, logits) <= 0).all()

    def body(step: jax.Array, state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        theta, weights, multipliers, best, lowest = state
        at = theta, weights, multipliers
        slopes = jax.grad(lagrangian, argnums=(0, 1, 2))
        theta = theta - rates[0] * slopes(*at)[0]
        if "simultaneous" not in legacy:
            at = theta, weights, multipliers
        raised = weights + rates[1] * slopes(*at)[1]
        weights = jnp.maximum(uniform + jax.vmap(_onto_ball, (0, None))((raised - uniform) * member, 2 * tv), 0)
        if "simultaneous" not in legacy:
            at = theta, weights, multipliers
        multipliers = jnp.maximum(multipliers + rates[2] * slopes(*at)[2], 0)
        logits = jnp.clip(X @ theta, -CLIP, CLIP)
        over = violation(weights, logits)
        value = loss(logits)
        candidate = (over <= _FEASIBLE).all() & (value < lowest)
        kept = jax.lax.cond(candidate, survives, lambda *_: False, logits, step)
        return theta, weights, multipliers, jnp.where(kept, theta, best), jnp.where(kept, value, lowest)

    start = jnp.zeros(X.shape[1], X.dtype)
    state = (start, uniform, jnp.zeros(2, X.dtype), start, jnp.asarray(jnp.inf, X.dtype))
    return jax.lax.fori_loop(0, steps, body, state)[3]


def _draws(key: jax.Array, member: jax.Array, uniform: jax.Array, tv: jax.Array, legacy: bool) -> jax.Array:
    """Random weightings of each group, float64[draws, 2, n]."""
    random = jax.random.exponential(key, (_DRAWS, *member.shape), uniform.dtype) * member
    random = random / random.sum(-1, keepdims=True)
    if legacy:
        return (uniform + random) / 2
    # On the boundary of the ball, in both senses. Clipping at 0 and normalising do not leave the ball.
    away = random - uniform
    sign = jax.random.rademacher(jax.random.fold_in(key, 1), (_DRAWS, 2, 1), uniform.dtype)
    length = jnp.abs(away).sum(-1, keepdims=True)
    return jnp.maximum(uniform + sign * away * (2 * tv / jnp.maximum(length, 1e-12)), 0)


def _onto_ball(v: jax.Array, radius: jax.Array) -> jax.Array:
    """Nearest point of the L1 ball: Duchi et al. 2008, "Efficient projections onto the l1-ball", figure 1."""
    size = jnp.abs(v)
    ranked = jnp.sort(size)[::-1]
    excess = (jnp.cumsum(ranked) - radius) / jnp.arange(1, len(v) + 1)
    threshold = excess[jnp.maximum((ranked > excess).sum() - 1, 0)]
    return jnp.where(size.sum() <= radius, v, jnp.sign(v) * jnp.maximum(size - threshold, 0))
