"""``SparseConvTranspose``: ``flax.nnx.ConvTranspose`` with a kernel stored at the entries of a pattern."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sparsejax._checks import fail
from sparsejax._typing import ArrayLike
from sparsejax.kernels import ROW_MAJOR, PaddingLike, add_bias, conv, per_axis
from sparsejax.nn._layer import LayerOptions, SparseLayer
from sparsejax.pattern import SparsityPattern


class SparseConvTranspose(SparseLayer[nnx.ConvTranspose]):
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
      transpose_kernel: whether the kernel's window is flipped and its last two axes are (out, in), as in the gradient
        of a convolution.

    Attributes:
      kernel: nnx.Param, float[nse].
      bias: nnx.Param, float[out_features], or None.
      pattern: the SparsityPattern, value of the variable ``topology``.
      layouts: as of ``SparseConv``.

    Raises:
      ValueError: three or more spatial axes, another padding, or sizes that disagree.
      TypeError: the pattern is not a SparsityPattern.

    Source: signature and padding of ``flax.nnx.ConvTranspose`` and ``jax.lax.conv_transpose``.

    >>> pattern = SparsityPattern.from_mask(jnp.zeros((2, 2, 3, 4), bool).at[0, 0].set(True))
    >>> layer = SparseConvTranspose(3, 4, (2, 2), strides=2, pattern=pattern, rngs=nnx.Rngs(0))
    >>> layer.kernel.shape, layer(jnp.ones((1, 8, 8, 3))).shape
    ((12,), (1, 16, 16, 4))
    """

    dense_class = nnx.ConvTranspose
    _shown = ("in_features", "out_features", "kernel_size", "strides", "padding", "transpose_kernel", "use_bias")

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] | None = None,
        *,
        pattern: SparsityPattern,
        padding: PaddingLike = "SAME",
        kernel_dilation: int | Sequence[int] | None = None,
        use_bias: bool = True,
        mask: ArrayLike | None = None,
        transpose_kernel: bool = False,
        **options: Unpack[LayerOptions],
    ):
        self.kernel_size = (kernel_size,) if isinstance(kernel_size, int) else tuple(kernel_size)
        self.in_features = in_features
        self.out_features = out_features
        self.strides = strides
        self.padding = padding
        self.kernel_dilation = kernel_dilation
        self.use_bias = use_bias
        self.mask = mask
        self.transpose_kernel = transpose_kernel
        self.layouts = ROW_MAJOR
        super().__init__(pattern=pattern, bias_shape=(out_features,) if use_bias else None, **options)

    @staticmethod
    def _check_options(function: str, layer: Any) -> None:
        rank = len(layer.kernel_size)
        if rank not in (1, 2):
            hint = "Convolutions over three axes stay dense." if rank == 3 else ""
            fail(function, "kernel_size", f"{rank} axes", "one or two", hint)
        per_axis(function, "strides", layer.strides, rank)
        per_axis(function, "kernel_dilation", layer.kernel_dilation, rank)
        if isinstance(layer.padding, str) and layer.padding not in ("SAME", "VALID", "CIRCULAR"):
            fail(function, "padding", f"value {layer.padding!r}", "'SAME', 'VALID', 'CIRCULAR' or numbers")

    @staticmethod
    def _dense_shape(layer: Any) -> tuple[int, ...]:
        channels = (layer.in_features, layer.out_features)
        return (*layer.kernel_size, *(reversed(channels) if layer.transpose_kernel else channels))

    @staticmethod
    def _to_matrix(layer: Any, kernel: Any) -> Any:
        if not layer.transpose_kernel:
            return kernel
        window = tuple(range(len(layer.kernel_size)))
        return (jnp if isinstance(kernel, jax.Array) else np).flip(kernel, window).swapaxes(-1, -2)

    @staticmethod
    def _from_matrix(layer: Any, matrix: Any) -> Any:
        return SparseConvTranspose._to_matrix(layer, matrix)  # its own inverse

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Map ``float[..., *spatial, in_features]`` to ``float[..., *out_spatial, out_features]``."""
        rank = len(self.kernel_size)
        inputs, kernel, bias = self._promoted(inputs)
        lead, spatial = inputs.shape[: inputs.ndim - rank - 1], inputs.shape[-rank - 1 : -1]
        strides = per_axis("SparseConvTranspose", "strides", self.strides, rank)
        y = conv(
            kernel,
            self.pattern,
            inputs.reshape(-1 if 0 not in inputs.shape else 0, *inputs.shape[inputs.ndim - rank - 1 :]),
            padding=_padding(self, strides),
            input_dilation=strides,
            kernel_dilation=self.kernel_dilation,
            layouts=self.layouts,
        )
        if self.padding == "CIRCULAR":
            y = _wrap(y, [size * stride for size, stride in zip(spatial, strides, strict=True)], self.transpose_kernel)
        y = y if bias is None else add_bias(y, bias, layout=self.layouts.y)
        return y.reshape(*lead, *y.shape[1:])


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
