"""Sources of different sizes as one array, so that one compiled program serves every pair."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

ROUND = 64  # Lengths are rounded up to a multiple: programs are compiled per length.


class Stack(NamedTuple):
    """All sources, padded to a common length. Padding rows have weight 0 and features 0.

    Attributes:
      X: features, float64[N, d, m]: rows along the last axis, which sums and products run over.
      y: labels, float64[N, m].
      weight: 1 for a row of the source, 0 for padding, float64[N, m].
      mean, variance: of the features of each source, float64[N, d].
      group: float64[2, N, m]; ``group[v]`` is the indicator of a = v divided by the number of such rows: sums
        weighted by it are means over the group. All 0 where a source lacks the group.
    """

    X: jax.Array
    y: jax.Array
    weight: jax.Array
    mean: jax.Array
    variance: jax.Array
    group: jax.Array


def stack_sources(X: np.ndarray, y: np.ndarray, a: np.ndarray, source: np.ndarray) -> Stack:
    """Stack the sources. Call it, and use its result, with 64-bit types enabled.

    Columns are divided by powers of two, so that squares stay finite; a filter standardises them in any case.
    """
    X = np.ldexp(X, -np.frexp(np.abs(X).max(0))[1])  # exact
    sizes = np.bincount(source)
    rows = -(-sizes.max() // ROUND) * ROUND
    order = np.argsort(source, kind="stable")
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    place = source[order], np.arange(len(source)) - np.repeat(starts, sizes)

    def spread(values: np.ndarray) -> np.ndarray:
        out = np.zeros((len(sizes), rows, *values.shape[1:]))
        out[place] = values[order]
        return out

    parts = [X[source == s] for s in range(len(sizes))]
    mean, variance = (np.stack([moment(part, axis=0) for part in parts]) for moment in (np.mean, np.var))
    weight = spread(np.ones(len(y)))
    counts = [np.maximum(spread(a == v).sum(1, keepdims=True), 1) for v in (0, 1)]
    group = np.stack([spread(a == v) / counts[v] for v in (0, 1)])
    return Stack(*map(jnp.asarray, (spread(X).transpose(0, 2, 1), spread(y), weight, mean, variance, group)))


class Pair(NamedTuple):
    """Two sources with features standardised over both together, and a constant column for the intercept.

    ``X`` is float64[d + 1, 2 * m], the rows of the first source before those of the second; the other fields are those
    of `Stack` for the two sources.
    """

    X: jax.Array
    y: jax.Array
    weight: jax.Array
    group: jax.Array


def take_pair(stack: Stack, pair: jax.Array) -> Pair:
    """Gather sources ``pair[0]`` and ``pair[1]``.

    Features are standardised with the mean and the population standard deviation of the two sets stacked; a
    constant column is only centred.
    """
    weight = stack.weight[pair]
    share = weight.sum(1, keepdims=True) / weight.sum()
    mean = (share * stack.mean[pair]).sum(0)
    deviation = jnp.sqrt((share * (stack.variance[pair] + (stack.mean[pair] - mean) ** 2)).sum(0))
    constant = deviation <= 1e-10 * jnp.maximum(jnp.abs(mean), 1e-290)
    scale = jnp.where(constant, 0.0, 1 / jnp.where(constant, 1.0, deviation))
    # Source by source: one gather of both, with its axes exchanged, would be several times slower.
    sides = [(stack.X[pair[i]] - mean[:, None]) * (scale[:, None] * weight[i]) for i in (0, 1)]
    columns = jnp.concatenate([jnp.concatenate(sides, axis=1), weight.reshape(1, -1)])
    return Pair(columns, stack.y[pair], weight, stack.group[:, pair])
