"""What the sparse layers share: the pattern's variable, stored parameters, and checks of a dense original."""

from __future__ import annotations

import functools
from collections.abc import Collection, Generator, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, serialization
from flax.nnx import reprlib
from flax.typing import Initializer

from sparsejax._checks import fail
from sparsejax._compat import is_traced
from sparsejax._typing import ArrayLike, DTypeLike
from sparsejax.kernels import is_supported
from sparsejax.pattern import SparsityPattern
from sparsejax.pattern._pattern import ARRAYS

# The defaults of flax.nnx.Linear and flax.nnx.Conv.
default_kernel_init = nnx.initializers.lecun_normal()
default_bias_init = nnx.initializers.zeros_init()


class Pattern(nnx.Variable[SparsityPattern]):
    """The topology of a sparse layer: a ``flax.nnx.Variable`` whose value is a ``SparsityPattern``.

    Filters for ``nnx.Param`` do not match it, so gradients and optimizers leave it alone; ``nnx.split``,
    ``nnx.jit``, ``nnx.clone`` and checkpoints carry it like any other state. Its index arrays are leaves; its
    shape and ``nse`` are static, so a checkpoint restores only into a model built with the same shape and
    capacity (see ``SparsityPattern.pad_to`` to reserve room).

    >>> import jax.numpy as jnp
    >>> variable = Pattern(SparsityPattern.from_mask(jnp.eye(2, dtype=bool)))
    >>> variable.get_value()
    SparsityPattern(shape=(2, 2), nse=2, sparsity=0.5)
    """


def _pattern_to_state(pattern: SparsityPattern) -> dict[str, Any]:
    """A pattern for ``flax.serialization``: its arrays by name, and its shape."""
    return {name: getattr(pattern, name) for name in ARRAYS} | {"shape": np.asarray(pattern.shape, np.int64)}


def _pattern_from_state(target: SparsityPattern, state: Mapping[str, Any]) -> SparsityPattern:
    """The stored pattern; it must describe a kernel of the target's shape.

    Linen takes the attributes of each module that it makes apart and puts them together again in this way, also while
    tracing: what is unchanged is the target itself.
    """
    if all(state[name] is getattr(target, name) for name in ARRAYS):
        return target
    shape = tuple(int(n) for n in state["shape"])
    if shape != target.shape:
        fail("SparsityPattern", "serialized state", f"shape {shape}", f"shape {target.shape}, that of the target")
    pattern = SparsityPattern(**{name: jnp.asarray(state[name]) for name in ARRAYS}, shape=shape)
    return pattern if any(map(is_traced, jax.tree.leaves(pattern))) else pattern.validate()


serialization.register_serialization_state(SparsityPattern, _pattern_to_state, _pattern_from_state)


class SparseLayer(nnx.Module):
    """A layer whose kernel is stored at the entries of a pattern.

    Attributes:
      kernel: ``nnx.Param`` of shape (nse,), the stored entries.
      bias: ``nnx.Param`` of shape (out,), or None.
      topology: the ``Pattern`` variable; ``pattern`` is its value.
    """

    kernel: nnx.Param[Any]
    bias: nnx.Param[Any] | None
    topology: Pattern

    # Attributes that `repr` shows before the pattern.
    _shown: ClassVar[tuple[str, ...]]

    def _create_parameters(
        self,
        pattern: SparsityPattern,
        use_bias: bool,
        param_dtype: DTypeLike,
        kernel_init: Initializer,
        bias_init: Initializer,
        rngs: nnx.Rngs,
        kernel_metadata: Mapping[str, Any],
        bias_metadata: Mapping[str, Any],
    ) -> None:
        """Draw dense kernel and bias with the keys that Flax uses, and keep the stored entries."""
        dense: Any = nnx.Param(kernel_init(rngs.params(), pattern.shape, param_dtype), **kernel_metadata)
        check_unsharded(type(self).__name__, dense)
        self.kernel = dense.copy(pattern.gather(dense[...]))
        self.bias = nnx.data(None)
        if use_bias:
            self.bias = nnx.Param(bias_init(rngs.params(), (pattern.rows,), param_dtype), **bias_metadata)
        self.topology = Pattern(pattern)

    @property
    def pattern(self) -> SparsityPattern:
        """Which entries of the kernel are stored."""
        return self.topology.get_value()

    def reserve(self, nse: int) -> None:
        """Make room for ``nse`` stored entries, not fewer than there are; the new ones are unused.

        Layers of equal capacity have arrays of equal shapes, whatever their patterns, and run the same program.
        """
        unused = nse - self.pattern.nse
        if unused:
            self.topology.set_value(self.pattern.pad_to(nse))
            self.kernel.set_value(jnp.asarray(np.pad(self.kernel[...], (0, unused))))

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        """Shape of the dense kernel."""
        return self.pattern.shape

    def gather(self, kernel: jax.Array) -> jax.Array:
        """Return the entries of a dense kernel, of shape ``kernel_shape``, that the layer stores: array[nse]."""
        return self.pattern.gather(self._to_matrix(kernel))

    def scatter(self, data: jax.Array) -> jax.Array:
        """Return the dense kernel, of shape ``kernel_shape``, of stored entries; zeros elsewhere."""
        return self._from_matrix(self.pattern.scatter(data))

    def stored_mask(self) -> jax.Array:
        """Return which entries of the dense kernel are stored: bool array of shape ``kernel_shape``."""
        return self._from_matrix(self.pattern.mask())

    def _to_matrix(self, kernel: Any) -> Any:
        """Bring a dense kernel to the shape that the pattern describes."""
        return kernel.reshape(self.pattern.shape)

    def _from_matrix(self, matrix: Any) -> Any:
        """Bring an array of the pattern's shape to that of the dense kernel."""
        return matrix.reshape(self.kernel_shape)

    def to_dense(self) -> nnx.Module:
        """Return the same layer as a plain Flax layer, zeros where nothing is stored."""
        raise NotImplementedError

    def _take_parameters(self, dense: Any) -> None:
        """Copy the parameters of a dense layer, with their variable types and metadata."""
        self.kernel = dense.kernel.copy(self.gather(dense.kernel[...]))
        self.bias = nnx.data(None) if dense.bias is None else dense.bias.copy()

    def _give_parameters(self, dense: Any) -> None:
        """Copy the parameters into a dense layer, zeros where nothing is stored."""
        dense.kernel = self.kernel.copy(self.scatter(self.kernel[...]))
        dense.bias = nnx.data(None) if self.bias is None else self.bias.copy()

    def __nnx_repr__(self) -> Generator[reprlib.Object | reprlib.Attr, Any, None]:
        """One line with the sizes and the pattern: shape, nse and sparsity."""
        yield reprlib.Object(type(self), same_line=True)
        for name in self._shown:
            yield reprlib.Attr(name, getattr(self, name))
        yield reprlib.Attr("pattern", self.pattern)


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
    function: str,
    layer: Any,
    kind: type,
    kernel_shape: tuple[int, ...],
    refused: Mapping[str, Any],
    ignored: Collection[str] = (),
) -> None:
    """Refuse a dense layer of which something would be lost.

    Args:
      function: for the message.
      layer: the dense layer.
      kind: ``nnx.Linear`` or ``nnx.Conv``.
      kernel_shape: what the layer's sizes imply; a kernel stacked by ``nnx.vmap`` has another.
      refused: attributes without a sparse counterpart, and their defaults.
      ignored: attributes of a subclass that the caller converts.
    """
    kernel = layer.kernel
    if kernel.shape != kernel_shape:
        fail(
            function,
            "kernel",
            f"shape {kernel.shape}",
            f"shape {kernel_shape}",
            "Is the layer stacked by vmap?",
        )
    check_unsharded(function, kernel)
    for name, default in refused.items():
        if getattr(layer, name) is not default:
            fail(
                function,
                name,
                f"value {getattr(layer, name)!r}",
                "the default; sparse kernels have no such hook",
            )
    unknown = sorted(set(vars(layer)) - _attributes(kind) - set(ignored))
    if unknown:
        fail(function, "layer", f"attributes {unknown}", f"only those of {kind.__name__}; they would be lost")
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


@functools.cache
def _attributes(kind: type) -> frozenset[str]:
    """Names of the instance attributes of a plain Flax layer."""
    examples: dict[type, tuple[Any, ...]] = {
        nnx.Linear: (1, 1),
        nnx.LinearGeneral: (1, 1),
        nnx.Einsum: ("i,io->o", (1, 1)),
        nnx.Conv: (1, 1, (1,)),
        nnx.ConvTranspose: (1, 1, (1,)),
    }
    return frozenset(vars(kind(*examples[kind], rngs=nnx.Rngs(0))))
