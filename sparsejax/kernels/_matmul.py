"""Sparse matrix products: ``spmm``, its transpose and ``sddmm``, declared with transposes that close on each other."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from sparsejax._checks import fail
from sparsejax._compat import out_aval
from sparsejax._typing import ArrayLike
from sparsejax.kernels import _reference
from sparsejax.kernels._batching import fold_batch
from sparsejax.kernels._layout import ROW_MAJOR, Layouts
from sparsejax.kernels._operands import check_activations, check_data, pattern_operands
from sparsejax.kernels._primitive import define_bilinear, define_gradients, on_both_orientations
from sparsejax.kernels._targets import cpu_lowering
from sparsejax.pattern import SparsityPattern


def _rows(x: jax.Array) -> jax.Array:
    """All leading axes as one."""
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def _spmm_aval(data: Any, x: Any, indptr: Any, *_: Any, layouts: Layouts) -> Any:
    return out_aval(x, (x.shape[0], indptr.shape[0] - 1), x.dtype)


_SPMM_TRANSPOSE = (
    lambda ct, x, aval, *p, layouts: _sddmm(x, ct, *p, layouts=layouts),
    lambda ct, data, aval, *p, layouts: _spmm_t(data, ct, *p, layouts=layouts),
)

_spmm = define_bilinear(
    "sparsejax_spmm",
    abstract=_spmm_aval,
    reference=_reference.spmm,
    cpu_lowering=cpu_lowering("sparsejax_spmm_v2", (0, 1, 2, 3), activations="xy"),
    transpose=_SPMM_TRANSPOSE,
    tangent=lambda *args, layouts: _spmm_tangent(*args, layouts=layouts),
    batch=fold_batch(1),
)

_spmm_tangent, _spmm_backward = define_gradients(
    "sparsejax_spmm",
    product=_spmm,
    abstract=_spmm_aval,
    transpose=_SPMM_TRANSPOSE,
    cpu_lowering=cpu_lowering("sparsejax_spmm_backward_v2", activations="yxx"),
)

_spmm_t = on_both_orientations(
    define_bilinear(
        "sparsejax_spmm_t",
        abstract=lambda data, y, indptr, indices, indptr_t, *_, layouts: out_aval(
            y, (y.shape[0], indptr_t.shape[0] - 1), y.dtype
        ),
        reference=_reference.spmm_t,
        cpu_lowering=cpu_lowering("sparsejax_spmm_t_v2", (0, 1, 4, 5, 6), activations="yx"),
        transpose=(
            lambda ct, y, aval, *p, layouts: _sddmm(ct, y, *p, layouts=layouts),
            lambda ct, data, aval, *p, layouts: _spmm(data, ct, *p, layouts=layouts),
        ),
        batch=fold_batch(1),
    )
)

_sddmm = define_bilinear(
    "sparsejax_sddmm",
    abstract=lambda x, y, indptr, indices, *_, layouts: out_aval(x, indices.shape, x.dtype),
    reference=_reference.sddmm,
    cpu_lowering=cpu_lowering("sparsejax_sddmm_v2", (0, 1, 2, 3), activations="xy"),
    transpose=(
        lambda ct, y, aval, *p, layouts: _spmm_t(ct, y, *p, layouts=layouts),
        lambda ct, x, aval, *p, layouts: _spmm(ct, x, *p, layouts=layouts),
    ),
)


def spmm(data: ArrayLike, pattern: SparsityPattern, x: ArrayLike, *, layouts: Layouts = ROW_MAJOR) -> jax.Array:
    """Multiply activations by a sparse kernel: the product of a linear layer.

    y[..., r] = sum over the entries e of row r of data[e] * x[..., pattern.indices[e]]

    Args:
      data: stored entries, float[nse]; float32, float64 or bfloat16.
      pattern: SparsityPattern of kernel shape (k, m); rows are outputs. Entries past ``indptr[m]`` are ignored.
      x: activations, float[..., k], same dtype as ``data``; any leading batch axes.
      layouts: how ``x`` and ``y`` lie in memory, all leading axes as one. Static. Results do not depend on it.

    Returns:
      float[..., m]; bfloat16 products are accumulated in float32. Outputs without entries are exact zeros. The order
      of summation is fixed and does not depend on the number of threads; it does depend on the instruction set.

    Raises:
      ValueError: shapes or dtypes disagree or are not supported.
      JaxRuntimeError, ValueError: an index is out of range; raised when the kernel runs.

    Cost: 2 * nse * batch flops. Differentiable in ``data`` and ``x``, any order, both modes.
    Source: Nikdan et al. 2023 (SparseProp), section 3; compressed sparse rows as in SciPy.

    >>> p = SparsityPattern.from_mask(jnp.eye(2, dtype=bool))
    >>> spmm(jnp.ones(2), p, jnp.arange(4.0).reshape(2, 2)).tolist()
    [[0.0, 1.0], [2.0, 3.0]]
    """
    data, x = check_data("spmm", data, pattern), jnp.asarray(x)
    _check_matrix_pattern("spmm", pattern)
    check_activations("spmm", "x", x, data.dtype, pattern.columns, "first axis")
    flat = _spmm(data, _rows(x), *pattern_operands(pattern), layouts=layouts)
    return flat.reshape(*x.shape[:-1], pattern.rows)


def spmm_t(data: ArrayLike, pattern: SparsityPattern, y: ArrayLike, *, layouts: Layouts = ROW_MAJOR) -> jax.Array:
    """Multiply by the transposed kernel: ``x[..., c] = sum over entries e of column c of data[e] * y[..., row[e]]``.

    Args:
      data: stored entries, float[nse].
      pattern: SparsityPattern of kernel shape (k, m).
      y: float[..., m], same dtype as ``data``.
      layouts: as for ``spmm``: ``y`` is read, ``x`` is written.

    Returns:
      float[..., k]. Otherwise as ``spmm``, whose input gradient this is.

    Raises:
      ValueError: shapes or dtypes disagree or are not supported.

    >>> p = SparsityPattern.from_mask(jnp.array([[True, True], [False, True]]))
    >>> spmm_t(jnp.array([1.0, 2.0, 3.0]), p, jnp.array([[1.0, 10.0]])).tolist()
    [[21.0, 30.0]]
    """
    data, y = check_data("spmm_t", data, pattern), jnp.asarray(y)
    _check_matrix_pattern("spmm_t", pattern)
    check_activations("spmm_t", "y", y, data.dtype, pattern.rows, "last axis")
    flat = _spmm_t(data, _rows(y), *pattern_operands(pattern), layouts=layouts)
    return flat.reshape(*y.shape[:-1], pattern.columns)


def sddmm(pattern: SparsityPattern, x: ArrayLike, y: ArrayLike, *, layouts: Layouts = ROW_MAJOR) -> jax.Array:
    """Multiply two dense matrices, at the stored entries only: the weight gradient of ``spmm``.

    data[e] = sum over the batch of x[..., indices[e]] * y[..., row[e]]

    Args:
      pattern: SparsityPattern of kernel shape (k, m).
      x: float[..., k].
      y: float[..., m], same leading axes and dtype as ``x``.
      layouts: of ``x`` and ``y``, as for ``spmm``.

    Returns:
      float[nse], zero in the padding; bfloat16 operands are accumulated in float32.

    Raises:
      ValueError: shapes or dtypes disagree or are not supported.

    >>> p = SparsityPattern.from_mask(jnp.array([[True, False], [False, True]]))
    >>> sddmm(p, jnp.array([[1.0, 2.0]]), jnp.array([[3.0, 4.0]])).tolist()
    [3.0, 8.0]
    """
    x, y = jnp.asarray(x), jnp.asarray(y)
    _check_matrix_pattern("sddmm", pattern)
    check_activations("sddmm", "x", x, x.dtype, pattern.columns, "first axis")
    check_activations("sddmm", "y", y, x.dtype, pattern.rows, "last axis")
    if x.shape[:-1] != y.shape[:-1]:
        fail("sddmm", "y", f"leading axes {y.shape[:-1]}", f"{x.shape[:-1]}, those of x")
    return _sddmm(_rows(x), _rows(y), *pattern_operands(pattern), layouts=layouts)


def _check_matrix_pattern(name: str, pattern: SparsityPattern) -> None:
    if len(pattern.shape) != 2:
        fail(name, "pattern", f"shape {pattern.shape}", "two axes (in, out)", "See conv for window kernels.")
