"""Exact selection of the k largest scores, by bisection on the bits of the floats."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from sparsejax._checks import fail
from sparsejax._typing import ArrayLike


def select(scores: Sequence[jax.Array], k: ArrayLike) -> list[jax.Array]:
    """Mark exactly the ``k`` largest scores of several arrays taken together.

    mask_i = [score_i > T] or ([score_i = T] and i among the first ties),  sum(mask) = k

    T, the k-th largest score, is built bit by bit: each of 32 passes only counts how many scores reach a
    candidate. Nothing is sorted or concatenated, so the arrays may be sharded.

    Args:
      scores: floating arrays of any shapes; NaN ranks below everything, -0.0 equals 0.0. All arrays together
        have fewer than 2**31 elements.
      k: how many to mark, int32 scalar (may be traced), from 0 to the number of scores.

    Returns:
      Boolean arrays of the shapes of ``scores``. Ties go to the lower flat index, earlier arrays first.

    Raises:
      ValueError: too many scores for 32-bit counts.

    Cost: 32 passes over the scores (64 for float64), twice that when ties must be cut.
    Source: binary search on the bit pattern, an MSB radix select with one bit per pass.

    >>> [m.tolist() for m in select([jnp.array([1.0, 3.0]), jnp.array([3.0, 3.0])], 2)]
    [[False, True], [True, False]]
    """
    sizes = [score.size for score in scores]
    if sum(sizes) >= 2**31:
        fail("select", "scores", f"{sum(sizes)} elements", "fewer than 2**31 together")
    return _select(list(scores), jnp.asarray(k, jnp.int32))


@jax.jit  # so that calls outside jit, round after round (SynFlow, lottery tickets), compile once
def _select(scores: list[jax.Array], k: jax.Array) -> list[jax.Array]:
    keys = _keys(scores)
    threshold = _threshold(keys, k)
    above = [key > threshold for key in keys]
    equal = [key == threshold for key in keys]
    places = k - _total(above)
    offsets = np.cumsum([0, *[score.size for score in scores[:-1]]])
    limit = lax.cond(
        _total(equal) <= places,
        lambda: jnp.int32(2**31 - 1),
        lambda: _tie_limit(equal, offsets, places),
    )
    return [
        more | (tie & (_flat_index(tie, offset) < limit))
        for more, tie, offset in zip(above, equal, offsets, strict=True)
    ]


def _keys(scores: Sequence[jax.Array]) -> list[jax.Array]:
    """Map floats to unsigned integers of the same order; NaN to 0, -0.0 and 0.0 to one key."""
    wide = any(score.dtype.itemsize == 8 for score in scores)
    dtype, signed, unsigned = (jnp.float64, jnp.int64, jnp.uint64) if wide else (jnp.float32, jnp.int32, jnp.uint32)
    low, high = jnp.iinfo(signed).min, jnp.iinfo(signed).max

    def key(score: jax.Array) -> jax.Array:
        bits = lax.bitcast_convert_type(score.astype(dtype), signed)
        bits = jnp.where(bits == low, 0, bits)
        ordered = jnp.where(bits < 0, bits ^ high, bits)
        # The sign bit flips so that unsigned comparison agrees with the order of the floats.
        return jnp.where(jnp.isnan(score), 0, lax.bitcast_convert_type(ordered ^ low, unsigned))

    return [key(score) for score in scores]


def _total(masks: Sequence[jax.Array]) -> jax.Array:
    counts = [jnp.sum(mask, dtype=jnp.int32) for mask in masks]
    return sum(counts[1:], start=counts[0])


def _threshold(keys: Sequence[jax.Array], k: jax.Array) -> jax.Array:
    """Return the largest integer that at least ``k`` keys reach."""
    dtype = keys[0].dtype
    bits = jnp.iinfo(dtype).bits

    def add_bit(i: jax.Array, threshold: jax.Array) -> jax.Array:
        candidate = threshold | lax.shift_left(jnp.ones((), dtype), (bits - 1 - i).astype(dtype))
        return jnp.where(_total([key >= candidate for key in keys]) >= k, candidate, threshold)

    return lax.fori_loop(0, bits, add_bit, jnp.zeros((), dtype))


def _flat_index(array: jax.Array, offset: int) -> jax.Array:
    return lax.iota(jnp.int32, array.size).reshape(array.shape) + jnp.int32(offset)


def _tie_limit(equal: Sequence[jax.Array], offsets: np.ndarray, places: jax.Array) -> jax.Array:
    """Return a flat index with exactly ``places`` ties below it; there are more ties than places."""

    def add_bit(i: jax.Array, limit: jax.Array) -> jax.Array:
        candidate = limit | lax.shift_left(jnp.int32(1), (30 - i).astype(jnp.int32))
        below = [tie & (_flat_index(tie, offset) < candidate) for tie, offset in zip(equal, offsets, strict=True)]
        return jnp.where(_total(below) <= places, candidate, limit)

    return lax.fori_loop(0, 31, add_bit, jnp.int32(0))
