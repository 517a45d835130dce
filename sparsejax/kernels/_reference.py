"""The meaning of every kernel in plain JAX: the oracle of the tests, and the lowering on other platforms.

``layouts`` says how arrays lie in memory (``_layout.py``) and has no part in the meaning.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from sparsejax.kernels._geometry import ConvGeometry


def accumulator(dtype: Any) -> Any:
    """Type in which sums are formed: float32 for bfloat16, otherwise the type itself."""
    return jnp.float32 if dtype == jnp.bfloat16 else dtype


def _matrix(data: jax.Array, indptr: jax.Array, indices: jax.Array, columns: int) -> jax.Array:
    """Dense ``(columns, rows)`` matrix of the stored entries, in the accumulation type."""
    rows = indptr.shape[0] - 1
    row = jnp.searchsorted(indptr[1:], jnp.arange(data.shape[0], dtype=jnp.int32), side="right")
    dense = jnp.zeros((columns, rows), accumulator(data.dtype))
    return dense.at[indices, row].add(data.astype(dense.dtype), mode="drop")


def _entries(dense: jax.Array, indptr: jax.Array, indices: jax.Array, dtype: Any) -> jax.Array:
    """Entries of a dense ``(columns, rows)`` matrix at the stored positions; zero in the padding."""
    row = jnp.searchsorted(indptr[1:], jnp.arange(indices.shape[0], dtype=jnp.int32), side="right")
    values = dense.at[indices, row].get(mode="fill", fill_value=0)
    return jnp.where(row < indptr.shape[0] - 1, values, 0).astype(dtype)


def spmm(data: Any, x: Any, indptr: Any, indices: Any, *transposed: Any, layouts: Any = None) -> jax.Array:
    """``y[b, r] = sum over entries e of row r of data[e] * x[b, indices[e]]``."""
    kernel = _matrix(data, indptr, indices, x.shape[1])
    return jnp.dot(x.astype(kernel.dtype), kernel, precision="highest").astype(x.dtype)


def spmm_t(data: Any, y: Any, indptr: Any, indices: Any, indptr_t: Any, *_: Any, layouts: Any = None) -> jax.Array:
    """``x[b, c] = sum over entries e of column c of data[e] * y[b, row[e]]``."""
    kernel = _matrix(data, indptr, indices, indptr_t.shape[0] - 1)
    return jnp.dot(y.astype(kernel.dtype), kernel.T, precision="highest").astype(y.dtype)


def sddmm(x: Any, y: Any, indptr: Any, indices: Any, *transposed: Any, layouts: Any = None) -> jax.Array:
    """``data[e] = sum over b of x[b, indices[e]] * y[b, row[e]]``; zero in the padding."""
    wide = accumulator(x.dtype)
    dense = jnp.dot(x.astype(wide).T, y.astype(wide), precision="highest")
    return _entries(dense, indptr, indices, x.dtype)


def spmm_backward(
    ct: Any, data: Any, x: Any, indptr: Any, indices: Any, *transposed: Any, layouts: Any = None
) -> tuple[Any, Any]:
    """Both gradients of ``spmm``: of ``data`` and of ``x``."""
    pattern = indptr, indices, *transposed
    return sddmm(x, ct, *pattern), spmm_t(data, ct, *pattern)


def _dense_conv(kernel: jax.Array, x: jax.Array, geometry: ConvGeometry) -> jax.Array:
    spatial = "HW"[-len(geometry.window) :]
    numbers = (f"N{spatial}C", f"{spatial}IO", f"N{spatial}C")
    return jax.lax.conv_general_dilated(
        x,
        kernel.reshape(geometry.kernel_shape),
        window_strides=geometry.strides,
        padding=geometry.padding,
        lhs_dilation=geometry.input_dilation,
        rhs_dilation=geometry.kernel_dilation,
        dimension_numbers=numbers,
        feature_group_count=geometry.groups,
        precision="highest",
    )


def conv(
    data: Any, x: Any, indptr: Any, indices: Any, *transposed: Any, geometry: ConvGeometry, layouts: Any = None
) -> jax.Array:
    """The convolution of ``x[batch, *spatial, in]`` with the stored entries."""
    kernel = _matrix(data, indptr, indices, geometry.columns)
    return _dense_conv(kernel, x.astype(kernel.dtype), geometry).astype(x.dtype)


def conv_input_grad(
    data: Any, y: Any, indptr: Any, indices: Any, *transposed: Any, geometry: ConvGeometry, layouts: Any = None
) -> jax.Array:
    """The transpose of ``conv`` in ``x``, applied to ``y[batch, *out_spatial, out]``."""
    kernel = _matrix(data, indptr, indices, geometry.columns)
    x = jax.ShapeDtypeStruct((y.shape[0], *geometry.in_spatial, geometry.in_features), kernel.dtype)
    (out,) = jax.linear_transpose(lambda v: _dense_conv(kernel, v, geometry), x)(y.astype(kernel.dtype))
    return out.astype(y.dtype)


def conv_weight_grad(
    x: Any, y: Any, indptr: Any, indices: Any, *transposed: Any, geometry: ConvGeometry, layouts: Any = None
) -> jax.Array:
    """The transpose of ``conv`` in ``data``, applied to ``y``, at the stored entries."""
    wide = accumulator(x.dtype)
    kernel = jax.ShapeDtypeStruct((geometry.columns, geometry.out_features), wide)
    (dense,) = jax.linear_transpose(lambda k: _dense_conv(k, x.astype(wide), geometry), kernel)(y.astype(wide))
    return _entries(dense, indptr, indices, x.dtype)


def conv_backward(
    ct: Any, data: Any, x: Any, indptr: Any, indices: Any, *transposed: Any, geometry: ConvGeometry, layouts: Any = None
) -> tuple[Any, Any]:
    """Both gradients of ``conv``: of ``data`` and of ``x``."""
    pattern = indptr, indices, *transposed
    return conv_weight_grad(x, ct, *pattern, geometry=geometry), conv_input_grad(data, ct, *pattern, geometry=geometry)


def channel_sum(x: Any, layouts: Any = None) -> jax.Array:
    """``s[c] = sum of x[..., c]``."""
    return jnp.sum(x, axis=tuple(range(x.ndim - 1)), dtype=accumulator(x.dtype))


def channel_dot(x: Any, y: Any, layouts: Any = None) -> jax.Array:
    """``s[c] = sum of x[..., c] * y[..., c]``."""
    wide = accumulator(x.dtype)
    return jnp.sum(x.astype(wide) * y.astype(wide), axis=tuple(range(x.ndim - 1)))


def channel_scale(x: Any, scale: Any, layouts: Any = None) -> jax.Array:
    """``y[..., c] = x[..., c] * scale[c]``."""
    return (x.astype(scale.dtype) * scale).astype(x.dtype)


def channel_broadcast(c: Any, shape: tuple[int, ...], dtype: Any, layouts: Any = None, batch: Any = None) -> jax.Array:
    """``y[..., c] = c[c]``; ``batch`` is how the type of the result is sharded, which changes no value."""
    return jax.lax.broadcast_in_dim(c.astype(dtype), shape, (len(shape) - 1,))
