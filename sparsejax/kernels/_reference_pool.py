"""The meaning of the pooling primitives in plain JAX; see ``_reference``."""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from sparsejax.kernels._geometry import PoolGeometry
from sparsejax.kernels._reference import accumulator


def _taps(x: jax.Array, g: PoolGeometry, fill: float) -> Iterator[jax.Array]:
    """For each tap of the window, in row-major order, what every output sees there; ``fill`` in the padding."""
    reach = [
        max((out - 1) * s + w, n + low)
        for n, out, w, s, (low, _) in zip(g.in_spatial, g.out_spatial, g.window, g.strides, g.padding, strict=True)
    ]
    pairs = [(low, r - n - low) for n, r, (low, _) in zip(g.in_spatial, reach, g.padding, strict=True)]
    padded = jnp.pad(x, [(0, 0), *pairs, (0, 0)], constant_values=fill)
    for tap in itertools.product(*(range(w) for w in g.window)):
        spatial = tuple(
            slice(k, k + (out - 1) * s + 1, s) for k, out, s in zip(tap, g.out_spatial, g.strides, strict=True)
        )
        yield padded[(slice(None), *spatial)]


def sum_pool(x: Any, *, geometry: PoolGeometry, layouts: Any = None) -> jax.Array:
    """``y[o] = sum over taps of x``; padding counts as zero."""
    return functools.reduce(operator.add, _taps(x.astype(accumulator(x.dtype)), geometry, 0)).astype(x.dtype)


def sum_unpool(y: Any, *, geometry: PoolGeometry, layouts: Any = None) -> jax.Array:
    """The transpose of ``sum_pool``."""
    wide = y.astype(accumulator(y.dtype))
    x = jax.ShapeDtypeStruct((y.shape[0], *geometry.in_spatial, y.shape[-1]), wide.dtype)
    (out,) = jax.linear_transpose(lambda v: sum_pool(v, geometry=geometry), x)(wide)
    return out.astype(y.dtype)


def max_pool(x: Any, *, geometry: PoolGeometry, layouts: Any = None) -> tuple[jax.Array, jax.Array]:
    """The maximum over taps and the number of the first tap that attains it; -inf and -1 in the padding."""
    inside = jnp.stack(list(_taps(jnp.ones(x.shape, jnp.bool_), geometry, 0)))
    seen = jnp.stack(list(_taps(x, geometry, -jnp.inf)))
    rank = jnp.where(inside, jnp.where(jnp.isnan(seen), 2, 1), 0)  # NaN before numbers before padding
    seen = jnp.where(rank == rank.max(0), seen, -jnp.inf)
    best = jnp.max(seen, axis=0)
    hit = ((seen == best) | jnp.isnan(seen)) & (rank == rank.max(0))
    arg = jnp.where(inside.any(0), jnp.argmax(hit, axis=0), -1)
    return best.astype(x.dtype), arg.astype(jnp.int32)


def max_take(x: Any, arg: Any, *, geometry: PoolGeometry, layouts: Any = None) -> jax.Array:
    """``y[o] = x`` at the tap ``arg[o]``; 0 where no tap has that number."""
    zero = jnp.zeros((), x.dtype)
    return functools.reduce(
        operator.add, (jnp.where(arg == k, tap, zero) for k, tap in enumerate(_taps(x, geometry, 0)))
    )


def max_put(y: Any, arg: Any, *, geometry: PoolGeometry, layouts: Any = None) -> jax.Array:
    """The transpose of ``max_take`` in ``x``."""
    wide = y.astype(accumulator(y.dtype))
    x = jax.ShapeDtypeStruct((y.shape[0], *geometry.in_spatial, y.shape[-1]), wide.dtype)
    (out,) = jax.linear_transpose(lambda v: max_take(v, arg, geometry=geometry), x)(wide)
    return out.astype(y.dtype)
