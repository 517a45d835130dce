"""Sparse layers for Flax linen: ``SparseDense`` and ``SparseConv``.

The parameters are named and drawn as those of ``linen.Dense`` and ``linen.Conv``; ``kernel`` holds the stored
entries. The pattern is a field, and ``init`` copies its arrays to the collection ``"pattern"``, so that a
checkpoint of the variables is complete. ``apply`` reads that collection if it is there (arrays, so a topology
of the same capacity can change without recompiling) and the field if not, so ``model.apply({"params":
params}, x)`` works too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype
from flax.typing import Initializer, PrecisionLike

from sparsejax._checks import fail
from sparsejax._typing import ArrayLike, DTypeLike
from sparsejax.kernels import ROW_MAJOR, Layout, PaddingLike, PerAxis, add_bias, conv, spmm
from sparsejax.nn._conv import check_geometry, check_within
from sparsejax.nn._layer import default_bias_init, default_kernel_init
from sparsejax.nn._layer_checks import binary_mask, check_dtypes, check_pattern, stored_entries
from sparsejax.pattern import SparsityPattern
from sparsejax.pattern._pattern import ARRAYS

__all__ = ["SparseConv", "SparseDense"]

Variables = dict[str, Any]


class SparseDense(nn.Module):
    """Linear layer with a sparse kernel: ``y = x @ K + bias``, ``K`` zero outside the pattern.

    Fields, initial numbers (for the same name and key) and results are those of ``flax.linen.Dense`` with the
    kernel masked by the pattern.

    Attributes:
      features: size of the last axis of the output.
      pattern: SparsityPattern of shape (in, features).
      use_bias, dtype, param_dtype, precision, kernel_init, bias_init, promote_dtype: as in ``linen.Dense``;
        precision has no effect on sparse kernels.

    Raises:
      ValueError: the pattern does not fit the features, or ``dtype`` is not supported; when called, if the pattern
        does not fit the input.

    Source: Nikdan et al. 2023 (SparseProp), section 3; signature of ``flax.linen.Dense``.

    >>> layer = SparseDense(3, pattern=SparsityPattern.from_mask(jnp.eye(3, dtype=bool)))
    >>> variables = layer.init(jax.random.key(0), jnp.ones((1, 3)))
    >>> jax.tree.map(jnp.shape, variables["params"])
    {'bias': (3,), 'kernel': (3,)}
    >>> layer.apply(variables, jnp.ones((2, 3))).shape
    (2, 3)
    """

    features: int
    pattern: SparsityPattern
    use_bias: bool = True
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32
    precision: PrecisionLike = None
    kernel_init: Initializer = default_kernel_init
    bias_init: Initializer = default_bias_init
    promote_dtype: Callable[..., Any] = promote_dtype

    def __post_init__(self) -> None:
        """Refuse what no input fits."""
        pattern: Any = self.pattern
        check_pattern("SparseDense", pattern, (*getattr(pattern, "shape", ())[:1], self.features))
        check_dtypes("SparseDense", self.dtype, self.param_dtype)
        super().__post_init__()

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Map ``float[..., in]`` to ``float[..., features]``; any leading axes."""
        check_pattern("SparseDense", self.pattern, (jnp.shape(inputs)[-1], self.features))
        pattern, kernel, bias = _parameters(self)
        inputs, kernel, bias = self.promote_dtype(inputs, kernel, bias, dtype=self.dtype)
        y = spmm(kernel, pattern, inputs)
        return y if bias is None else add_bias(y, bias, layout=Layout.ROW_MAJOR)

    @classmethod
    def from_dense(
        cls, dense: nn.Dense, params: Mapping[str, Any], mask: ArrayLike | None = None
    ) -> tuple[SparseDense, Variables]:
        """Convert a ``linen.Dense`` and its parameters.

        Args:
          dense: the module.
          params: its parameters, ``{"kernel": float[in, features], "bias": float[features]}``.
          mask: bool[in, features], true stores the weight. None stores the weights that are not zero.

        Returns:
          The sparse module, and its variables ``{"params": ..., "pattern": ...}``.

        Raises:
          ValueError: a ``dot_general`` hook, or a mask of another shape or dtype.
          TypeError: not a ``linen.Dense``, or a subclass.

        >>> dense = nn.Dense(2)
        >>> params = dense.init(jax.random.key(0), jnp.ones((1, 2)))["params"]
        >>> layer, variables = SparseDense.from_dense(dense, params, jnp.eye(2, dtype=bool))
        >>> variables["params"]["kernel"].shape
        (2,)
        """
        name = "SparseDense.from_dense"
        _check_module(name, dense, nn.Dense, ("dot_general", "dot_general_cls"))
        kernel = jnp.asarray(params["kernel"])
        pattern = SparsityPattern.from_mask(stored_entries(name, kernel, mask))
        module = cls(pattern=pattern, **_common_fields(cls, dense))
        return module, _sparse_variables(pattern, params)

    @nn.nowrap
    def to_dense(self, variables: Mapping[str, Any]) -> tuple[nn.Dense, Variables]:
        """Return the ``linen.Dense`` of the same meaning, and its variables ``{"params": ...}``."""
        return nn.Dense(**_common_fields(nn.Dense, self)), _dense_variables(self.pattern, variables)


class SparseConv(nn.Module):
    """Convolution with a sparse kernel, over one or two spatial axes.

    Fields, initial numbers (for the same name and key) and results are those of ``flax.linen.Conv`` with the
    kernel masked by the pattern.

    Attributes:
      features: size of the last axis of the output.
      kernel_size: one or two integers; a bare integer is one axis.
      pattern: SparsityPattern of shape (*kernel_size, in // feature_group_count, features).
      strides, padding, input_dilation, kernel_dilation, feature_group_count: as in ``linen.Conv``; padding "REFLECT"
        is not supported.
      use_bias, dtype, param_dtype, kernel_init, bias_init, promote_dtype: as in ``linen.Conv``.
      mask: as in ``linen.Conv``; the pattern must lie within it. It is kept for ``to_dense``.
      precision: has no effect.

    Raises:
      ValueError: the pattern does not fit, or an option or ``dtype`` is not supported; when called, if the pattern
        does not fit the input.

    Source: Nikdan et al. 2023 (SparseProp), section 3; signature of ``flax.linen.Conv``.

    >>> pattern = SparsityPattern.from_mask(jnp.zeros((3, 3, 1, 2), bool).at[1, 1].set(True))
    >>> layer = SparseConv(2, (3, 3), pattern=pattern)
    >>> y, variables = layer.init_with_output(jax.random.key(0), jnp.ones((1, 4, 4, 1)))
    >>> y.shape, variables["params"]["kernel"].shape
    ((1, 4, 4, 2), (2,))
    """

    features: int
    kernel_size: int | Sequence[int]
    pattern: SparsityPattern
    strides: PerAxis = 1
    padding: PaddingLike = "SAME"
    input_dilation: PerAxis = 1
    kernel_dilation: PerAxis = 1
    feature_group_count: int = 1
    use_bias: bool = True
    mask: ArrayLike | None = None
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32
    precision: PrecisionLike = None
    kernel_init: Initializer = default_kernel_init
    bias_init: Initializer = default_bias_init
    promote_dtype: Callable[..., Any] = promote_dtype

    def __post_init__(self) -> None:
        """Refuse what no input fits."""
        pattern: Any = self.pattern
        features = getattr(pattern, "shape", (1, 1))[-2]  # of the input, per group
        check_geometry(
            "SparseConv", self._window(), features * self.feature_group_count, self.features, **self._options()
        )
        check_pattern("SparseConv", pattern, (*self._window(), features, self.features))
        check_dtypes("SparseConv", self.dtype, self.param_dtype)
        if self.mask is not None:
            check_within("SparseConv", self.pattern, self.mask)
        super().__post_init__()

    @nn.nowrap
    def _window(self) -> tuple[int, ...]:
        return (self.kernel_size,) if isinstance(self.kernel_size, int) else tuple(self.kernel_size)

    @nn.nowrap
    def _options(self) -> dict[str, Any]:
        """The options that ``conv`` takes."""
        names = ("strides", "padding", "input_dilation", "kernel_dilation", "feature_group_count")
        return {name: getattr(self, name) for name in names}

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Map ``float[..., *spatial, in]`` to ``float[..., *out_spatial, features]``."""
        in_features = jnp.shape(inputs)[-1]
        check_geometry("SparseConv", self._window(), in_features, self.features, **self._options())
        shape = (*self._window(), in_features // self.feature_group_count, self.features)
        check_pattern("SparseConv", self.pattern, shape)
        pattern, kernel, bias = _parameters(self)
        inputs, kernel, bias = self.promote_dtype(inputs, kernel, bias, dtype=self.dtype)
        y = conv(kernel, pattern, inputs, **self._options(), layouts=ROW_MAJOR)
        return y if bias is None else add_bias(y, bias, layout=Layout.ROW_MAJOR)

    @classmethod
    def from_dense(
        cls, dense: nn.Conv, params: Mapping[str, Any], mask: ArrayLike | None = None
    ) -> tuple[SparseConv, Variables]:
        """Convert a ``linen.Conv`` and its parameters.

        Args:
          dense: the module; its ``mask`` takes entries away.
          params: its parameters, ``{"kernel": float[*window, in // groups, features], "bias":
            float[features]}``.
          mask: bool array of the kernel's shape, true stores the weight. None stores the weights that are not
            zero.

        Returns:
          The sparse module, and its variables ``{"params": ..., "pattern": ...}``.

        Raises:
          ValueError: three spatial axes, "REFLECT" padding, a ``conv_general_dilated`` hook, or a mask of
            another shape or dtype.
          TypeError: not a ``linen.Conv``, or a subclass.
        """
        name = "SparseConv.from_dense"
        _check_module(name, dense, nn.Conv, ("conv_general_dilated", "conv_general_dilated_cls"))
        kernel = jnp.asarray(params["kernel"])
        limit = None if dense.mask is None else binary_mask(name, dense.mask, kernel.shape)
        pattern = SparsityPattern.from_mask(stored_entries(name, kernel, mask, limit))
        module = cls(pattern=pattern, **_common_fields(cls, dense))
        return module, _sparse_variables(pattern, params)

    @nn.nowrap
    def to_dense(self, variables: Mapping[str, Any]) -> tuple[nn.Conv, Variables]:
        """Return the ``linen.Conv`` of the same meaning, and its variables ``{"params": ...}``."""
        return nn.Conv(**_common_fields(nn.Conv, self)), _dense_variables(self.pattern, variables)


def _parameters(module: SparseDense | SparseConv) -> tuple[SparsityPattern, jax.Array, jax.Array | None]:
    """Pattern, stored entries and bias of a layer in ``init`` or ``apply``."""
    pattern = module.pattern
    if module.is_initializing() or module.has_variable("pattern", "indptr"):
        arrays = {n: module.variable("pattern", n, getattr, pattern, n).value for n in ARRAYS}
        pattern = dataclasses.replace(pattern, **arrays)

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        dense = module.kernel_init(key, shape, dtype)
        if isinstance(dense, nn.meta.AxisMetadata):
            got = f"an initializer with axis metadata ({type(dense).__name__})"
            fail(type(module).__name__, "kernel_init", got, "a plain one; stored entries have one axis")
        return pattern.gather(dense)

    kernel = module.param("kernel", draw, pattern.shape, module.param_dtype)
    if not module.use_bias:
        return pattern, kernel, None
    return pattern, kernel, module.param("bias", module.bias_init, (pattern.rows,), module.param_dtype)


def _check_module(function: str, dense: Any, kind: type, hooks: tuple[str, ...]) -> None:
    if type(dense) is not kind:
        fail(function, "dense", f"type {type(dense).__name__}", f"linen.{kind.__name__}", error=TypeError)
    for name in hooks:
        if getattr(dense, name) is not None:
            fail(function, name, f"value {getattr(dense, name)!r}", "None; sparse kernels have no such hook")


def _common_fields(kind: type[nn.Module], module: nn.Module) -> dict[str, Any]:
    """Fields of ``module`` that ``kind`` has too, the name included."""
    skipped = ("parent", "pattern")
    names = [f.name for f in dataclasses.fields(kind) if f.init and f.name not in skipped]
    return {name: getattr(module, name) for name in names if hasattr(module, name)}


def _sparse_variables(pattern: SparsityPattern, params: Mapping[str, Any]) -> Variables:
    arrays = {name: getattr(pattern, name) for name in ARRAYS}
    return {"params": {**params, "kernel": pattern.gather(params["kernel"])}, "pattern": arrays}


def _dense_variables(pattern: SparsityPattern, variables: Mapping[str, Any]) -> Variables:
    pattern = dataclasses.replace(pattern, **variables.get("pattern", {}))
    params = variables["params"]
    return {"params": {**params, "kernel": pattern.scatter(params["kernel"])}}
