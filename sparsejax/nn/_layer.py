"""``SparseLayer``: what every sparse layer shares: options, parameters at the entries of a pattern, and conversion."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Generator, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Generic, Required, Self, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.nnx import reprlib
from flax.nnx.nn import dtypes
from flax.typing import Initializer, PrecisionLike, PromoteDtypeFn
from typing_extensions import TypeVar

from sparsejax._typing import ArrayLike, DTypeLike
from sparsejax.nn._layer_checks import (
    binary_mask,
    check_dense_layer,
    check_dtypes,
    check_exact_type,
    check_pattern,
    check_unsharded,
    stored_entries,
)
from sparsejax.nn._pattern import Pattern
from sparsejax.pattern import SparsityPattern

D = TypeVar("D", bound=nnx.Module, default=Any)

# The defaults of flax.nnx.Linear and flax.nnx.Conv.
default_kernel_init = nnx.initializers.lecun_normal()
default_bias_init = nnx.initializers.zeros_init()
_NO_METADATA: Mapping[str, Any] = MappingProxyType({})


class LayerOptions(TypedDict, total=False):
    """Keyword arguments of every sparse layer's constructor; their meaning is in ``SparseLayer``."""

    dtype: DTypeLike | None
    param_dtype: DTypeLike
    precision: PrecisionLike
    kernel_init: Initializer
    bias_init: Initializer
    promote_dtype: PromoteDtypeFn
    rngs: Required[nnx.Rngs]
    kernel_metadata: Mapping[str, Any]
    bias_metadata: Mapping[str, Any]


class SparseLayer(nnx.Module, Generic[D]):
    """A layer whose kernel is stored at the entries of a pattern: base of all sparse layers.

    A subclass has the arguments of its dense counterpart ``dense_class``, as attributes of the same names, and the
    same initial numbers; hooks that replace the product are left out. A layer class of your own that derives from
    ``nnx.Linear``, say, gets its sparse form by a subclass of ``SparseLinear`` with ``dense_class`` set to it.

    Args:
      pattern: which entries of the kernel are stored.
      bias_shape: shape of the bias; None for no bias.
      dtype: of the computation; None infers it from input and parameters. float32, float64 or bfloat16.
      param_dtype: of the parameters.
      precision: kept for ``to_dense``; the sparse kernels have one precision, that of the dtype.
      kernel_init: initializer of the dense kernel, of which the stored entries are kept.
      bias_init: initializer of the bias.
      promote_dtype: brings (inputs, kernel, bias) to one dtype.
      rngs: random streams; ``params`` gives the key of the kernel, then that of the bias.
      kernel_metadata: metadata of the kernel variable; no sharding.
      bias_metadata: metadata of the bias variable.

    Attributes:
      kernel: ``nnx.Param``, float[nse], the stored entries.
      bias: ``nnx.Param`` of the dense layer's shape, or None.
      topology: the ``Pattern`` variable; ``pattern`` is its value.

    Raises:
      ValueError: the pattern has another shape, or ``dtype`` is none of the three.
      TypeError: the pattern is not a SparsityPattern.

    Source: Nikdan et al. 2023 (SparseProp), section 3.
    """

    kernel: nnx.Param[Any]
    bias: nnx.Param[Any] | None
    topology: Pattern

    dense_class: type[D]

    # Attributes that `repr` shows before the pattern.
    _shown: ClassVar[tuple[str, ...]]
    # Attributes of the dense layer that are neither arguments nor parameters, and which `from_dense` takes care of.
    _kept: ClassVar[tuple[str, ...]] = ("kernel_shape",)
    # Whether the initializers draw the kernel as a matrix and the bias as a vector, whatever their axes.
    _draws_matrix: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Show the common options in the signature of a constructor that passes them on."""
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            signature = inspect.signature(cls.__init__)
            specific = [parameter for parameter in signature.parameters.values() if parameter.name != "options"]
            if len(specific) < len(signature.parameters):
                common = inspect.signature(SparseLayer.__init__).parameters
                shown = [*specific, *(common[name] for name in LayerOptions.__annotations__)]
                vars(cls)["__init__"].__signature__ = signature.replace(parameters=shown)

    def __init__(
        self,
        *,
        pattern: SparsityPattern,
        bias_shape: tuple[int, ...] | None,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        precision: PrecisionLike = None,
        kernel_init: Initializer = default_kernel_init,
        bias_init: Initializer = default_bias_init,
        promote_dtype: PromoteDtypeFn = dtypes.promote_dtype,
        rngs: nnx.Rngs,
        kernel_metadata: Mapping[str, Any] = _NO_METADATA,
        bias_metadata: Mapping[str, Any] = _NO_METADATA,
    ):
        name = type(self).__name__
        self._check_options(name, self)
        shape = self._to_matrix(self, np.broadcast_to(np.False_, self.kernel_shape)).shape
        check_pattern(name, pattern, shape)
        check_dtypes(name, dtype, param_dtype)
        self.dtype = dtype
        self.param_dtype = param_dtype
        self.precision = precision
        self.promote_dtype = promote_dtype
        drawn = kernel_init(rngs.params(), shape if self._draws_matrix else self.kernel_shape, param_dtype)
        dense: Any = nnx.Param(drawn, **kernel_metadata)
        check_unsharded(name, dense)
        self.kernel = dense.copy(pattern.gather(drawn if self._draws_matrix else self._to_matrix(self, drawn)))
        self.bias = nnx.data(None)
        if bias_shape is not None:
            drawn = bias_init(rngs.params(), (pattern.rows,) if self._draws_matrix else bias_shape, param_dtype)
            self.bias = nnx.Param(drawn.reshape(bias_shape), **bias_metadata)
        self.topology = Pattern(pattern)

    @property
    def pattern(self) -> SparsityPattern:
        """Which entries of the kernel are stored."""
        return self.topology.get_value()

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        """Shape of the dense kernel."""
        return self._dense_shape(self)

    def reserve(self, nse: int) -> None:
        """Make room for ``nse`` stored entries, not fewer than there are; the new ones are unused.

        Layers of equal capacity have arrays of equal shapes, whatever their patterns, and run the same program.
        """
        unused = nse - self.pattern.nse
        if unused:
            self.topology.set_value(self.pattern.pad_to(nse))
            self.kernel.set_value(jnp.asarray(np.pad(self.kernel[...], (0, unused))))

    def gather(self, kernel: jax.Array) -> jax.Array:
        """Return the entries of a dense kernel, of shape ``kernel_shape``, that the layer stores: array[nse]."""
        return self.pattern.gather(self._to_matrix(self, kernel))

    def scatter(self, data: jax.Array) -> jax.Array:
        """Return the dense kernel, of shape ``kernel_shape``, of stored entries; zeros elsewhere."""
        return self._from_matrix(self, self.pattern.scatter(data))

    def stored_mask(self) -> jax.Array:
        """Return which entries of the dense kernel are stored: bool array of shape ``kernel_shape``."""
        return self._from_matrix(self, self.pattern.mask())

    @classmethod
    def from_dense(cls, dense: D, mask: ArrayLike | None = None) -> Self:
        """Convert a dense layer; values, variable types, metadata and options are kept.

        Args:
          dense: the layer to copy, of exactly the class ``dense_class``. It is not changed and shares no variable with
            the result.
          mask: bool array of the kernel's shape, true stores the weight, be it zero or not. None stores the weights
            that are not zero. Weights outside it, or outside a ``mask`` of the layer itself, are dropped.

        Raises:
          ValueError: an option without a sparse counterpart (a hook that replaces the product,
            ``preferred_element_type``, batch axes, three spatial axes, a padding that the kernels do not know,
            sharding, a foreign attribute), a kernel stacked by vmap, an unsupported dtype, or a mask of another shape
            or dtype.
          TypeError: not of the class ``dense_class``, or of a subclass.

        >>> from sparsejax.nn import SparseLinear
        >>> dense = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
        >>> SparseLinear.from_dense(dense, jnp.array([[True, False], [True, True]])).pattern.nse
        3
        """
        name = f"{cls.__name__}.from_dense"
        check_exact_type(name, dense, cls.dense_class)
        layer: Any = dense
        cls._check_options(name, layer)
        shape, names = cls._dense_shape(layer), _option_names(cls)
        arguments = _arguments(type(layer)).items()
        hooks = {key: value for key, value in arguments if key not in names and value is not inspect.Parameter.empty}
        check_dense_layer(name, layer, shape, hooks, (*names, "kernel", "bias", *cls._kept))
        limit = getattr(layer, "mask", None)
        limit = None if limit is None else binary_mask(name, limit, shape)
        keep = cls._to_matrix(layer, stored_entries(name, layer.kernel[...], mask, limit))
        sparse = cls(
            pattern=SparsityPattern.from_mask(np.ascontiguousarray(keep)),
            kernel_init=nnx.initializers.zeros_init(),
            rngs=nnx.Rngs(0),
            **{key: getattr(layer, key) for key in names},
        )
        sparse.kernel = layer.kernel.copy(sparse.gather(layer.kernel[...]))
        sparse.bias = nnx.data(None) if layer.bias is None else layer.bias.copy()
        return sparse

    def to_dense(self) -> D:
        """Return the same layer as a plain Flax layer, zeros where nothing is stored; shares no variable.

        >>> from sparsejax.nn import SparseLinear
        >>> pattern = SparsityPattern.from_mask(jnp.eye(2, dtype=bool))
        >>> SparseLinear(2, 2, pattern=pattern, rngs=nnx.Rngs(0)).to_dense().kernel.shape
        (2, 2)
        """
        return self._to_dense()

    def _to_dense(self, **extra: Any) -> D:
        """Return the dense layer; ``extra`` are arguments that only the dense class has."""
        kind: Any = self.dense_class
        options = {key: getattr(self, key) for key in _option_names(type(self))}
        dense = kind(kernel_init=nnx.initializers.zeros_init(), rngs=nnx.Rngs(0), **options, **extra)
        dense.kernel = self.kernel.copy(self.scatter(self.kernel[...]))
        dense.bias = nnx.data(None) if self.bias is None else self.bias.copy()
        return dense

    # What a kind of layer defines. ``layer`` is a sparse layer or its dense counterpart: both have these attributes.

    @staticmethod
    def _check_options(function: str, layer: Any) -> None:
        """Refuse sizes and options that the sparse kernels do not know."""

    @staticmethod
    def _dense_shape(layer: Any) -> tuple[int, ...]:
        """Shape of the dense kernel that the layer's sizes imply."""
        raise NotImplementedError

    @staticmethod
    def _to_matrix(layer: Any, kernel: Any) -> Any:
        """Bring a dense kernel to the shape and orientation of the pattern."""
        return kernel

    @staticmethod
    def _from_matrix(layer: Any, matrix: Any) -> Any:
        """Bring an array of the pattern's shape to that of the dense kernel; the inverse of ``_to_matrix``."""
        return matrix

    def _promoted(self, inputs: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array | None]:
        """Inputs, stored entries and bias (or None), in one dtype."""
        bias = None if self.bias is None else self.bias[...]
        inputs, kernel, bias = self.promote_dtype((inputs, self.kernel[...], bias), dtype=self.dtype)
        return inputs, kernel, bias

    def __nnx_repr__(self) -> Generator[reprlib.Object | reprlib.Attr, Any, None]:
        """One line with the sizes and the pattern: shape, nse and sparsity."""
        yield reprlib.Object(type(self), same_line=True)
        for name in self._shown:
            yield reprlib.Attr(name, getattr(self, name))
        yield reprlib.Attr("pattern", self.pattern)


# Arguments of constructors that are not attributes of the layer.
_NOT_KEPT = {"self", "pattern", "kernel_init", "bias_init", "rngs", "kernel_metadata", "bias_metadata"}


@functools.cache
def _arguments(kind: type[Any]) -> dict[str, Any]:
    """Arguments of the constructors of a layer class that it keeps as attributes, with their defaults."""
    arguments: dict[str, Any] = {}
    for base in kind.__mro__:
        if base is SparseLayer or base is nnx.Module:
            break
        if "__init__" in vars(base):
            for name, parameter in inspect.signature(vars(base)["__init__"]).parameters.items():
                if name not in _NOT_KEPT and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                    arguments.setdefault(name, parameter.default)
    return arguments


def _option_names(kind: type[SparseLayer[Any]]) -> tuple[str, ...]:
    """Arguments that a sparse layer has in common with its dense counterpart."""
    return tuple(_arguments(kind))
