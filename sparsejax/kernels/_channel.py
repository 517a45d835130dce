"""Sums over everything but the channels, as primitives in either layout.

XLA's CPU compiler wants the operand of a reduction row-major: it copies it first and then computes the neighbouring
elementwise work row-major too. Batch norm and biases need only the two sums below, and broadcasts whose gradients are
these sums, so a network written with them stays in the layout of the sparse products.

In all functions ``layout`` says how ``x`` lies in memory; static. None is the layout that products give by default:
row-major for two axes, as linear layers have, and batch-minor for more, as convolutions.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from sparsejax._compat import batch_sharding, out_aval
from sparsejax._typing import ArrayLike
from sparsejax.kernels import _reference
from sparsejax.kernels._batching import fold_channels
from sparsejax.kernels._layout import Layout, shared_layout
from sparsejax.kernels._operands import check_channel_vector, check_channels, check_same
from sparsejax.kernels._primitive import define_bilinear, define_linear
from sparsejax.kernels._reference import accumulator
from sparsejax.kernels._targets import cpu_lowering

_channel_sum = define_linear(
    "sparsejax_channel_sum",
    abstract=lambda x, layouts: out_aval(x, x.shape[-1:], accumulator(x.dtype)),
    reference=_reference.channel_sum,
    cpu_lowering=cpu_lowering("sparsejax_channel_sum_v2", (0,), activations="x"),
    transpose=lambda ct, aval, layouts: _spread(ct, aval, layouts),
    batch=fold_channels,
)

_channel_broadcast = define_linear(
    "sparsejax_channel_broadcast",
    abstract=lambda c, shape, dtype, layouts, batch: out_aval(c, shape, dtype, batch),
    reference=_reference.channel_broadcast,
    cpu_lowering=None,
    transpose=lambda ct, aval, layouts, **params: _channel_sum(ct, layouts=layouts).astype(aval.dtype),
)


def _spread(c: jax.Array, like: Any, layouts: Any) -> jax.Array:
    """One number per channel, broadcast to the shape, dtype, layout and sharding of an activation."""
    return _channel_broadcast(c, shape=like.shape, dtype=like.dtype, layouts=layouts, batch=batch_sharding(like))


_channel_scale = define_bilinear(
    "sparsejax_channel_scale",
    abstract=lambda x, scale, layouts: out_aval(x, x.shape, x.dtype),
    reference=_reference.channel_scale,
    cpu_lowering=None,
    transpose=(
        lambda ct, scale, aval, layouts: _channel_scale(ct, scale, layouts=layouts),
        lambda ct, x, aval, layouts: _channel_dot(x, ct, layouts=layouts),
    ),
)

_channel_dot = define_bilinear(
    "sparsejax_channel_dot",
    abstract=lambda x, y, layouts: out_aval(x, x.shape[-1:], accumulator(x.dtype)),
    reference=_reference.channel_dot,
    cpu_lowering=cpu_lowering("sparsejax_channel_dot_v2", (0, 1), activations="xy"),
    transpose=(
        lambda ct, y, aval, layouts: _channel_scale(y, ct, layouts=layouts),
        lambda ct, x, aval, layouts: _channel_scale(x, ct, layouts=layouts),
    ),
    batch=fold_channels,
)


def channel_sum(x: ArrayLike, *, layout: Layout | None = None) -> jax.Array:
    """Sum over all axes but the last: ``s[c] = sum of x[..., c]``.

    Args:
      x: float[batch, ..., channels]; float32, float64 or bfloat16, two or more axes.

    Returns:
      float[channels]; float32 for bfloat16 input. Runs of elements are added in double; the order is fixed.

    Raises:
      ValueError: fewer than two axes, or a dtype that is not supported.

    >>> channel_sum(jnp.ones((2, 3, 2))).tolist()
    [6.0, 6.0]
    """
    x = jnp.asarray(x)
    check_channels("channel_sum", "x", x)
    return _channel_sum(x, layouts=shared_layout(x.ndim, layout))


def channel_dot(x: ArrayLike, y: ArrayLike, *, layout: Layout | None = None) -> jax.Array:
    """Multiply and sum over all axes but the last: ``s[c] = sum of x[..., c] * y[..., c]``.

    Args:
      x, y: float[batch, ..., channels], same shape and dtype.

    Returns:
      float[channels], as ``channel_sum``. Bilinear; differentiable in both, any order.

    Raises:
      ValueError: shapes or dtypes differ, fewer than two axes, or a dtype that is not supported.

    >>> channel_dot(jnp.full((2, 3, 1), 2.0), jnp.ones((2, 3, 1))).tolist()
    [12.0]
    """
    x, y = jnp.asarray(x), jnp.asarray(y)
    check_channels("channel_dot", "x", x)
    check_same("channel_dot", "y", y, x)
    return _channel_dot(x, y, layouts=shared_layout(x.ndim, layout))


def channel_scale(x: ArrayLike, scale: ArrayLike, *, layout: Layout | None = None) -> jax.Array:
    """Scale each channel: ``y[..., c] = x[..., c] * scale[c]``, with ``channel_dot`` as the gradient in ``scale``.

    Args:
      x: float[batch, ..., channels].
      scale: float[channels], in the accumulation type of ``x`` (float32 for bfloat16).

    Returns:
      float of the shape and dtype of ``x``.

    Raises:
      ValueError: shapes or dtypes disagree.

    >>> channel_scale(jnp.ones((1, 2)), jnp.array([2.0, 3.0])).tolist()
    [[2.0, 3.0]]
    """
    x, scale = jnp.asarray(x), jnp.asarray(scale)
    check_channels("channel_scale", "x", x)
    check_channel_vector("channel_scale", "scale", scale, x)
    return _channel_scale(x, scale, layouts=shared_layout(x.ndim, layout))


def channel_shift(x: ArrayLike, shift: ArrayLike, *, layout: Layout | None = None) -> jax.Array:
    """Shift each channel: ``y[..., c] = x[..., c] + shift[c]``, with ``channel_sum`` as the gradient in ``shift``.

    Args:
      x: float[batch, ..., channels].
      shift: float[channels], in the accumulation type of ``x`` (float32 for bfloat16).

    Returns:
      float of the shape and dtype of ``x``.

    Raises:
      ValueError: shapes or dtypes disagree.

    >>> channel_shift(jnp.ones((1, 2)), jnp.array([2.0, 3.0])).tolist()
    [[3.0, 4.0]]
    """
    x, shift = jnp.asarray(x), jnp.asarray(shift)
    check_channels("channel_shift", "x", x)
    check_channel_vector("channel_shift", "shift", shift, x)
    return x + _spread(shift, jax.typeof(x), shared_layout(x.ndim, layout))


def add_bias(x: ArrayLike, bias: ArrayLike, *, layout: Layout | None = None) -> jax.Array:
    """Add ``bias`` along the last axis, for any number of axes; ``bias`` is cast to the dtype of ``x``.

    As ``channel_shift``, in the form layers need: the dtype is that of the activations.

    >>> add_bias(jnp.zeros((1, 2)), jnp.array([2.0, 3.0])).tolist()
    [[2.0, 3.0]]
    """
    x = jnp.asarray(x)
    flat = x.reshape(math.prod(x.shape[:-1]), x.shape[-1]) if x.ndim < 2 else x
    return channel_shift(flat, jnp.asarray(bias).astype(accumulator(x.dtype)), layout=layout).reshape(x.shape)
