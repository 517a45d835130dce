"""``SparseConv``: ``flax.nnx.Conv`` with a kernel stored at the entries of a pattern."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import jax
import numpy as np
from flax import nnx

from sparsejax._checks import fail
from sparsejax._typing import ArrayLike
from sparsejax.kernels import ROW_MAJOR, PaddingLike, PerAxis, add_bias, conv, per_axis, resolve_padding
from sparsejax.nn._layer import LayerOptions, SparseLayer
from sparsejax.nn._layer_checks import binary_mask, check_out_sharding
from sparsejax.pattern import SparsityPattern


class SparseConv(SparseLayer[nnx.Conv]):
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

    Attributes:
      kernel: nnx.Param, float[nse].
      bias: nnx.Param, float[out_features], or None.
      pattern: the SparsityPattern, value of the variable ``topology``.
      layouts: how input and output lie in memory; row-major, unless `plan_layouts` or you set something else. Static;
        numbers do not depend on it.

    Raises:
      ValueError: three or more spatial axes, another padding, sizes that disagree, or another dtype.
      TypeError: the pattern is not a SparsityPattern.

    Source: Nikdan et al. 2023 (SparseProp), section 3; signature of ``flax.nnx.Conv``.

    >>> import jax.numpy as jnp
    >>> pattern = SparsityPattern.from_mask(jnp.zeros((3, 3, 2, 4), bool).at[1, 1].set(True))
    >>> layer = SparseConv(2, 4, (3, 3), strides=2, pattern=pattern, rngs=nnx.Rngs(0))
    >>> layer.kernel.shape, layer(jnp.ones((1, 8, 8, 2))).shape
    ((8,), (1, 4, 4, 4))
    """

    dense_class = nnx.Conv
    _shown = ("in_features", "out_features", "kernel_size", "strides", "padding", "feature_group_count", "use_bias")

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
        **options: Unpack[LayerOptions],
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
        self.layouts = ROW_MAJOR
        super().__init__(pattern=pattern, bias_shape=(out_features,) if use_bias else None, **options)
        if mask is not None:
            check_within("SparseConv", pattern, mask)

    @staticmethod
    def _check_options(function: str, layer: Any) -> None:
        check_geometry(function, layer.kernel_size, layer.in_features, layer.out_features, **_geometry(layer))

    @staticmethod
    def _dense_shape(layer: Any) -> tuple[int, ...]:
        return (*layer.kernel_size, layer.in_features // layer.feature_group_count, layer.out_features)

    def __call__(self, inputs: jax.Array, out_sharding: None = None) -> jax.Array:
        """Map ``float[..., *spatial, in_features]`` to ``float[..., *out_spatial, out_features]``."""
        check_out_sharding("SparseConv", out_sharding)
        inputs, kernel, bias = self._promoted(inputs)
        y = conv(kernel, self.pattern, inputs, **_geometry(self), layouts=self.layouts)
        return y if bias is None else add_bias(y, bias, layout=self.layouts.y)


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


def check_within(function: str, pattern: SparsityPattern, mask: ArrayLike) -> None:
    """Refuse a pattern that stores entries outside the ``mask`` option of a convolution."""
    with jax.ensure_compile_time_eval():  # linen modules check under jit
        stored = np.asarray(pattern.mask())
    outside = int((stored & ~binary_mask(function, mask, pattern.shape)).sum())
    if outside:
        fail(function, "pattern", f"{outside} entries outside the mask", "none", "Intersect the two first.")
