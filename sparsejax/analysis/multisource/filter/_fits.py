"""The three fits behind the distances, each for one pair: what is maximised, and how.

``f`` is always linear: class 1 where the logit is at least 0. Features are standardised over the pair (`take_pair`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sparsejax.analysis.multisource.filter import _bfgs, _newton
from sparsejax.analysis.multisource.filter._stack import ROUND, Pair, Stack, take_pair

CLIP = 20.0  # logits are clipped to [-CLIP, CLIP], with zero gradient outside
_SOFT = 1e-8  # of the smooth absolute value
_FACTORS = ROUND  # of the numbers of rows
# Keeps the minimum finite where classes can be separated or columns are linearly dependent.
_RIDGE = 1e-6


class PairDistance(NamedTuple):
    """A distance, whether its fit converged, and the iterations it took."""

    value: jax.Array
    converged: jax.Array
    n_iter: jax.Array


def discrepancy(stack: Stack, pair: jax.Array) -> PairDistance:
    """disc(S, T) = max_f |R_S(f) - R_T(f)|, R the share of wrong decisions.

    Maximised by logistic regression on S with its labels and T with flipped ones, each set of total weight 1. Swapping
    S and T negates the classifier, so one order is enough. In [0, 1].
    """
    both = take_pair(stack, pair)
    target = both.y.at[1].set(1 - both.y[1])
    weight = both.weight / both.weight.sum(1, keepdims=True)
    fit = _newton.logistic(both.X, target.ravel(), weight.ravel(), jnp.full(len(both.X), _RIDGE))
    wrong = weight * (_decisions(both, fit.theta) != (both.y > 0.5))
    return PairDistance(jnp.abs(wrong[0].sum() - wrong[1].sum()), fit.converged, fit.n_iter)


def signed_disparity(stack: Stack, pair: jax.Array) -> PairDistance:
    """disp(S, T) = max_f |gamma_S(f) - gamma_T(f)| with the signed gamma_S(f) = E_S[f | a=1] - E_S[f | a=0].

    Convex: predict a on S and 1 - a on T, each (set, group) of weight 1/4. Symmetric. In [0, 2]; at least the
    absolute disparity of the same classifier.
    """
    both = take_pair(stack, pair)
    in_one = (both.group[1] > 0).astype(both.X.dtype)
    target = in_one.at[1].set(1 - in_one[1])
    weight = 0.25 * both.group.sum(0)
    fit = _newton.logistic(both.X, target.ravel(), weight.ravel(), jnp.full(len(both.X), _RIDGE))
    rates = _rates(both, fit.theta)
    return PairDistance(jnp.abs((rates[1, 0] - rates[0, 0]) - (rates[1, 1] - rates[0, 1])), fit.converged, fit.n_iter)


def absolute_disparity(stack: Stack, pair: jax.Array, max_iter: int, tol: float) -> PairDistance:
    """|Gamma_S(f) - Gamma_T(f)| with Gamma(f) = |E[f | a=1] - E[f | a=0]| where f minimises `disparity_objective`.

    BFGS from logistic regression for "a equals 0" on S, L2 penalty with C = 1, intercept free. In [0, 1].
    """
    both = take_pair(stack, pair)
    l2 = jnp.ones(len(both.X)).at[-1].set(_RIDGE)
    target = (both.group[0, 0] > 0).astype(both.X.dtype)
    start = _newton.logistic(both.X[:, : len(target)], target, both.weight[0], l2, tol=tol)
    fit = _bfgs.minimise(disparity_objective(both), start.theta, max_iter, tol)
    rates = _rates(both, fit.x)
    gaps = jnp.abs(rates[0] - rates[1])
    return PairDistance(jnp.abs(gaps[0] - gaps[1]), jnp.abs(fit.grad).max() <= tol, fit.n_iter)


def disparity_objective(both: Pair) -> Callable[[jax.Array], tuple[jax.Array, jax.Array]]:
    """Return the function from weights to the value and the gradient of, for the ordered pair (S, T),

    1/2 [mean over S, a=0, of BCE(logit, 1) + mean over S, a=1, of BCE(logit, 0)]
    + softabs(mean over T, a=0, of sigma(logit) - mean over T, a=1, of sigma(logit))

    with softabs(r) = r^2 / sqrt(r^2 + 1e-8). So f predicts the attribute on S, both groups alike, while its positive
    rates on T agree. The gradient is written out because value and gradient share all exponentials.
    """
    rows = both.group.shape[-1]
    member = both.group[:, 0] > 0
    share = 0.5 * both.group[:, 0].max(-1)
    positive = 0.5 * both.group[0, 0]
    weight = positive + 0.5 * both.group[1, 0]
    contrast = both.group[0, 1] - both.group[1, 1]

    def objective(theta: jax.Array) -> Any:
        raw = theta @ both.X
        logits = jnp.clip(raw, -CLIP, CLIP)
        small = jnp.exp(-jnp.abs(logits))
        p = jnp.where(logits >= 0, 1, small) / (1 + small)
        # The rows of a group weigh the same, so few logarithms do: one of a product of _FACTORS numbers of at most 2.
        products = jnp.where(member, 1 + small[:rows], 1).reshape(2, _FACTORS, -1).prod(1)
        loss = share @ jnp.log(products).sum(-1) + weight @ jnp.maximum(logits[:rows], 0) - positive @ logits[:rows]
        gap = contrast @ p[rows:]
        root = jnp.sqrt(gap**2 + _SOFT)
        slope = gap * (gap**2 + 2 * _SOFT) / root**3 * contrast * p[rows:] * (1 - p[rows:])
        by_logit = jnp.concatenate([weight * p[:rows] - positive, slope]) * (jnp.abs(raw) <= CLIP)
        return loss + gap**2 / root, both.X @ by_logit

    return objective


def _decisions(both: Pair, theta: jax.Array) -> jax.Array:
    """Whether the logit is at least 0, bool[set, rows]."""
    return (theta @ both.X >= 0).reshape(both.y.shape)


def _rates(both: Pair, theta: jax.Array) -> jax.Array:
    """Positive rates, [group, set]."""
    return (both.group * _decisions(both, theta)).sum(-1)
