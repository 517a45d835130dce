"""``SparseLinear``: ``flax.nnx.Linear`` with a kernel stored at the entries of a pattern."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn import dtypes
from flax.typing import Initializer, PrecisionLike, PromoteDtypeFn

from sparsejax._typing import ArrayLike, DTypeLike
from sparsejax.kernels import add_bias, spmm
from sparsejax.nn._layer import (
    SparseLayer,
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


class SparseLinear(SparseLayer):
    """Linear layer with a sparse kernel: ``y = x @ K + bias``, ``K`` zero outside the pattern.

    Same arguments, initial numbers and results as ``flax.nnx.Linear`` with the kernel masked by the pattern.
    The parameter ``kernel`` holds the stored entries only, and gradients and optimizer state have that size
    too.

    Args:
      in_features: size of the last axis of the input.
      out_features: size of the last axis of the output.
      pattern: SparsityPattern of shape (in_features, out_features).
      use_bias: whether to add a bias.
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
      ValueError: the pattern has another shape, or ``dtype`` is none of the three.
      TypeError: the pattern is not a SparsityPattern.

    Source: Nikdan et al. 2023 (SparseProp), section 3; signature of ``flax.nnx.Linear``.

    >>> pattern = SparsityPattern.from_mask(jnp.eye(3, dtype=bool))
    >>> layer = SparseLinear(3, 3, pattern=pattern, rngs=nnx.Rngs(0))
    >>> layer.kernel.shape, layer(jnp.ones((2, 3))).shape
    ((3,), (2, 3))
    >>> layer.pattern
    SparsityPattern(shape=(3, 3), nse=3, sparsity=0.6667)
    """

    _shown = ("in_features", "out_features", "use_bias")

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        pattern: SparsityPattern,
        use_bias: bool = True,
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
        check_pattern("SparseLinear", pattern, (in_features, out_features))
        check_dtypes("SparseLinear", dtype, param_dtype)
        self._create_parameters(
            pattern, use_bias, param_dtype, kernel_init, bias_init, rngs, kernel_metadata, bias_metadata
        )
        self.in_features = in_features
        self.out_features = out_features
        self.use_bias = use_bias
        self.dtype = dtype
        self.param_dtype = param_dtype
        self.precision = precision
        self.promote_dtype = promote_dtype

    def __call__(self, inputs: jax.Array, out_sharding: None = None) -> jax.Array:
        """Map ``float[..., in_features]`` to ``float[..., out_features]``; any leading axes."""
        check_out_sharding(type(self).__name__, out_sharding)
        bias = None if self.bias is None else self.bias[...]
        inputs, kernel, bias = self.promote_dtype((inputs, self.kernel[...], bias), dtype=self.dtype)
        y = spmm(kernel, self.pattern, inputs)
        return y if bias is None else add_bias(y, bias)

    @classmethod
    def from_dense(cls, linear: nnx.Linear, mask: ArrayLike | None = None) -> SparseLinear:
        """Convert a dense layer; values, variable types, metadata and options are kept.

        Args:
          linear: the layer to copy. It is not changed and shares no variable with the result.
          mask: bool[in_features, out_features], true stores the weight, be it zero or not. None stores the
            weights that are not zero. Weights outside the mask are dropped.

        Raises:
          ValueError: an attribute without a sparse counterpart (a ``dot_general`` hook,
            ``preferred_element_type``, sharding, a foreign attribute), a kernel stacked by vmap, an
            unsupported dtype, or a mask of another shape or dtype.
          TypeError: not an ``nnx.Linear``, or a subclass.

        >>> dense = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
        >>> SparseLinear.from_dense(dense, jnp.array([[True, False], [True, True]])).pattern.nse
        3
        """
        check_exact_type("SparseLinear.from_dense", linear, nnx.Linear)
        return cls._from_linear("SparseLinear.from_dense", linear, mask)

    @classmethod
    def _from_linear(cls, name: str, linear: nnx.Linear, mask: Any, ignored: Collection[str] = ()) -> Self:
        """Convert a linear layer; attributes of a subclass that are in ``ignored`` are the caller's to convert."""
        shape = (linear.in_features, linear.out_features)
        refused = {"dot_general": jax.lax.dot_general, "preferred_element_type": None}
        check_dense_layer(name, linear, nnx.Linear, shape, refused, ignored)
        sparse = cls(
            *shape,
            pattern=SparsityPattern.from_mask(stored_entries(name, linear.kernel[...], mask)),
            kernel_init=nnx.initializers.zeros_init(),
            rngs=nnx.Rngs(0),
            **options(linear),
        )
        sparse._take_parameters(linear)
        return sparse

    def to_dense(self) -> nnx.Linear:
        """Return the same layer as ``flax.nnx.Linear``, zeros where nothing is stored; shares no variable.

        >>> pattern = SparsityPattern.from_mask(jnp.eye(2, dtype=bool))
        >>> SparseLinear(2, 2, pattern=pattern, rngs=nnx.Rngs(0)).to_dense().kernel.shape
        (2, 2)
        """
        zeros = nnx.initializers.zeros_init()
        sizes = (self.in_features, self.out_features)
        dense = nnx.Linear(*sizes, kernel_init=zeros, rngs=nnx.Rngs(0), **options(self))
        self._give_parameters(dense)
        return dense


def options(layer: Any) -> dict[str, Any]:
    """Constructor options that the dense and the sparse layer have in common."""
    names = ("use_bias", "dtype", "param_dtype", "precision", "promote_dtype")
    return {name: getattr(layer, name) for name in names}
