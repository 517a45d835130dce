"""The adversarial learner: a classifier whose logit should say little about the protected attribute."""

from __future__ import annotations

import functools
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import ArrayLike

from sparsejax.analysis.multisource._inputs import Labels
from sparsejax.analysis.multisource.learners._base import CLIP, LinearClassifier, LinearFit, logistic_start

_ROUND = 256  # Numbers of rows are rounded up to a multiple: programs are compiled per shape.


class AdversarialLearner(LinearClassifier):
    """Linear classifier against an attacker that predicts the attribute from its logit; "adv" in the study.

    Full-batch alternating steps of Adam: the classifier minimises BCE(logit, y) - eta * BCE(u * logit - b, a), the
    attacker, two scalars u and b that start at 0, minimises eta * BCE(u * logit - b, a). The last iterate is used.

    Args:
      eta: weight of the attacker.
      steps: of Adam, for the classifier and for the attacker.
      learning_rate: of Adam, per step.

    Source: Wadsworth et al. 2018, "Achieving Fairness through Adversarial Learning".
    """

    def __init__(self, eta: float = 0.5, steps: int = 1000, learning_rate: float = 1e-3):
        self.eta = eta
        self.steps = steps
        self.learning_rate = learning_rate

    def fit(self, X: ArrayLike, y: ArrayLike, *, sensitive_features: Labels = None) -> Self:
        """Fit.

        Raises:
          ValueError: labels or attribute not binary, or missing values.
        """
        matrix, labels, a = self._inputs(X, y, sensitive_features)
        padding = -len(labels) % _ROUND
        columns = np.pad(np.column_stack([matrix, np.ones(len(matrix))]), ((0, padding), (0, 0)))
        y_padded, a_padded = (np.pad(values.astype(float), (0, padding)) for values in (labels, a))
        start = logistic_start(matrix, labels, 1.0, 500).theta
        with jax.enable_x64(True):
            theta = _train(columns, y_padded, a_padded, start, self.eta, self.learning_rate, self.steps)
            self._set(LinearFit(np.asarray(theta), self.steps))
        return self


@functools.partial(jax.jit, static_argnames="steps")
def _train(
    X: jax.Array, y: jax.Array, a: jax.Array, theta: jax.Array, eta: float, rate: float, steps: int
) -> jax.Array:
    weight = X[:, -1] / X[:, -1].sum()  # the intercept's column is 0 in padding rows

    def bce(logits: jax.Array, target: jax.Array) -> jax.Array:
        return weight @ (jnp.logaddexp(0.0, logits) - target * logits)

    def attack(parameters: tuple[jax.Array, jax.Array]) -> jax.Array:
        theta, attacker = parameters
        return eta * bce(attacker[0] * jnp.clip(X @ theta, -CLIP, CLIP) - attacker[1], a)

    def step(_: Any, carry: tuple[Any, ...]) -> tuple[Any, ...]:
        theta, attacker, state, attacker_state = carry
        grad = jax.grad(lambda t: bce(jnp.clip(X @ t, -CLIP, CLIP), y) - attack((t, attacker)))(theta)
        update, state = optimizer.update(grad, state)
        theta = theta + update
        grad = jax.grad(lambda w: attack((theta, w)))(attacker)
        update, attacker_state = optimizer.update(grad, attacker_state)
        return theta, attacker + update, state, attacker_state

    optimizer = optax.adam(rate)
    attacker = jnp.zeros(2, theta.dtype)
    return jax.lax.fori_loop(0, steps, step, (theta, attacker, optimizer.init(theta), optimizer.init(attacker)))[0]
