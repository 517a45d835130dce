"""``SparseLinear``: ``flax.nnx.Linear`` with a kernel stored at the entries of a pattern."""

from __future__ import annotations

from typing import Any, Unpack

import jax
from flax import nnx

from sparsejax.kernels import Layout, add_bias, spmm
from sparsejax.nn._layer import LayerOptions, SparseLayer
from sparsejax.nn._layer_checks import check_out_sharding
from sparsejax.pattern import SparsityPattern


class SparseLinear(SparseLayer[nnx.Linear]):
    """Linear layer with a sparse kernel: ``y = x @ K + bias``, ``K`` zero outside the pattern.

    Same arguments, initial numbers and results as ``flax.nnx.Linear`` with the kernel masked by the pattern.
    The parameter ``kernel`` holds the stored entries only, and gradients and optimizer state have that size
    too.

    Args:
      in_features: size of the last axis of the input.
      out_features: size of the last axis of the output.
      pattern: SparsityPattern of shape (in_features, out_features).
      use_bias: whether to add a bias.

    Attributes:
      kernel: nnx.Param, float[nse].
      bias: nnx.Param, float[out_features], or None.
      pattern: the SparsityPattern, value of the variable ``topology``.

    Raises:
      ValueError: the pattern has another shape, or ``dtype`` is none of the three.
      TypeError: the pattern is not a SparsityPattern.

    Source: Nikdan et al. 2023 (SparseProp), section 3; signature of ``flax.nnx.Linear``.

    >>> import jax.numpy as jnp
    >>> pattern = SparsityPattern.from_mask(jnp.eye(3, dtype=bool))
    >>> layer = SparseLinear(3, 3, pattern=pattern, rngs=nnx.Rngs(0))
    >>> layer.kernel.shape, layer(jnp.ones((2, 3))).shape
    ((3,), (2, 3))
    >>> layer.pattern
    SparsityPattern(shape=(3, 3), nse=3, sparsity=0.6667)
    """

    dense_class = nnx.Linear
    _shown = ("in_features", "out_features", "use_bias")

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        pattern: SparsityPattern,
        use_bias: bool = True,
        **options: Unpack[LayerOptions],
    ):
        self.in_features = in_features
        self.out_features = out_features
        self.use_bias = use_bias
        super().__init__(pattern=pattern, bias_shape=(out_features,) if use_bias else None, **options)

    @staticmethod
    def _dense_shape(layer: Any) -> tuple[int, ...]:
        return layer.in_features, layer.out_features

    def __call__(self, inputs: jax.Array, out_sharding: None = None) -> jax.Array:
        """Map ``float[..., in_features]`` to ``float[..., out_features]``; any leading axes."""
        check_out_sharding(type(self).__name__, out_sharding)
        inputs, kernel, bias = self._promoted(inputs)
        y = spmm(kernel, self.pattern, inputs)
        return y if bias is None else add_bias(y, bias, layout=Layout.ROW_MAJOR)
