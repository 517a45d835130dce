"""Checks at trace time that all products share: data, activations and the pattern's arrays."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from sparsejax._checks import fail
from sparsejax.pattern import SparsityPattern

DTYPES = (jnp.dtype("float32"), jnp.dtype("float64"), jnp.dtype("bfloat16"))


def is_supported(dtype: Any) -> bool:
    """Whether the kernels compute in this dtype: float32, float64 or bfloat16."""
    return jnp.dtype(dtype) in DTYPES


def check_dtype(name: str, operand: str, dtype: Any) -> None:
    """Refuse a dtype that the kernels do not compute in."""
    if not is_supported(dtype):
        fail(name, operand, f"dtype {dtype}", "dtype float32, float64 or bfloat16")


def check_data(name: str, data: Any, pattern: SparsityPattern) -> jax.Array:
    """The values as an array of the pattern's length and a supported dtype."""
    if not isinstance(pattern, SparsityPattern):
        fail(name, "pattern", f"type {type(pattern).__name__}", "a SparsityPattern", error=TypeError)
    data = jnp.asarray(data)
    check_dtype(name, "data", data.dtype)
    if data.shape != (pattern.nse,):
        hint = "A dense kernel is turned into data by pattern.gather(kernel)." if data.ndim > 1 else ""
        fail(name, "data", f"shape {data.shape}", f"shape ({pattern.nse},) to match the pattern's nse", hint)
    return data


def check_activations(name: str, operand: str, x: jax.Array, dtype: Any, features: int, axis: str) -> None:
    """Refuse activations of the wrong dtype, rank or number of features."""
    check_dtype(name, operand, x.dtype)
    if x.dtype != dtype:
        fail(name, operand, f"dtype {x.dtype}", f"dtype {dtype}, that of the other operand", "Cast one of the two.")
    if x.ndim == 0 or x.shape[-1] != features:
        fail(name, operand, f"shape {x.shape}", f"last axis {features} to match the {axis} of the pattern")


def pattern_operands(pattern: SparsityPattern) -> tuple[jax.Array, ...]:
    """The index arrays in the order in which every product takes them, with their lengths and dtypes checked."""
    nse = pattern.indices.shape
    expected = {
        "indptr": (pattern.rows + 1,),
        "indices": nse,
        "indptr_t": (pattern.columns + 1,),
        "indices_t": nse,
        "perm_t": nse,
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
