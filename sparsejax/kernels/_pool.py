"""Average and maximum pooling as primitives in the batch-minor layout.

Sums are linear and close under transposition with ``sum_unpool``. A maximum is one pass that also records which tap won
(``max_pool``); its tangent and cotangent move through that record (``max_take``, ``max_put``), which is linear again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax._checks import fail
from sparsejax._compat import ad, out_aval, zero_tangent
from sparsejax._typing import ArrayLike
from sparsejax.kernels import _reference_pool
from sparsejax.kernels._batching import fold_batch
from sparsejax.kernels._geometry import PaddingLike, PoolGeometry, per_axis, resolve_padding
from sparsejax.kernels._layout import Layout, Layouts
from sparsejax.kernels._operands import check_dtype
from sparsejax.kernels._primitive import define, define_linear
from sparsejax.kernels._targets import cpu_lowering


def _attributes(ctx: Any, geometry: PoolGeometry) -> dict[str, Any]:
    return {"geometry": geometry.attribute()}


def _out(x: Any, geometry: PoolGeometry, dtype: Any = None) -> Any:
    return out_aval(x, (x.shape[0], *geometry.out_spatial, x.shape[-1]), dtype or x.dtype)


def _in(y: Any, geometry: PoolGeometry) -> Any:
    return out_aval(y, (y.shape[0], *geometry.in_spatial, y.shape[-1]), y.dtype)


_sum_pool = define_linear(
    "sparsejax_sum_pool",
    abstract=lambda x, geometry, layouts: _out(x, geometry),
    reference=_reference_pool.sum_pool,
    cpu_lowering=cpu_lowering("sparsejax_sum_pool_v2", (0,), _attributes, activations="xy"),
    transpose=lambda ct, aval, **params: _sum_unpool(ct, **params),
    batch=fold_batch(0),
)

_sum_unpool = define_linear(
    "sparsejax_sum_unpool",
    abstract=lambda y, geometry, layouts: _in(y, geometry),
    reference=_reference_pool.sum_unpool,
    cpu_lowering=cpu_lowering("sparsejax_sum_unpool_v2", (0,), _attributes, activations="yx"),
    transpose=lambda ct, aval, **params: _sum_pool(ct, **params),
    batch=fold_batch(0),
)

_max_take = define_linear(
    "sparsejax_max_take",
    abstract=lambda x, arg, geometry, layouts: _out(x, geometry),
    reference=_reference_pool.max_take,
    cpu_lowering=cpu_lowering("sparsejax_max_take_v2", (0, 1), _attributes, activations="xyy"),
    transpose=lambda ct, aval, arg, **params: _max_put(ct, arg, **params),
    batch=fold_batch(0, 1),
)

_max_put = define_linear(
    "sparsejax_max_put",
    abstract=lambda y, arg, geometry, layouts: _in(y, geometry),
    reference=_reference_pool.max_put,
    cpu_lowering=cpu_lowering("sparsejax_max_put_v2", (0, 1), _attributes, activations="yyx"),
    transpose=lambda ct, aval, arg, **params: _max_take(ct, arg, **params),
    batch=fold_batch(0, 1),
)

_max_pool_primitive, _max_pool = define(
    "sparsejax_max_pool",
    abstract=lambda x, geometry, layouts: (_out(x, geometry), _out(x, geometry, jnp.int32)),
    reference=_reference_pool.max_pool,
    cpu_lowering=cpu_lowering("sparsejax_max_pool_v2", (0,), _attributes, activations="xyy"),
    batch=fold_batch(0),
    multiple_results=True,
)


def _max_pool_jvp(primals: Sequence[Any], tangents: Sequence[Any], **params: Any) -> Any:
    y, arg = _max_pool(*primals, **params)
    (t,) = tangents
    dy = zero_tangent(y) if type(t) is ad.Zero else _max_take(t, arg, **params)
    return (y, arg), (dy, zero_tangent(arg))


ad.primitive_jvps[_max_pool_primitive] = _max_pool_jvp


def max_pool(
    x: ArrayLike,
    window_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    padding: PaddingLike = "VALID",
    *,
    layout: Layout = Layout.BATCH_MINOR,
) -> jax.Array:
    """Take the maximum over windows, as ``flax.nnx.max_pool``.

    y[b, o, c] = max over taps k of x[b, o * stride - low + k, c]

    Args:
      x: float[..., *spatial, channels] with one or two spatial axes; leading axes are batch.
      window_shape: window size per spatial axis. Static.
      strides: per spatial axis; ones if absent. Static.
      padding: "VALID", "SAME" or (low, high) pairs. Padding is never the maximum; a window that lies in it
        entirely has -inf.
      layout: how ``x`` and the result lie in memory. Static.

    Returns:
      float[..., *out_spatial, channels]. NaN wins. The gradient goes to the first of equal maxima.

    Raises:
      ValueError: rank, dtype, window, strides or padding are not supported, or the window does not fit.

    >>> max_pool(jnp.arange(4.0).reshape(1, 4, 1), (2,), (2,)).ravel().tolist()
    [1.0, 3.0]
    """
    flat, geometry, lead = _plan("max_pool", x, window_shape, strides, padding)
    y, _ = _max_pool(flat, geometry=geometry, layouts=Layouts(layout, layout))
    return y.reshape(*lead, *y.shape[1:])


def avg_pool(
    x: ArrayLike,
    window_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    padding: PaddingLike = "VALID",
    count_include_pad: bool = True,
    *,
    layout: Layout = Layout.BATCH_MINOR,
) -> jax.Array:
    """Take the mean over windows, as ``flax.nnx.avg_pool``: the sum over a window's taps divided by their number.

    Args:
      x: float[..., *spatial, channels] with one or two spatial axes; leading axes are batch.
      window_shape, strides, padding, layout: as for ``max_pool``.
      count_include_pad: divide by the window's size; otherwise by the number of taps that are not padding.

    Returns:
      float[..., *out_spatial, channels]; bfloat16 is summed in float32.

    Raises:
      ValueError: as ``max_pool``.

    >>> avg_pool(jnp.arange(4.0).reshape(1, 4, 1), (2,), (2,)).ravel().tolist()
    [0.5, 2.5]
    """
    flat, geometry, lead = _plan("avg_pool", x, window_shape, strides, padding)
    count = math.prod(geometry.window) if count_include_pad else jnp.asarray(_tap_counts(geometry), flat.dtype)
    y = _sum_pool(flat, geometry=geometry, layouts=Layouts(layout, layout)) / count
    return y.reshape(*lead, *y.shape[1:])


def _tap_counts(geometry: PoolGeometry) -> np.ndarray:
    """Number of taps inside the input, ``(*out_spatial, 1)``."""
    counts = np.ones((1,) * len(geometry.window))
    for axis, (n, out, w, s, (low, _)) in enumerate(
        zip(
            geometry.in_spatial,
            geometry.out_spatial,
            geometry.window,
            geometry.strides,
            geometry.padding,
            strict=True,
        )
    ):
        first = np.arange(out) * s - low
        inside = np.minimum(first + w, n) - np.maximum(first, 0)
        counts = counts * np.expand_dims(inside, [a for a in range(len(geometry.window)) if a != axis])
    return counts[..., None]


def _plan(
    name: str, x: ArrayLike, window_shape: Sequence[int], strides: Sequence[int] | None, padding: PaddingLike
) -> tuple[jax.Array, PoolGeometry, tuple[int, ...]]:
    x = jnp.asarray(x)
    check_dtype(name, "x", x.dtype)
    rank = len(window_shape)
    if rank not in (1, 2):
        fail(name, "window_shape", f"{rank} axes", "one or two spatial axes")
    if x.ndim < rank + 1:
        fail(name, "x", f"shape {x.shape}", f"at least {rank + 1} axes: {rank} spatial and the channels")
    window = per_axis(name, "window_shape", window_shape, rank)
    steps = per_axis(name, "strides", strides, rank)
    lead, spatial = x.shape[: x.ndim - rank - 1], x.shape[-rank - 1 : -1]
    if padding in ("CIRCULAR", "CAUSAL"):
        fail(name, "padding", f"value {padding!r}", "SAME, VALID or (low, high) pairs")
    pairs = resolve_padding(name, padding, spatial, window, steps, (1,) * rank, (1,) * rank)
    if any(v < 0 for pair in pairs for v in pair):
        fail(name, "padding", f"value {padding!r}", "no negative amounts")
    geometry = PoolGeometry(spatial, window, steps, pairs)
    if 0 in geometry.out_spatial:
        fail(name, "x", f"spatial shape {spatial}", f"room for the window {window} with padding {pairs}")
    return x.reshape(math.prod(lead), *spatial, x.shape[-1]), geometry, lead
