"""Attention in blocks, as a primitive: the matrix of scores is never written.

Forward, each block of queries meets the keys block by block, with the softmax corrected as it goes (online softmax).
What the gradient needs of it is two numbers per query; it computes the scores again, block by block. The gradient is a
primitive too, the transpose of the one for the tangents.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax._checks import fail
from sparsejax._compat import ad, instantiate, out_aval, zero_tangent
from sparsejax._typing import ArrayLike
from sparsejax.kernels import _reference_attention as reference
from sparsejax.kernels._layout import ROW_MAJOR
from sparsejax.kernels._operands import check_dtype
from sparsejax.kernels._primitive import define, define_derivative
from sparsejax.kernels._reference import accumulator
from sparsejax.kernels._targets import cpu_lowering

Axes = tuple[int, ...]  # of (batch, heads, queries, keys), whether a bias or a mask has them; empty without one


def _per_query(q: Any) -> Any:
    return out_aval(q, (q.shape[0], q.shape[2], q.shape[1]), accumulator(q.dtype))


def _same(x: Any) -> Any:
    return out_aval(x, x.shape, x.dtype)


def _row_major(target: str) -> Any:
    """The lowering that calls ``target`` on arrays in the order of their axes."""

    def attributes(ctx: Any, scale: float, causal: bool, bias: Axes, mask: Axes) -> dict[str, Any]:
        axes = {"bias": np.array(bias, np.int64), "mask": np.array(mask, np.int64)}
        return {"scale": np.float64(scale), "causal": causal, **axes}

    rule = cpu_lowering(target, attributes=attributes)
    return lambda ctx, *operands, **params: rule(ctx, *operands, layouts=ROW_MAJOR, **params)


def _fold(call: Any, args: Sequence[Any], dims: Sequence[Any], bias: Axes, mask: Axes, **params: Any) -> Any:
    """Make a mapped axis part of the batch. A bias or mask without a batch stays so where it is not mapped."""
    if any(d is not None and not isinstance(d, int) for d in dims):
        return None
    count = next(a.shape[d] for a, d in zip(args, dims, strict=True) if d is not None)
    batch = next(a.shape[0] if d is None else np.delete(a.shape, d)[0] for a, d in zip(args, dims, strict=True))
    folded = [_merge(_mapped(a, d, count)) for a, d in zip(args, dims, strict=True)]
    axes: dict[str, Axes] = {"bias": bias, "mask": mask}
    for at, (name, present) in enumerate([(n, a) for n, a in axes.items() if a], len(args) - bool(bias) - bool(mask)):
        if present[0]:
            continue
        if dims[at] is None:
            folded[at] = args[at]
        else:
            moved = _mapped(args[at], dims[at], count)
            folded[at] = _merge(jnp.broadcast_to(moved[:, None], (count, int(batch), *moved.shape[1:])))
            axes[name] = (1, *present[1:])
    out = call(*folded, **axes, **params)
    return jax.tree.map(lambda o: o.reshape(count, -1, *o.shape[1:]), out), 0


def _mapped(a: Any, d: int | None, count: int) -> Any:
    return jnp.broadcast_to(a, (count, *a.shape)) if d is None else jnp.moveaxis(a, d, 0)


def _merge(a: Any) -> Any:
    return a.reshape(a.shape[0] * a.shape[1], *a.shape[2:])


_primitive, _attention = define(
    "sparsejax_attention",
    abstract=lambda q, *_, **params: (_same(q), _per_query(q), _per_query(q)),
    reference=reference.attention,
    cpu_lowering=_row_major("sparsejax_attention_v1"),
    batch=_fold,
    multiple_results=True,
)

_tangent = define_derivative(
    "sparsejax_attention_tangent",
    linear=lambda **params: 3,
    abstract=lambda tq, *_, **params: (_same(tq), _per_query(tq)),
    reference=reference.attention_tangent,
    cpu_lowering=None,
    transpose=lambda cts, *point, **params: _grad(*cts, *point, **params),
    batch=_fold,
)

_grad = define_derivative(
    "sparsejax_attention_grad",
    linear=lambda **params: 2,
    abstract=lambda ct, ct_log_sum, q, k, v, *_, **params: (_same(q), _same(k), _same(v)),
    reference=reference.attention_grad,
    cpu_lowering=_row_major("sparsejax_attention_grad_v1"),
    transpose=lambda cts, *point, **params: _tangent(*cts, *point, **params),
    batch=_fold,
)


def _jvp(primals: Sequence[Any], tangents: Sequence[Any], **params: Any) -> Any:
    if params["bias"] and type(tangents[3]) is not ad.Zero:  # of the bias: the whole matrix of scores
        moved = tuple(instantiate(t) for t in tangents[:4])
        return jax.jvp(lambda *o: reference.attention(*o, *primals[4:], **params), tuple(primals[:4]), moved)
    y, peak, log_sum = _attention(*primals, **params)
    q, k, v, *extra = primals
    moved = map(instantiate, tangents[:3])
    ty, tlog_sum = _tangent(*moved, q, k, v, y, peak, log_sum, *extra, **params)
    return (y, peak, log_sum), (ty, zero_tangent(peak), tlog_sum)


ad.primitive_jvps[_primitive] = _jvp


def _check(q: jax.Array, k: jax.Array, v: jax.Array) -> None:
    for name, x in (("q", q), ("k", k), ("v", v)):
        check_dtype("attention", name, x.dtype)
        if x.dtype != q.dtype:
            fail("attention", name, f"dtype {x.dtype}", f"dtype {q.dtype}, that of q", "Cast one of the two.")
        if x.ndim < 3:
            fail("attention", name, f"shape {x.shape}", "three or more axes (..., length, heads, features)")
    if k.shape[:-3] != q.shape[:-3] or k.shape[-1] != q.shape[-1]:
        expected = f"leading axes {q.shape[:-3]} and {q.shape[-1]} features to match q"
        fail("attention", "k", f"shape {k.shape}", expected)
    if v.shape != k.shape:
        fail("attention", "v", f"shape {v.shape}", f"{k.shape}, that of k")
    if k.shape[-2] < 1 or q.shape[-2] % k.shape[-2]:
        fail("attention", "k", f"{k.shape[-2]} heads", f"a divisor of q's {q.shape[-2]}")


def _extra(name: str, x: jax.Array, scores: tuple[Any, ...]) -> tuple[jax.Array, Axes]:
    """A bias or a mask without the axes along which it is constant: flat, or ``[batch, ...]``; and which it has."""
    shape = (1,) * (len(scores) - x.ndim) + x.shape
    if len(shape) != len(scores) or any(n not in (1, m) for n, m in zip(shape, scores, strict=True)):
        fail("attention", name, f"shape {x.shape}", f"a shape that broadcasts to {scores}, that of the scores")
    *lead, heads, queries, keys = shape
    has_batch = any(n != 1 for n in lead)
    axes = (int(has_batch), *(int(n != 1) for n in (heads, queries, keys)))
    if not has_batch:
        return x.reshape(-1), axes
    whole = jnp.broadcast_to(x.reshape(shape), (*scores[:-3], heads, queries, keys))
    return whole.reshape(math.prod(scores[:-3]), heads * queries * keys), axes


def attention(
    q: ArrayLike,
    k: ArrayLike,
    v: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    bias: ArrayLike | None = None,
    causal: bool = False,
    scale: float | None = None,
) -> jax.Array:
    """Compute softmax attention block by block, without the matrix of scores.

    y[..., i, h, :] = sum over j of softmax over j (scale * q[..., i, h, :] . k[..., j, g, :] + bias[..., h, i, j])
    * v[..., j, g, :], where the head g = h // (heads // kv_heads)

    Args:
      q: float[..., queries, heads, features]; float32, float64 or bfloat16, as ``nnx.MultiHeadAttention`` has it.
      k: float[..., keys, kv_heads, features], same dtype and leading axes. ``kv_heads`` divides ``heads``.
      v: as ``k``.
      mask: bool, broadcastable to ``[..., heads, queries, keys]``; True where a query sees a key. None is all True.
      bias: float, broadcastable to the same, added to the scores. -inf counts as a very low number.
      causal: whether query i sees keys j <= i only. Static.
      scale: static factor of the products; None is 1 / sqrt(features).

    Returns:
      float of the shape and dtype of ``q``. A query that sees no key gets the mean of all values, as from
      ``jax.nn.dot_product_attention``, and gives no gradient to ``q`` and ``k``. Without keys the result is 0. Sums are
      formed in float32 for bfloat16; their order does not depend on the number of threads. With the instruction
      set ``avx512_bf16`` the weights, and in the gradient the slopes of the scores, are rounded to bfloat16 before they
      are multiplied.

    Raises:
      ValueError: shapes or dtypes disagree.

    Cost: 4 * queries * keys * heads * features flops forward, 10 times that product backward; memory for two numbers
    per query. Keys after all queries of a block are skipped where ``causal``. The gradient has one task for each
    example and head of ``k``.
    Differentiable in q, k, v and bias, any order, both modes. Reverse mode in q, k and v uses kernels; forward mode,
    second derivatives and a derivative in ``bias`` are computed by XLA, with the matrix of scores.
    Source: Dao 2023, "FlashAttention-2", algorithms 1 and 2; Milakov and Gimelshein 2018, algorithm 3.

    >>> x = jnp.array([[[0.0]], [[1.0]]])  # two positions, one head, one feature
    >>> [round(y, 3) for y in attention(x, x, x, causal=True).ravel().tolist()]
    [0.0, 0.731]
    """
    q, k, v = jnp.asarray(q), jnp.asarray(k), jnp.asarray(v)
    _check(q, k, v)
    scores = (*q.shape[:-3], q.shape[-2], q.shape[-3], k.shape[-3])
    extra: list[jax.Array] = []
    axes: dict[str, Axes] = {"bias": (), "mask": ()}
    if bias is not None:
        bias = jnp.asarray(bias)
        if not jnp.issubdtype(bias.dtype, jnp.floating):
            fail("attention", "bias", f"dtype {bias.dtype}", "a float dtype", "A bool array is a mask.")
        flat, axes["bias"] = _extra("bias", bias, scores)
        extra.append(flat.astype(accumulator(q.dtype)))
    if mask is not None:
        mask = jnp.asarray(mask)
        if mask.dtype != jnp.bool:
            fail("attention", "mask", f"dtype {mask.dtype}", "dtype bool", "What is added to the scores is a bias.")
        flat, axes["mask"] = _extra("mask", mask, scores)
        extra.append(flat)
    scale = 1 / math.sqrt(max(1, q.shape[-1])) if scale is None else float(scale)
    batched = [x.reshape(math.prod(x.shape[:-3]), *x.shape[-3:]) for x in (q, k, v)]
    y, _, _ = _attention(*batched, *extra, scale=scale, causal=bool(causal), **axes)
    return y.reshape(q.shape)
