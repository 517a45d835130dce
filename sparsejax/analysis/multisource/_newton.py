"""Weighted logistic regression by damped Newton: few steps, the same program for every pair."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# Step lengths tried at once. Logits are linear in the step, so a trial costs no product with the features.
_LENGTHS = 0.5 ** np.arange(10)


class Fit(NamedTuple):
    """Weights with the intercept last, float64[d + 1]; whether the gradient got small; steps taken."""

    theta: jax.Array
    converged: jax.Array
    n_iter: jax.Array


def logistic(
    X: jax.Array, target: jax.Array, weight: jax.Array, l2: jax.Array, *, max_iter: int = 100, tol: float = 1e-8
) -> Fit:
    """Minimise sum_i weight_i * BCE(X_i . theta, target_i) + 1/2 sum_k l2_k theta_k^2.

    Args:
      X: float[n, k], the intercept as a column of ones (zeros in padding rows).
      target: float[n] in [0, 1].
      weight: float[n]; 0 leaves a row out.
      l2: float[k], positive where the data alone does not determine the minimum.
      max_iter: most Newton steps.
      tol: on the largest entry of the gradient.

    Each step takes the best of the step lengths 1, 1/2, .. 1/512, so the loss never rises.
    """

    def loss(logits, theta):
        bce = jnp.logaddexp(0.0, logits) - target * logits
        return (weight * bce).sum(-1) + 0.5 * (l2 * theta**2).sum(-1)

    def gradient(logits, theta):
        return X.T @ (weight * (jax.nn.sigmoid(logits) - target)) + l2 * theta

    def body(state):
        theta, logits, grad, step = state
        curvature = weight * jax.nn.sigmoid(logits) * jax.nn.sigmoid(-logits)
        hessian = (X * curvature[:, None]).T @ X + jnp.diag(l2)
        move = -jnp.linalg.solve(hessian, grad)
        along = X @ move
        trials = loss(logits + _LENGTHS[:, None] * along, theta + _LENGTHS[:, None] * move)
        length = jnp.asarray(_LENGTHS)[jnp.argmin(trials)]
        theta = theta + length * move
        logits = X @ theta
        return theta, logits, gradient(logits, theta), step + 1

    def unfinished(state):
        return (jnp.abs(state[2]).max() > tol) & (state[3] < max_iter)

    start = jnp.zeros(X.shape[1], X.dtype)
    logits = X @ start
    theta, _, grad, steps = jax.lax.while_loop(
        unfinished, body, (start, logits, gradient(logits, start), jnp.zeros((), int))
    )
    return Fit(theta, jnp.abs(grad).max() <= tol, steps)
