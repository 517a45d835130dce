"""What a sparse layer asks of its pattern, its options, a mask, and the dense layer that it is made from."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sparsejax._checks import fail
from sparsejax._typing import ArrayLike, DTypeLike
from sparsejax.kernels import is_supported
from sparsejax.pattern import SparsityPattern


def check_pattern(function: str, pattern: object, shape: tuple[int, ...]) -> None:
    """Refuse what is not a pattern of the kernel's shape."""
    if not isinstance(pattern, SparsityPattern):
        fail(function, "pattern", f"type {type(pattern).__name__}", "a SparsityPattern", error=TypeError)
    if pattern.shape != shape:
        fail(function, "pattern", f"shape {pattern.shape}", f"shape {shape}, that of the dense kernel")


def check_out_sharding(function: str, out_sharding: Any) -> None:
    """Refuse a sharding of the result, which the products do not take."""
    if out_sharding is not None:
        hint = "Use jax.lax.with_sharding_constraint on the result."
        fail(function, "out_sharding", f"value {out_sharding}", "None", hint)


def check_dtypes(function: str, dtype: DTypeLike | None, param_dtype: DTypeLike) -> None:
    """Refuse dtypes with which no call can succeed; with ``dtype`` None the operands' common dtype is computed."""
    if dtype is not None and not is_supported(dtype):
        fail(function, "dtype", f"value {jnp.dtype(dtype)}", "float32, float64 or bfloat16")
    if not jnp.issubdtype(param_dtype, jnp.floating):
        fail(function, "param_dtype", f"value {jnp.dtype(param_dtype)}", "a floating-point dtype")


def check_unsharded(function: str, kernel: nnx.Variable[Any]) -> None:
    """Refuse sharding metadata: it names the axes of a dense kernel, of which one flat axis is left."""
    sharding = kernel.get_metadata("out_sharding", None)
    if sharding is not None:
        fail(function, "kernel", f"sharding {sharding!r}", "no sharding metadata; stored entries have one axis")


def check_dense_layer(
    function: str, layer: Any, kernel_shape: tuple[int, ...], hooks: Mapping[str, Any], known: Collection[str]
) -> None:
    """Refuse a dense layer of which something would be lost.

    Args:
      function: for the message.
      layer: the dense layer.
      kernel_shape: what the layer's sizes imply; a kernel stacked by ``nnx.vmap`` has another.
      hooks: attributes without a sparse counterpart, and their defaults.
      known: names of the attributes that the sparse layer takes over.
    """
    kernel = layer.kernel
    if kernel.shape != kernel_shape:
        fail(function, "kernel", f"shape {kernel.shape}", f"shape {kernel_shape}", "Is the layer stacked by vmap?")
    check_unsharded(function, kernel)
    for name, default in hooks.items():
        value = getattr(layer, name, default)
        if value is not default and value != default:
            fail(function, name, f"value {value!r}", "the default; sparse kernels have no such hook")
    unknown = sorted(set(vars(layer)) - set(vars(nnx.Module())) - set(hooks) - set(known))
    if unknown:
        fail(function, "layer", f"attributes {unknown}", f"only those of {type(layer).__name__}; they would be lost")
    dtype = jnp.result_type(kernel[...]) if layer.dtype is None else jnp.dtype(layer.dtype)
    if not is_supported(dtype):
        fail(function, "dtype", f"value {dtype}", "float32, float64 or bfloat16")


def check_exact_type(function: str, layer: Any, kind: type) -> None:
    """Refuse another type, a subclass included: what it adds would be lost."""
    if type(layer) is not kind:
        hint = "What a subclass adds would be lost." if isinstance(layer, kind) else ""
        fail(function, "layer", f"type {type(layer).__name__}", f"nnx.{kind.__name__}", hint, TypeError)


def stored_entries(
    function: str, kernel: jax.Array, mask: ArrayLike | None, limit: np.ndarray | None = None
) -> np.ndarray:
    """Return which entries of a dense kernel are stored: bool array of its shape, on the host.

    Args:
      function: for the message.
      kernel: dense kernel.
      mask: bool array, or None where the zeros of the kernel decide.
      limit: the layer's ``mask`` option, which takes entries away.
    """
    keep = np.asarray(kernel) != 0 if mask is None else np.asarray(mask)
    if keep.dtype != np.bool_:
        fail(function, "mask", f"dtype {keep.dtype}", "dtype bool, true keeps the weight")
    if keep.shape != kernel.shape:
        fail(function, "mask", f"shape {keep.shape}", f"shape {kernel.shape}, that of the dense kernel")
    return keep if limit is None else keep & limit


def binary_mask(function: str, mask: ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
    """Return the ``mask`` option of a convolution as bool; other factors would be part of the weights."""
    values = np.asarray(mask)
    if values.shape != shape:
        fail(function, "mask of the layer", f"shape {values.shape}", f"shape {shape}, that of the dense kernel")
    if not np.isin(values, (0, 1)).all():
        fail(function, "mask of the layer", "values other than 0 and 1", "only 0 and 1")
    return values != 0
