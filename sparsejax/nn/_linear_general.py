"""``SparseLinearGeneral``: ``flax.nnx.LinearGeneral`` with a kernel stored at the entries of a pattern."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from sparsejax._checks import fail
from sparsejax.kernels import Layout, add_bias, spmm
from sparsejax.nn._layer import LayerOptions, SparseLayer
from sparsejax.nn._layer_checks import check_out_sharding
from sparsejax.pattern import SparsityPattern


class SparseLinearGeneral(SparseLayer[nnx.LinearGeneral]):
    """Linear layer over several axes with a sparse kernel.

    ``y[..., o...] = sum over i... of x[..., i...] * K[i..., o...] + bias[o...]``, ``K`` zero outside the pattern

    Same arguments, initial numbers and results as ``flax.nnx.LinearGeneral`` with the kernel masked by the pattern. The
    kernel is stored as a matrix whose first axis is the input axes, flattened, and whose second is the output axes.

    Args:
      in_features: sizes of the contracted axes of the input, in the order that the input has them.
      out_features: sizes of the axes that the result has in their place, at its end.
      pattern: SparsityPattern of shape (product of in_features, product of out_features).
      axis: axes of the input that are contracted.
      use_bias: whether to add a bias of shape ``out_features``.

    Attributes:
      kernel: nnx.Param, float[nse].
      bias: nnx.Param, float[*out_features], or None.
      pattern: the SparsityPattern, value of the variable ``topology``.

    Raises:
      ValueError: the pattern has another shape, or ``axis`` and ``in_features`` differ in length.
      TypeError: the pattern is not a SparsityPattern.

    Source: Nikdan et al. 2023 (SparseProp), section 3; signature of ``flax.nnx.LinearGeneral``.

    >>> pattern = SparsityPattern.from_mask(jnp.ones((6, 4), bool).at[0].set(False))
    >>> layer = SparseLinearGeneral((2, 3), 4, axis=(-2, -1), pattern=pattern, rngs=nnx.Rngs(0))
    >>> layer.kernel.shape, layer(jnp.ones((5, 2, 3))).shape
    ((20,), (5, 4))
    """

    dense_class = nnx.LinearGeneral
    _shown = ("in_features", "out_features", "axis", "use_bias")
    _draws_matrix = True

    def __init__(
        self,
        in_features: int | Sequence[int],
        out_features: int | Sequence[int],
        *,
        pattern: SparsityPattern,
        axis: int | Sequence[int] = -1,
        use_bias: bool = True,
        **options: Unpack[LayerOptions],
    ):
        self.in_features, self.out_features, self.axis = map(_as_tuple, (in_features, out_features, axis))
        self.use_bias = use_bias
        super().__init__(pattern=pattern, bias_shape=self.out_features if use_bias else None, **options)

    @staticmethod
    def _check_options(function: str, layer: Any) -> None:
        if len(layer.axis) != len(layer.in_features):
            fail(function, "axis", f"value {layer.axis}", f"{len(layer.in_features)} axes, as in_features has")
        batch_axis = getattr(layer, "batch_axis", None)
        if batch_axis:
            got = f"value {dict(batch_axis)}"
            fail(function, "batch_axis", got, "none; a kernel for each batch index has no sparse form")

    @staticmethod
    def _dense_shape(layer: Any) -> tuple[int, ...]:
        return (*layer.in_features, *layer.out_features)

    @staticmethod
    def _to_matrix(layer: Any, kernel: Any) -> Any:
        return kernel.reshape(math.prod(layer.in_features), math.prod(layer.out_features))

    @staticmethod
    def _from_matrix(layer: Any, matrix: Any) -> Any:
        return matrix.reshape(*layer.in_features, *layer.out_features)

    def __call__(self, inputs: jax.Array, out_sharding: None = None) -> jax.Array:
        """Contract ``axis`` of the input; the result ends in ``out_features``, after the axes that are left."""
        check_out_sharding("SparseLinearGeneral", out_sharding)
        inputs, kernel, bias = self._promoted(inputs)
        axes = sorted(axis % inputs.ndim for axis in self.axis)  # as Flax: the input's order, whatever that of ``axis``
        x = jnp.moveaxis(inputs, axes, range(-len(axes), 0))
        lead = x.shape[: x.ndim - len(axes)]
        if x.shape[len(lead) :] != self.in_features:
            fail("SparseLinearGeneral", "inputs", f"shape {inputs.shape}", f"sizes {self.in_features} at {self.axis}")
        y = spmm(kernel, self.pattern, x.reshape(*lead, self.pattern.columns))
        y = y if bias is None else add_bias(y, bias.reshape(-1), layout=Layout.ROW_MAJOR)
        return y.reshape(*lead, *self.out_features)


def _as_tuple(value: int | Sequence[int]) -> tuple[int, ...]:
    return (value,) if isinstance(value, int) else tuple(value)
