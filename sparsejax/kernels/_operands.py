"""Checks at trace time that several primitives share: data, activations, channels and the pattern's arrays."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from sparsejax._checks import fail
from sparsejax._typing import ArrayLike, DTypeLike
from sparsejax.kernels._reference import accumulator
from sparsejax.pattern import SparsityPattern

DTYPES = (jnp.dtype("float32"), jnp.dtype("float64"), jnp.dtype("bfloat16"))


def is_supported(dtype: DTypeLike) -> bool:
    """Return whether the kernels compute in this dtype: float32, float64 or bfloat16."""
    return jnp.dtype(dtype) in DTYPES


def check_dtype(name: str, operand: str, dtype: DTypeLike) -> None:
    """Refuse a dtype that the kernels do not compute in."""
    if not is_supported(dtype):
        fail(name, operand, f"dtype {dtype}", "dtype float32, float64 or bfloat16")


def check_data(name: str, data: ArrayLike, pattern: object) -> jax.Array:
    """Return the values as an array of the pattern's length and a supported dtype."""
    if not isinstance(pattern, SparsityPattern):
        fail(name, "pattern", f"type {type(pattern).__name__}", "a SparsityPattern", error=TypeError)
    data = jnp.asarray(data)
    check_dtype(name, "data", data.dtype)
    if data.shape != (pattern.nse,):
        hint = "A dense kernel is turned into data by pattern.gather(kernel)." if data.ndim > 1 else ""
        fail(name, "data", f"shape {data.shape}", f"shape ({pattern.nse},) to match the pattern's nse", hint)
    return data


def check_activations(name: str, operand: str, x: jax.Array, dtype: DTypeLike, features: int, axis: str) -> None:
    """Refuse activations of the wrong dtype, rank or number of features."""
    check_dtype(name, operand, x.dtype)
    if x.dtype != dtype:
        fail(name, operand, f"dtype {x.dtype}", f"dtype {dtype}, that of the other operand", "Cast one of the two.")
    if x.ndim == 0 or x.shape[-1] != features:
        fail(name, operand, f"shape {x.shape}", f"last axis {features} to match the {axis} of the pattern")


def check_channels(name: str, operand: str, x: jax.Array) -> None:
    """Refuse activations that are not ``float[batch, ..., channels]``."""
    check_dtype(name, operand, x.dtype)
    if x.ndim < 2:
        fail(name, operand, f"shape {x.shape}", "two or more axes, channels last")


def check_channel_vector(name: str, operand: str, v: jax.Array, x: jax.Array) -> None:
    """Refuse what is not one number for each channel of ``x``, in its accumulation type."""
    wanted = jnp.dtype(accumulator(x.dtype))
    if v.shape != x.shape[-1:] or v.dtype != wanted:
        fail(name, operand, f"{v.dtype}{list(v.shape)}", f"{wanted}{list(x.shape[-1:])} to match x")


def check_same(name: str, operand: str, y: jax.Array, x: jax.Array) -> None:
    """Refuse an operand that has not the shape and dtype of ``x``."""
    if (x.shape, x.dtype) != (y.shape, y.dtype):
        fail(name, operand, f"{y.dtype}{list(y.shape)}", f"{x.dtype}{list(x.shape)}, that of x")


def pattern_operands(pattern: SparsityPattern) -> tuple[jax.Array, ...]:
    """Return the index arrays in the order in which every product takes them, with their lengths and dtypes checked."""
    nse = pattern.indices.shape
    transposed = (0,) if pattern.is_forward_only else nse
    expected = {
        "indptr": (pattern.rows + 1,),
        "indices": nse,
        "indptr_t": (pattern.columns + 1,),
        "indices_t": transposed,
        "perm_t": transposed,
    }
    arrays = []
    for field, shape in expected.items():
        array = jnp.asarray(getattr(pattern, field))
        if array.shape != shape or array.ndim != 1:
            fail("SparsityPattern", field, f"shape {array.shape}", f"shape {shape}")
        if array.dtype != jnp.int32:
            fail("SparsityPattern", field, f"dtype {array.dtype}", "dtype int32")
        arrays.append(array)
    return tuple(arrays)
