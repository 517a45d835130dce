"""The three fits behind the distances, each for one pair: what is maximised, and how.

``f`` is always linear: class 1 where the logit is at least 0. Features are standardised over the pair (`take_pair`).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sparsejax.analysis.multisource import _bfgs, _newton
from sparsejax.analysis.multisource._stack import Pair, Stack, take_pair

CLIP = 20.0  # logits are clipped to [-CLIP, CLIP], with zero gradient outside
_SOFT = 1e-8  # of the smooth absolute value
# Keeps the minimum finite where classes can be separated or columns are linearly dependent.
_RIDGE = 1e-6


class Value(NamedTuple):
    """A distance, whether its fit converged, and the iterations it took."""

    value: jax.Array
    converged: jax.Array
    n_iter: jax.Array


def discrepancy(stack: Stack, pair: jax.Array) -> Value:
    """disc(S, T) = max_f |R_S(f) - R_T(f)|, R the share of wrong decisions.

    Maximised by logistic regression on S with its labels and T with flipped ones, each set of total weight 1. Swapping
    S and T negates the classifier, so one order is enough. In [0, 1].
    """
    both = take_pair(stack, pair)
    target = both.y.at[1].set(1 - both.y[1])
    weight = both.weight / both.weight.sum(1, keepdims=True)
    X = both.X.reshape(-1, both.X.shape[-1])
    fit = _newton.logistic(X, target.ravel(), weight.ravel(), jnp.full(X.shape[1], _RIDGE))
    wrong = weight * ((both.X @ fit.theta >= 0) != (both.y > 0.5))
    return Value(jnp.abs(wrong[0].sum() - wrong[1].sum()), fit.converged, fit.n_iter)


def signed_disparity(stack: Stack, pair: jax.Array) -> Value:
    """disp(S, T) = max_f |gamma_S(f) - gamma_T(f)| with the signed gamma_S(f) = E_S[f | a=1] - E_S[f | a=0].

    Convex: predict a on S and 1 - a on T, each (set, group) of weight 1/4. Symmetric. In [0, 2]; at least the
    absolute disparity of the same classifier.
    """
    both = take_pair(stack, pair)
    in_one = (both.group[1] > 0).astype(both.X.dtype)
    target = in_one.at[1].set(1 - in_one[1])
    X = both.X.reshape(-1, both.X.shape[-1])
    weight = 0.25 * both.group.sum(0)
    fit = _newton.logistic(X, target.ravel(), weight.ravel(), jnp.full(X.shape[1], _RIDGE))
    rates = _rates(both, both.X @ fit.theta >= 0)
    return Value(jnp.abs((rates[1, 0] - rates[0, 0]) - (rates[1, 1] - rates[0, 1])), fit.converged, fit.n_iter)


def softabs(r: jax.Array) -> jax.Array:
    """A smooth absolute value: r^2 / sqrt(r^2 + 1e-8)."""
    return r**2 / jnp.sqrt(r**2 + _SOFT)


def disparity_objective(both: Pair):
    """Value and gradient of what `absolute disparity` minimises for the ordered pair (S, T).

    1/2 [mean over S, a=0, of BCE(logit, 1) + mean over S, a=1, of BCE(logit, 0)]
    + softabs(mean over T, a=0, of sigma(logit) - mean over T, a=1, of sigma(logit))

    So f predicts the attribute on S, both groups alike, while its positive rates on T agree.
    """
    (S, T), group = both.X, both.group

    def objective(theta):
        logits = jnp.clip(S @ theta, -CLIP, CLIP)
        loss = group[0, 0] @ jax.nn.softplus(-logits) + group[1, 0] @ jax.nn.softplus(logits)
        gap = (group[0, 1] - group[1, 1]) @ jax.nn.sigmoid(jnp.clip(T @ theta, -CLIP, CLIP))
        return 0.5 * loss + softabs(gap)

    return jax.value_and_grad(objective)


def begin_disparity(stack: Stack, pair: jax.Array, tol: float) -> _bfgs.State:
    """Return the start: logistic regression for "a equals 0" on S, L2 penalty with C = 1, intercept free."""
    both = take_pair(stack, pair)
    l2 = jnp.ones(both.X.shape[-1]).at[-1].set(_RIDGE)
    target = (both.group[0, 0] > 0).astype(both.X.dtype)
    fit = _newton.logistic(both.X[0], target, both.weight[0], l2)
    return _bfgs.begin(disparity_objective(both), fit.theta, tol)


def advance_disparity(
    stack: Stack, pair: jax.Array, state: _bfgs.State, ticks: int, max_iter: int, tol: float
) -> _bfgs.State:
    """Make up to ``ticks`` function calls of BFGS on `disparity_objective`."""
    function = disparity_objective(take_pair(stack, pair))

    def body(carry):
        state, count = carry
        return _bfgs.tick(function, state, max_iter, tol), count + 1

    return jax.lax.while_loop(lambda c: ~c[0].done & (c[1] < ticks), body, (state, 0))[0]


def absolute_disparity(stack: Stack, pair: jax.Array, theta: jax.Array) -> jax.Array:
    """|Gamma_S(f) - Gamma_T(f)| of hard decisions, with Gamma(f) = |E[f | a=1] - E[f | a=0]|. In [0, 1]."""
    both = take_pair(stack, pair)
    rates = _rates(both, both.X @ theta >= 0)
    gaps = jnp.abs(rates[0] - rates[1])
    return jnp.abs(gaps[0] - gaps[1])


def _rates(both: Pair, decisions: jax.Array) -> jax.Array:
    """Positive rates, [group, set]."""
    return (both.group * decisions).sum(-1)
