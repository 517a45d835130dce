"""``SparseConvTranspose``: ``flax.nnx.ConvTranspose`` with a kernel stored at the entries of a pattern."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.nnx.nn import dtypes

from sparsejax._checks import fail
from sparsejax.kernels import add_bias, conv, per_axis
from sparsejax.nn._layer import (
    SparseLayer,
    binary_mask,
    check_dense_layer,
    check_dtypes,
    check_exact_type,
    check_pattern,
    default_bias_init,
    default_kernel_init,
    stored_entries,
)
from sparsejax.pattern import SparsityPattern

_NO_METADATA: Mapping[str, Any] = MappingProxyType({})


class SparseConvTranspose(SparseLayer):
    """Transposed convolution with a sparse kernel, over one or two spatial axes.

    ``y = conv(dilate(x, strides), K) + bias``, ``K`` zero outside the pattern: a convolution of stride 1 over the input
    with ``strides - 1`` zeros between its pixels.

    Same arguments, initial numbers and results as ``flax.nnx.ConvTranspose`` with the kernel masked by the pattern.

    Args:
      in_features: size of the last axis of the input.
      out_features: size of the last axis of the output.
      kernel_size: one or two integers; a bare integer is one axis, as in Flax.
      strides: integer, or one per axis.
      pattern: SparsityPattern of shape (*kernel_size, in_features, out_features); with ``transpose_kernel`` that of the
        kernel with its window flipped and its last two axes swapped.
      padding: "SAME", "VALID", "CIRCULAR", an integer, or per axis an integer or a (low, high) pair.
      kernel_dilation: integer, or one per axis.
      use_bias: whether to add a bias.
      mask: 0/1 mask of the kernel's shape, kept for ``to_dense``; the pattern alone decides what is computed.
      dtype: of the computation; None infers it from input and parameters. float32, float64 or bfloat16.
      param_dtype: of the parameters.
      precision: kept for ``to_dense``; the sparse kernels have one precision, that of the dtype.
      kernel_init: initializer of the dense kernel, of which the stored entries are kept.
      bias_init: initializer of the bias.
      transpose_kernel: whether the kernel's window is flipped and its last two axes are (out, in), as in the gradient
        of a convolution.
      promote_dtype: brings (inputs, kernel, bias) to one dtype.
      rngs: random streams; ``params`` gives the key of the kernel, then that of the bias.
      kernel_metadata: metadata of the kernel variable; no sharding.
      bias_metadata: metadata of the bias variable.

    Attributes:
      kernel: nnx.Param, float[nse].
      bias: nnx.Param, float[out_features], or None.
      pattern: the SparsityPattern, value of the variable ``topology``.

    Raises:
      ValueError: three or more spatial axes, another padding, or sizes that disagree.
      TypeError: the pattern is not a SparsityPattern.

    Source: signature and padding of ``flax.nnx.ConvTranspose`` and ``jax.lax.conv_transpose``.

    >>> pattern = SparsityPattern.from_mask(jnp.zeros((2, 2, 3, 4), bool).at[0, 0].set(True))
    >>> layer = SparseConvTranspose(3, 4, (2, 2), strides=2, pattern=pattern, rngs=nnx.Rngs(0))
    >>> layer.kernel.shape, layer(jnp.ones((1, 8, 8, 3))).shape
    ((12,), (1, 16, 16, 4))
    """

    _shown = ("in_features", "out_features", "kernel_size", "strides", "padding", "transpose_kernel", "use_bias")

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] | None = None,
        *,
        pattern: SparsityPattern,
        padding: Any = "SAME",
        kernel_dilation: int | Sequence[int] | None = None,
        use_bias: bool = True,
        mask: Any = None,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        precision: Any = None,
        kernel_init: Any = default_kernel_init,
        bias_init: Any = default_bias_init,
        transpose_kernel: bool = False,
        promote_dtype: Any = dtypes.promote_dtype,
        rngs: nnx.Rngs,
        kernel_metadata: Mapping[str, Any] = _NO_METADATA,
        bias_metadata: Mapping[str, Any] = _NO_METADATA,
    ):
        self.kernel_size = (kernel_size,) if isinstance(kernel_size, int) else tuple(kernel_size)
        self.in_features = in_features
        self.out_features = out_features
        self.strides = strides
        self.padding = padding
        self.kernel_dilation = kernel_dilation
        self.use_bias = use_bias
        self.mask = mask
        self.dtype = dtype
        self.param_dtype = param_dtype
        self.precision = precision
        self.transpose_kernel = transpose_kernel
        self.promote_dtype = promote_dtype
        name = "SparseConvTranspose"
        _check_window(name, self)
        check_pattern(name, pattern, (*self.kernel_size, in_features, out_features))
        check_dtypes(name, dtype, param_dtype)

        def oriented_init(key: jax.Array, _: Any, dtype: Any) -> jax.Array:
            return self._to_matrix(kernel_init(key, self.kernel_shape, dtype))

        self._create_parameters(
            pattern, use_bias, param_dtype, oriented_init, bias_init, rngs, kernel_metadata, bias_metadata
        )

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        """Shape of the dense kernel, ``(*kernel_size, in, out)``, or ``(*kernel_size, out, in)`` if transposed."""
        channels = (self.in_features, self.out_features)
        return (*self.kernel_size, *(reversed(channels) if self.transpose_kernel else channels))

    def _to_matrix(self, kernel: Any) -> Any:
        """Bring a dense kernel to the orientation of the pattern; its own inverse."""
        if not self.transpose_kernel:
            return kernel
        window = tuple(range(len(self.kernel_size)))
        return (jnp if isinstance(kernel, jax.Array) else np).flip(kernel, window).swapaxes(-1, -2)

    def _from_matrix(self, matrix: Any) -> Any:
        """Bring an array of the pattern's orientation to that of the dense kernel."""
        return self._to_matrix(matrix)

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Map ``float[..., *spatial, in_features]`` to ``float[..., *out_spatial, out_features]``."""
        rank = len(self.kernel_size)
        bias = None if self.bias is None else self.bias[...]
        inputs, kernel, bias = self.promote_dtype((inputs, self.kernel[...], bias), dtype=self.dtype)
        lead, spatial = inputs.shape[: inputs.ndim - rank - 1], inputs.shape[-rank - 1 : -1]
        strides = per_axis("SparseConvTranspose", "strides", self.strides, rank)
        y = conv(
            kernel,
            self.pattern,
            inputs.reshape(-1 if 0 not in inputs.shape else 0, *inputs.shape[inputs.ndim - rank - 1 :]),
            padding=_padding(self, strides),
            input_dilation=strides,
            kernel_dilation=self.kernel_dilation,
        )
        if self.padding == "CIRCULAR":
            y = _wrap(y, [size * stride for size, stride in zip(spatial, strides, strict=True)], self.transpose_kernel)
        y = y if bias is None else add_bias(y, bias)
        return y.reshape(*lead, *y.shape[1:])

    @classmethod
    def from_dense(cls, dense: nnx.ConvTranspose, mask: Any = None) -> SparseConvTranspose:
        """Convert a dense layer; values, variable types, metadata and options are kept.

        Args:
          dense: the layer to copy. It is not changed and shares no variable with the result.
          mask: bool array of the kernel's shape, true stores the weight, be it zero or not. None stores the
            weights that are not zero. Weights outside it, or outside the layer's own ``mask``, are dropped.

        Raises:
          ValueError: three spatial axes, an attribute without a sparse counterpart (``preferred_element_type``,
            sharding, a foreign attribute), a kernel stacked by vmap, an unsupported dtype, or a mask of another shape
            or dtype.
          TypeError: not an ``nnx.ConvTranspose``, or a subclass.

        >>> dense = nnx.ConvTranspose(1, 2, (3,), rngs=nnx.Rngs(0))
        >>> SparseConvTranspose.from_dense(dense, jnp.zeros((3, 1, 2), bool).at[1].set(True)).pattern.nse
        2
        """
        name = "SparseConvTranspose.from_dense"
        check_exact_type(name, dense, nnx.ConvTranspose)
        _check_window(name, dense)
        shape = tuple(dense.kernel_shape)
        check_dense_layer(name, dense, nnx.ConvTranspose, shape, {"preferred_element_type": None})
        layer_mask = None if dense.mask is None else binary_mask(name, dense.mask, shape)
        keep = stored_entries(name, dense.kernel[...], mask, layer_mask)
        if dense.transpose_kernel:
            keep = np.flip(keep, tuple(range(len(dense.kernel_size)))).swapaxes(-1, -2)
        sparse = cls(
            pattern=SparsityPattern.from_mask(np.ascontiguousarray(keep)),
            mask=dense.mask,
            kernel_init=nnx.initializers.zeros_init(),
            rngs=nnx.Rngs(0),
            **_options(dense),
        )
        sparse._take_parameters(dense)
        return sparse

    def to_dense(self) -> nnx.ConvTranspose:
        """The same layer as ``flax.nnx.ConvTranspose``, zeros where nothing is stored; shares no variable.

        >>> pattern = SparsityPattern.from_mask(jnp.ones((1, 1, 2), bool))
        >>> SparseConvTranspose(1, 2, 1, pattern=pattern, rngs=nnx.Rngs(0)).to_dense().kernel.shape
        (1, 1, 2)
        """
        zeros = nnx.initializers.zeros_init()
        dense = nnx.ConvTranspose(kernel_init=zeros, mask=self.mask, rngs=nnx.Rngs(0), **_options(self))
        self._give_parameters(dense)
        return dense


def _check_window(function: str, layer: Any) -> None:
    rank = len(layer.kernel_size)
    if rank not in (1, 2):
        hint = "Convolutions over three axes stay dense." if rank == 3 else ""
        fail(function, "kernel_size", f"{rank} axes", "one or two", hint)
    per_axis(function, "strides", layer.strides, rank)
    per_axis(function, "kernel_dilation", layer.kernel_dilation, rank)
    if isinstance(layer.padding, str) and layer.padding not in ("SAME", "VALID", "CIRCULAR"):
        fail(function, "padding", f"value {layer.padding!r}", "'SAME', 'VALID', 'CIRCULAR' or numbers")


def _padding(layer: Any, strides: Sequence[int]) -> list[tuple[int, int]]:
    """Zeros before and after the dilated input, by the rule of ``jax.lax.conv_transpose``."""
    rank = len(layer.kernel_size)
    if not isinstance(layer.padding, str):
        values = [layer.padding] * rank if isinstance(layer.padding, int) else list(layer.padding)
        return [(value, value) if isinstance(value, int) else (value[0], value[1]) for value in values]
    dilations = per_axis("SparseConvTranspose", "kernel_dilation", layer.kernel_dilation, rank)
    pairs = []
    for size, dilation, stride in zip(layer.kernel_size, dilations, strides, strict=True):
        window = (size - 1) * dilation + 1
        total = window + stride - 2
        if layer.padding == "SAME":
            low = window - 1 if stride > window - 1 else -(-total // 2)
        else:
            total += max(window - stride, 0)
            low = window - 1
        pairs.append((low, total - low))
    return pairs


def _wrap(y: jax.Array, periods: Sequence[int], transposed: bool) -> jax.Array:
    """Add up what lies a period apart along each spatial axis: circular padding, as Flax aligns it."""
    pads = []
    for size, period in zip(y.shape[1:-1], periods, strict=True):
        missing = -(size - period) % (2 * period)
        low = missing // 2 if transposed else (missing + 1) // 2
        pads.append((low, missing - low))
    y = jnp.pad(y, [(0, 0), *pads, (0, 0)])
    for axis, period in enumerate(periods, 1):
        y = y.reshape(*y.shape[:axis], -1, period, *y.shape[axis + 1 :]).sum(axis)
    return y


def _options(layer: Any) -> dict[str, Any]:
    """Constructor options that the dense and the sparse layer have in common, but for ``mask``."""
    sizes = ("in_features", "out_features", "kernel_size", "strides", "padding", "kernel_dilation")
    names = (*sizes, "use_bias", "dtype", "param_dtype", "precision", "transpose_kernel", "promote_dtype")
    return {name: getattr(layer, name) for name in names}
