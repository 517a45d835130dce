"""Which dense layers have a sparse form, and how each is converted; users add classes of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sparsejax._checks import fail
from sparsejax.nn._conv import SparseConv
from sparsejax.nn._conv_transpose import SparseConvTranspose
from sparsejax.nn._einsum import SparseEinsum
from sparsejax.nn._layer import SparseLayer
from sparsejax.nn._linear import SparseLinear
from sparsejax.nn._linear_general import SparseLinearGeneral
from sparsejax.nn._lora import SparseLoRALinear

Convert: TypeAlias = Callable[[Any, Any], SparseLayer]

_CONVERTERS: dict[type[Any], Convert] = {
    nnx.Linear: SparseLinear.from_dense,
    nnx.LinearGeneral: SparseLinearGeneral.from_dense,
    nnx.Einsum: SparseEinsum.from_dense,
    nnx.Conv: SparseConv.from_dense,
    nnx.ConvTranspose: SparseConvTranspose.from_dense,
    nnx.LoRALinear: SparseLoRALinear.from_dense,
}


def register_sparse(dense_class: type[nnx.Module], convert: Convert) -> None:
    """Let ``sparsify`` convert a layer class of your own.

    Args:
      dense_class: a subclass of ``nnx.Module`` that holds its weights in an attribute ``kernel``. Instances of exactly
        this class are converted, not those of its subclasses.
      convert: ``(layer, mask) -> sparse layer``, where ``mask`` is a bool array of the kernel's shape or None. The
        result is a ``SparseLayer`` and shares no variable with the layer. Most often ``from_dense`` of a subclass of
        ``SparseLinear``, say, that sets ``dense_class``. A ValueError leaves the layer dense, with its text as the
        reason in the report.

    Raises:
      TypeError: not a subclass of ``nnx.Module``, or ``convert`` cannot be called.

    >>> class Scaled(nnx.Linear):
    ...     def __call__(self, x):
    ...         return 2 * super().__call__(x)
    >>> class SparseScaled(SparseLinear):
    ...     dense_class = Scaled
    ...     def __call__(self, x):
    ...         return 2 * super().__call__(x)
    >>> register_sparse(Scaled, SparseScaled.from_dense)
    >>> from sparsejax.nn import sparsify
    >>> model = Scaled(4, 4, rngs=nnx.Rngs(0))
    >>> type(sparsify(model, {"": np.eye(4, dtype=bool)}, min_sparsity=0.5, policy="always")[0]).__name__
    'SparseScaled'
    """
    kind: Any = dense_class
    if not (isinstance(kind, type) and issubclass(kind, nnx.Module)):
        fail("register_sparse", "dense_class", repr(dense_class), "a subclass of nnx.Module", error=TypeError)
    if not callable(convert):
        fail("register_sparse", "convert", repr(convert), "a function (layer, mask) -> sparse layer", error=TypeError)
    _CONVERTERS[dense_class] = convert


def registered_classes() -> tuple[type[Any], ...]:
    """Return the classes that have a sparse form."""
    return tuple(_CONVERTERS)


def convert(layer: Any, mask: Any) -> SparseLayer:
    """Return the sparse form of a layer of a registered class, also of one that ``nnx.vmap`` has stacked.

    A stack becomes a stack: patterns of equal capacity, so that ``nnx.scan`` runs one program over them.

    Raises:
      ValueError: something of the layer would be lost; the message says what.
      TypeError: the registered function returned something else than a ``SparseLayer``.
    """
    if _is_stacked(layer):
        count = layer.kernel.shape[0]
        masks = [None] * count if mask is None else _masks_of_stack(layer, mask)
        slices = [convert(*pair) for pair in zip(unstack(layer), masks, strict=True)]
        capacity = max(part.kernel.shape[-1] for part in slices)
        return _stack([_reserved(part, capacity) for part in slices])
    sparse: Any = _CONVERTERS[type(layer)](layer, mask)
    if not isinstance(sparse, SparseLayer):
        got = f"type {type(sparse).__name__}"
        fail("sparsify", f"result of the function registered for {type(layer).__name__}", got, "a SparseLayer")
    return sparse


def to_dense(layer: SparseLayer) -> nnx.Module:
    """Return the dense form of a sparse layer, also of a stack."""
    return _stack([to_dense(part) for part in unstack(layer)]) if layer.kernel.ndim > 1 else layer.to_dense()


def stored_mask(layer: SparseLayer) -> np.ndarray:
    """Return which entries of the dense kernel are stored, also of a stack: bool array of the dense kernel's shape."""
    if layer.kernel.ndim > 1:
        return np.stack([stored_mask(part) for part in unstack(layer)])
    return np.asarray(layer.stored_mask())


def gather(layer: SparseLayer, kernel: jax.Array) -> jax.Array:
    """Return the entries of a dense kernel that a layer stores, also of a stack."""
    if layer.kernel.ndim > 1:
        return jnp.stack([gather(*pair) for pair in zip(unstack(layer), kernel, strict=True)])
    return layer.gather(kernel)


def scatter(layer: SparseLayer, data: jax.Array) -> jax.Array:
    """Return the dense kernel of stored entries, also of a stack; zeros elsewhere."""
    if layer.kernel.ndim > 1:
        return jnp.stack([scatter(*pair) for pair in zip(unstack(layer), data, strict=True)])
    return layer.scatter(data)


def unstack(layer: Any) -> list[Any]:
    """Return the layers of a stack made by ``nnx.vmap``, along the first axis of their variables."""
    graph, state = nnx.split(layer)
    return [nnx.merge(graph, jax.tree.map(lambda leaf, i=i: leaf[i], state)) for i in range(layer.kernel.shape[0])]


def single(layer: Any) -> Any:
    """Return a layer itself, or the first one of a stack."""
    if isinstance(layer, SparseLayer):
        return single(unstack(layer)[0]) if layer.kernel.ndim > 1 else layer
    return single(unstack(layer)[0]) if _is_stacked(layer) else layer


def _reserved(layer: SparseLayer, nse: int) -> SparseLayer:
    """Return a layer with room for ``nse`` entries, also a stack."""
    if layer.kernel.ndim > 1:
        return _stack([_reserved(part, nse) for part in unstack(layer)])
    layer.reserve(nse)
    return layer


def _stack(layers: list[Any]) -> Any:
    graphs, states = zip(*(nnx.split(layer) for layer in layers), strict=True)
    return nnx.merge(graphs[0], jax.tree.map(lambda *leaves: jnp.stack(leaves), *states))


def _is_stacked(layer: Any) -> bool:
    shape = _unstacked_shape(layer)
    return shape is not None and layer.kernel.ndim > len(shape) and layer.kernel.shape[-len(shape) :] == shape


def _unstacked_shape(layer: Any) -> tuple[int, ...] | None:
    """Shape that the layer's sizes imply for its kernel, or None where they do not tell."""
    if isinstance(layer, nnx.Linear):
        return layer.in_features, layer.out_features
    if isinstance(layer, nnx.LinearGeneral):
        return (*layer.batch_axis.values(), *layer.in_features, *layer.out_features)
    shape = getattr(layer, "kernel_shape", None)
    return None if shape is None else tuple(shape)


def _masks_of_stack(layer: Any, mask: Any) -> list[Any]:
    if np.shape(mask) != layer.kernel.shape:
        fail("sparsify", "mask", f"shape {np.shape(mask)}", f"shape {layer.kernel.shape}, that of the stacked kernel")
    return list(np.asarray(mask))
