"""The meaning of attention and of its derivatives in plain JAX. Logarithms of weights are in units of log2."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from sparsejax.kernels._reference import accumulator

_LOG2E = 1 / math.log(2)


def masked_score(dtype: Any) -> Any:
    """Score of what is not seen, that of ``jax.nn.dot_product_attention``; where all have it, weights are equal."""
    return jnp.asarray(-0.7 * jnp.finfo(dtype).max, dtype)


def _wide(*arrays: Any) -> list[jax.Array]:
    return [a.astype(accumulator(a.dtype)) for a in arrays]


def _product(spec: str, a: Any, b: Any) -> jax.Array:
    return jnp.einsum(spec, a, b, precision="highest")


def _grouped(x: Any, like: Any) -> jax.Array:
    """Queries with an axis for the heads that share the keys of one head: ``[b, l, kv heads, group, d]``."""
    b, length, heads, d = x.shape
    return x.reshape(b, length, like.shape[2], heads // max(1, like.shape[2]), d)


def _scores_of(q: Any, k: Any) -> jax.Array:
    """``[b, h, l, s]``: the products of queries and keys."""
    scores = _product("blkgd,bskd->bkgls", _grouped(q, k), k)
    return scores.reshape(q.shape[0], q.shape[2], q.shape[1], k.shape[1])


def _apply(weights: Any, v: Any, like: Any) -> jax.Array:
    """``[b, l, h, d]``: sums of values."""
    b, heads, length, keys = weights.shape
    grouped = weights.reshape(b, v.shape[2], heads // max(1, v.shape[2]), length, keys)
    return _product("bkgls,bskd->blkgd", grouped, v).reshape(like.shape)


def _gather(weights: Any, x: Any, like: Any) -> jax.Array:
    """``[b, s, kv heads, d]``: the transpose of ``_apply``."""
    b, heads, length, keys = weights.shape
    grouped = weights.reshape(b, like.shape[2], heads // max(1, like.shape[2]), length, keys)
    return _product("bkgls,blkgd->bskd", grouped, _grouped(x, like))


def _expand(operand: Any, axes: tuple[int, ...], sizes: tuple[int, ...]) -> jax.Array:
    """An extra operand as ``[b, h, l, s]`` with 1 along the axes that it does not have."""
    return operand.reshape([size if axis else 1 for size, axis in zip(sizes, axes, strict=True)])


def _seen(sizes: tuple[int, ...], mask: Any, causal: bool) -> jax.Array | None:
    seen = mask
    if causal:
        earlier = jnp.arange(sizes[3]) <= jnp.arange(sizes[2])[:, None]
        seen = earlier if seen is None else seen & earlier
    return seen


def _scores(
    q: Any, k: Any, extra: tuple[Any, ...], scale: float, causal: bool, bias: tuple[int, ...], mask: tuple[int, ...]
) -> tuple[jax.Array, jax.Array | None]:
    """The scores in units of log2, and which keys are seen (None: all)."""
    rest, sizes = list(extra), (q.shape[0], q.shape[2], q.shape[1], k.shape[1])
    scores = _scores_of(q, k) * (scale * _LOG2E)
    least = masked_score(scores.dtype)
    if bias:
        scores = scores + jnp.maximum(_expand(rest.pop(0), bias, sizes) * _LOG2E, least * 0.9)
    seen = _seen(sizes, _expand(rest.pop(0), mask, sizes) if mask else None, causal)
    return (scores if seen is None else jnp.where(seen, scores, least)), seen


def attention(q: Any, k: Any, v: Any, *extra: Any, **params: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    """``y = softmax(scale * q k^T + bias) v``; for each query the highest score and the logarithm of the sum.

    weight = exp2(score - peak) / exp(log_sum). The derivative takes the peak as constant: it cancels.
    """
    dtype = q.dtype
    q, k, v = _wide(q, k, v)
    scores, _ = _scores(q, k, extra, **params)
    peak = jax.lax.stop_gradient(jnp.max(scores, -1, initial=masked_score(scores.dtype)))
    weights = jnp.exp2(scores - peak[..., None])
    total = weights.sum(-1)
    return _apply(weights / total[..., None], v, q).astype(dtype), peak, jnp.log(total)


def _weights(q: Any, k: Any, peak: Any, log_sum: Any, extra: Any, params: Any) -> tuple[jax.Array, jax.Array | None]:
    scores, seen = _scores(q, k, extra, **params)
    return jnp.exp2(scores - peak[..., None] - log_sum[..., None] * _LOG2E), seen


def attention_tangent(
    tq: Any, tk: Any, tv: Any, q: Any, k: Any, v: Any, y: Any, peak: Any, log_sum: Any, *extra: Any, **params: Any
) -> tuple[jax.Array, jax.Array]:
    """The tangents of ``y`` and ``log_sum`` from those of ``q``, ``k`` and ``v``, at a point."""
    dtype = y.dtype
    tq, tk, tv, q, k, v, y = _wide(tq, tk, tv, q, k, v, y)
    weights, seen = _weights(q, k, peak, log_sum, extra, params)
    moved = (_scores_of(tq, k) + _scores_of(q, tk)) * params["scale"]
    moved = weights * (moved if seen is None else jnp.where(seen, moved, 0))
    tlog_sum = moved.sum(-1)
    ty = _apply(moved, v, q) + _apply(weights, tv, q) - jnp.swapaxes(tlog_sum, 1, 2)[..., None] * y
    return ty.astype(dtype), tlog_sum


def attention_grad(
    ct: Any, ct_log_sum: Any, q: Any, k: Any, v: Any, y: Any, peak: Any, log_sum: Any, *extra: Any, **params: Any
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The transpose of ``attention_tangent``: cotangents of ``q``, ``k`` and ``v``."""
    dtype = q.dtype
    ct, q, k, v, y = _wide(ct, q, k, v, y)
    weights, seen = _weights(q, k, peak, log_sum, extra, params)
    mean = jnp.swapaxes((ct * y).sum(-1), 1, 2) - ct_log_sum
    slopes = weights * (_scores_of(ct, v) - mean[..., None]) * params["scale"]
    slopes = slopes if seen is None else jnp.where(seen, slopes, 0)
    dq, dk, dv = _apply(slopes, k, q), _gather(slopes, q, k), _gather(weights, ct, v)
    return dq.astype(dtype), dk.astype(dtype), dv.astype(dtype)
