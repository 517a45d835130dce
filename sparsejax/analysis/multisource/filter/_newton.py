"""Weighted logistic regression by damped Newton: few steps, the same program for every pair."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

_SHORTEST = 2.0**-9  # step length below which rounding decides
_ROUNDING = 1e-12  # relative to the loss


class LogisticFit(NamedTuple):
    """Weights with the intercept last, float64[d + 1]; whether the gradient got small; steps taken."""

    theta: jax.Array
    converged: jax.Array
    n_iter: jax.Array


def logistic(
    X: jax.Array, target: jax.Array, weight: jax.Array, l2: jax.Array, *, max_iter: int = 100, tol: float = 1e-7
) -> LogisticFit:
    """Minimise sum_i weight_i * BCE(theta . X_i, target_i) + 1/2 sum_k l2_k theta_k^2.

    Args:
      X: float[k, n], a row of the data per column, the intercept as a row of ones (zeros in padding).
      target: float[n] in [0, 1].
      weight: float[n]; 0 leaves a row out.
      l2: float[k], positive where the data alone does not determine the minimum.
      max_iter: most Newton steps.
      tol: on the largest entry of the gradient.

    A step is halved until the loss does not rise. Logits are linear in the step, so a trial costs no product with the
    features.
    """

    def loss(logits: jax.Array, theta: jax.Array) -> jax.Array:
        bce = jnp.maximum(logits, 0) + jnp.log1p(jnp.exp(-jnp.abs(logits))) - target * logits
        return weight @ bce + 0.5 * l2 @ theta**2

    def gradient(p: jax.Array, theta: jax.Array) -> jax.Array:
        return X @ (weight * (p - target)) + l2 * theta

    def body(state: tuple[Any, ...]) -> tuple[jax.Array, ...]:
        theta, logits, p, grad, value, count = state
        hessian = (X * (weight * p * (1 - p))) @ X.T + jnp.diag(l2)
        move = -jax.scipy.linalg.solve(hessian, grad, assume_a="pos")
        along = move @ X
        accept = value + _ROUNDING * jnp.abs(value)

        def too_long(trial: tuple[jax.Array, jax.Array]) -> jax.Array:
            return (trial[1] > accept) & (trial[0] > _SHORTEST)

        def halve(trial: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            return trial[0] / 2, loss(logits + trial[0] / 2 * along, theta + trial[0] / 2 * move)

        length, value = jax.lax.while_loop(too_long, halve, (jnp.ones_like(value), loss(logits + along, theta + move)))
        theta, logits = theta + length * move, logits + length * along
        p = jax.nn.sigmoid(logits)
        return theta, logits, p, gradient(p, theta), value, count + 1

    def unfinished(state: tuple[jax.Array, ...]) -> jax.Array:
        return (jnp.abs(state[3]).max() > tol) & (state[5] < max_iter)

    theta, logits, p = jnp.zeros(len(X), X.dtype), jnp.zeros(X.shape[1], X.dtype), jnp.full(X.shape[1], 0.5, X.dtype)
    start = theta, logits, p, gradient(p, theta), loss(logits, theta), jnp.zeros((), int)
    theta, _, _, grad, _, count = jax.lax.while_loop(unfinished, body, start)
    return LogisticFit(theta, jnp.abs(grad).max() <= tol, count)
