"""``SparseConv``: ``flax.nnx.Conv`` with a kernel stored at the entries of a pattern."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.nnx.nn import dtypes
from flax.typing import Initializer, PrecisionLike, PromoteDtypeFn

from sparsejax._checks import fail
from sparsejax._typing import ArrayLike, DTypeLike
from sparsejax.kernels import PaddingLike, PerAxis, add_bias, conv, per_axis, resolve_padding
from sparsejax.nn._layer import (
    SparseLayer,
    binary_mask,
    check_dense_layer,
    check_dtypes,
    check_exact_type,
    check_out_sharding,
    check_pattern,
    default_bias_init,
    default_kernel_init,
    stored_entries,
)
from sparsejax.pattern import SparsityPattern

_NO_METADATA: Mapping[str, Any] = MappingProxyType({})


class SparseConv(SparseLayer):
    """Convolution with a sparse kernel, over one or two spatial axes.

    Same arguments, initial numbers and results as ``flax.nnx.Conv`` with the kernel masked by the pattern.
    The parameter ``kernel`` holds the stored entries only, and gradients and optimizer state have that size
    too.

    Args:
      in_features: size of the last axis of the input.
      out_features: size of the last axis of the output.
      kernel_size: one or two integers; a bare integer is one axis, as in Flax.
      strides: integer, or one per axis.
      pattern: SparsityPattern of shape (*kernel_size, in_features // feature_group_count, out_features).
      padding: "SAME", "VALID", "CIRCULAR", "CAUSAL" (one axis), an integer, or per axis an integer or a (low,
        high) pair.
      input_dilation, kernel_dilation: integer, or one per axis.
      feature_group_count: groups; divides ``in_features`` and ``out_features``.
      use_bias: whether to add a bias.
      mask: 0/1 mask of a masked convolution, of the kernel's shape; the pattern must lie within it. Kept for
        ``to_dense``; the pattern alone decides what is computed.
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
      kernel: nnx.Param, float[nse].
      bias: nnx.Param, float[out_features], or None.
      pattern: the SparsityPattern, value of the variable ``topology``.

    Raises:
      ValueError: three or more spatial axes, another padding, sizes that disagree, or another dtype.
      TypeError: the pattern is not a SparsityPattern.

    Source: Nikdan et al. 2023 (SparseProp), section 3; signature of ``flax.nnx.Conv``.

    >>> pattern = SparsityPattern.from_mask(jnp.zeros((3, 3, 2, 4), bool).at[1, 1].set(True))
    >>> layer = SparseConv(2, 4, (3, 3), strides=2, pattern=pattern, rngs=nnx.Rngs(0))
    >>> layer.kernel.shape, layer(jnp.ones((1, 8, 8, 2))).shape
    ((8,), (1, 4, 4, 4))
    """

    _shown = (
        "in_features",
        "out_features",
        "kernel_size",
        "strides",
        "padding",
        "feature_group_count",
        "use_bias",
    )

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int | Sequence[int],
        strides: PerAxis = 1,
        *,
        pattern: SparsityPattern,
        padding: PaddingLike = "SAME",
        input_dilation: PerAxis = 1,
        kernel_dilation: PerAxis = 1,
        feature_group_count: int = 1,
        use_bias: bool = True,
        mask: ArrayLike | None = None,
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
        self.kernel_size = (kernel_size,) if isinstance(kernel_size, int) else tuple(kernel_size)
        self.in_features = in_features
        self.out_features = out_features
        self.strides = strides
        self.padding = padding
        self.input_dilation = input_dilation
        self.kernel_dilation = kernel_dilation
        self.feature_group_count = feature_group_count
        self.use_bias = use_bias
        self.mask = mask
        self.dtype = dtype
        self.param_dtype = param_dtype
        self.precision = precision
        self.promote_dtype = promote_dtype
        _check_layer("SparseConv", self)
        check_pattern("SparseConv", pattern, self.kernel_shape)
        check_dtypes("SparseConv", dtype, param_dtype)
        if mask is not None:
            check_within("SparseConv", pattern, mask)
        self._create_parameters(
            pattern, use_bias, param_dtype, kernel_init, bias_init, rngs, kernel_metadata, bias_metadata
        )

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        """Shape of the dense kernel, ``(*kernel_size, in_features // feature_group_count, out_features)``."""
        return (*self.kernel_size, self.in_features // self.feature_group_count, self.out_features)

    def __call__(self, inputs: jax.Array, out_sharding: None = None) -> jax.Array:
        """Map ``float[..., *spatial, in_features]`` to ``float[..., *out_spatial, out_features]``."""
        check_out_sharding("SparseConv", out_sharding)
        bias = None if self.bias is None else self.bias[...]
        inputs, kernel, bias = self.promote_dtype((inputs, self.kernel[...], bias), dtype=self.dtype)
        y = conv(kernel, self.pattern, inputs, **_geometry(self))
        return y if bias is None else add_bias(y, bias)

    @classmethod
    def from_dense(cls, dense: nnx.Conv, mask: ArrayLike | None = None) -> SparseConv:
        """Convert a dense layer; values, variable types, metadata and options are kept.

        Args:
          dense: the layer to copy. It is not changed and shares no variable with the result.
          mask: bool array of the kernel's shape, true stores the weight, be it zero or not. None stores the
            weights that are not zero. Weights outside it, or outside the layer's ``mask``, are dropped.

        Raises:
          ValueError: three spatial axes, "REFLECT" padding, an attribute without a sparse counterpart (a
            ``conv_general_dilated`` hook, ``preferred_element_type``, sharding, a foreign attribute), a
            kernel stacked by vmap, an unsupported dtype, or a mask of another shape or dtype.
          TypeError: not an ``nnx.Conv``, or a subclass.

        >>> dense = nnx.Conv(1, 2, (3,), rngs=nnx.Rngs(0))
        >>> SparseConv.from_dense(dense, jnp.zeros((3, 1, 2), bool).at[1].set(True)).pattern.nse
        2
        """
        name = "SparseConv.from_dense"
        check_exact_type(name, dense, nnx.Conv)
        _check_layer(name, dense)
        refused = {"conv_general_dilated": jax.lax.conv_general_dilated, "preferred_element_type": None}
        check_dense_layer(name, dense, nnx.Conv, dense.kernel_shape, refused)
        limit = None if dense.mask is None else binary_mask(name, dense.mask, dense.kernel_shape)
        keep = stored_entries(name, dense.kernel[...], mask, limit)
        sparse = cls(
            pattern=SparsityPattern.from_mask(keep),
            kernel_init=nnx.initializers.zeros_init(),
            rngs=nnx.Rngs(0),
            **_options(dense),
        )
        sparse._take_parameters(dense)
        return sparse

    def to_dense(self) -> nnx.Conv:
        """Return the same layer as ``flax.nnx.Conv``, zeros where nothing is stored; shares no variable.

        >>> pattern = SparsityPattern.from_mask(jnp.ones((1, 1, 2), bool))
        >>> SparseConv(1, 2, 1, pattern=pattern, rngs=nnx.Rngs(0)).to_dense().kernel.shape
        (1, 1, 2)
        """
        dense = nnx.Conv(kernel_init=nnx.initializers.zeros_init(), rngs=nnx.Rngs(0), **_options(self))
        self._give_parameters(dense)
        return dense


def check_geometry(
    function: str,
    window: tuple[int, ...],
    in_features: int,
    out_features: int,
    *,
    strides: PerAxis,
    padding: PaddingLike,
    input_dilation: PerAxis,
    kernel_dilation: PerAxis,
    feature_group_count: int,
) -> None:
    """Refuse options of a convolution that the sparse kernels do not know."""
    rank = len(window)
    if rank not in (1, 2):
        hint = "Convolutions over three axes stay dense." if rank == 3 else ""
        fail(function, "kernel_size", f"{rank} axes", "one or two", hint)
    steps = per_axis(function, "strides", strides, rank)
    dilations = (
        per_axis(function, "input_dilation", input_dilation, rank),
        per_axis(function, "kernel_dilation", kernel_dilation, rank),
    )
    # Padding is resolved against the input at each call; here only its form is checked.
    resolve_padding(function, padding, (1,) * rank, window, steps, *dilations)
    groups = feature_group_count
    if groups < 1 or in_features % groups or out_features % groups:
        sizes = f"{in_features} inputs and {out_features} outputs"
        fail(function, "feature_group_count", f"value {groups}", f"a positive divisor of the {sizes}")


def _geometry(layer: Any) -> dict[str, Any]:
    """The options of a dense or sparse layer that ``conv`` takes."""
    names = ("strides", "padding", "input_dilation", "kernel_dilation", "feature_group_count")
    return {name: getattr(layer, name) for name in names}


def _check_layer(function: str, layer: Any) -> None:
    check_geometry(function, layer.kernel_size, layer.in_features, layer.out_features, **_geometry(layer))


def check_within(function: str, pattern: SparsityPattern, mask: ArrayLike) -> None:
    """Refuse a pattern that stores entries outside the ``mask`` option of a convolution."""
    with jax.ensure_compile_time_eval():  # linen modules check under jit
        stored = np.asarray(pattern.mask())
    outside = int((stored & ~binary_mask(function, mask, pattern.shape)).sum())
    if outside:
        fail(function, "pattern", f"{outside} entries outside the mask", "none", "Intersect the two first.")


def _options(layer: Any) -> dict[str, Any]:
    """Constructor options that the dense and the sparse layer have in common."""
    sizes = ("in_features", "out_features", "kernel_size")
    names = (*sizes, "use_bias", "mask", "dtype", "param_dtype", "precision", "promote_dtype")
    return _geometry(layer) | {name: getattr(layer, name) for name in names}
