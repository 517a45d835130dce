"""``SparseLinearGeneral``: ``flax.nnx.LinearGeneral`` with a kernel stored at the entries of a pattern."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn import dtypes

from sparsejax._checks import fail
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


class SparseLinearGeneral(SparseLayer):
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
      dtype: of the computation; None infers it from input and parameters. float32, float64 or bfloat16.
      param_dtype: of the parameters.
      precision: kept for ``to_dense``; the sparse kernels have one precision, that of the dtype.
      kernel_init: initializer of the flattened dense kernel, of which the stored entries are kept.
      bias_init: initializer of the flattened bias.
      promote_dtype: brings (inputs, kernel, bias) to one dtype.
      rngs: random streams; ``params`` gives the key of the kernel, then that of the bias.
      kernel_metadata: metadata of the kernel variable; no sharding.
      bias_metadata: metadata of the bias variable.

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

    _shown = ("in_features", "out_features", "axis", "use_bias")

    def __init__(
        self,
        in_features: int | Sequence[int],
        out_features: int | Sequence[int],
        *,
        pattern: SparsityPattern,
        axis: int | Sequence[int] = -1,
        use_bias: bool = True,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        precision: Any = None,
        kernel_init: Any = default_kernel_init,
        bias_init: Any = default_bias_init,
        promote_dtype: Any = dtypes.promote_dtype,
        rngs: nnx.Rngs,
        kernel_metadata: Mapping[str, Any] = _NO_METADATA,
        bias_metadata: Mapping[str, Any] = _NO_METADATA,
    ):
        self.in_features, self.out_features, self.axis = map(_as_tuple, (in_features, out_features, axis))
        if len(self.axis) != len(self.in_features):
            fail(
                "SparseLinearGeneral", "axis", f"value {self.axis}", f"{len(self.in_features)} axes, as in_features has"
            )
        check_pattern("SparseLinearGeneral", pattern, (math.prod(self.in_features), math.prod(self.out_features)))
        check_dtypes("SparseLinearGeneral", dtype, param_dtype)
        self.use_bias = use_bias
        self.dtype = dtype
        self.param_dtype = param_dtype
        self.precision = precision
        self.promote_dtype = promote_dtype
        self._create_parameters(
            pattern, use_bias, param_dtype, kernel_init, bias_init, rngs, kernel_metadata, bias_metadata
        )
        if self.bias is not None:
            self.bias.set_value(self.bias[...].reshape(self.out_features))

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        """Shape of the dense kernel, ``(*in_features, *out_features)``."""
        return (*self.in_features, *self.out_features)

    def __call__(self, inputs: jax.Array, out_sharding: None = None) -> jax.Array:
        """Contract ``axis`` of the input; the result ends in ``out_features``, after the axes that are left."""
        check_out_sharding("SparseLinearGeneral", out_sharding)
        bias = None if self.bias is None else self.bias[...]
        inputs, kernel, bias = self.promote_dtype((inputs, self.kernel[...], bias), dtype=self.dtype)
        axes = sorted(axis % inputs.ndim for axis in self.axis)  # as Flax: the input's order, whatever that of ``axis``
        x = jnp.moveaxis(inputs, axes, range(-len(axes), 0))
        lead = x.shape[: x.ndim - len(axes)]
        if x.shape[len(lead) :] != self.in_features:
            fail("SparseLinearGeneral", "inputs", f"shape {inputs.shape}", f"sizes {self.in_features} at {self.axis}")
        y = spmm(kernel, self.pattern, x.reshape(*lead, self.pattern.columns))
        y = y if bias is None else add_bias(y, bias.reshape(-1))
        return y.reshape(*lead, *self.out_features)

    @classmethod
    def from_dense(cls, dense: nnx.LinearGeneral, mask: Any = None) -> SparseLinearGeneral:
        """Convert a dense layer; values, variable types, metadata and options are kept.

        Args:
          dense: the layer to copy. It is not changed and shares no variable with the result.
          mask: bool array of the kernel's shape, true stores the weight, be it zero or not. None stores the
            weights that are not zero. Weights outside the mask are dropped.

        Raises:
          ValueError: batch axes (each has a kernel of its own, which one pattern does not describe), an attribute
            without a sparse counterpart (a ``dot_general`` hook, ``preferred_element_type``, sharding, a foreign
            attribute), a kernel stacked by vmap, an unsupported dtype, or a mask of another shape or dtype.
          TypeError: not an ``nnx.LinearGeneral``, or a subclass.

        >>> dense = nnx.LinearGeneral(2, (2, 3), rngs=nnx.Rngs(0))
        >>> SparseLinearGeneral.from_dense(dense, jnp.zeros((2, 2, 3), bool).at[0].set(True)).pattern.nse
        6
        """
        name = "SparseLinearGeneral.from_dense"
        check_exact_type(name, dense, nnx.LinearGeneral)
        if dense.batch_axis:
            got = f"value {dict(dense.batch_axis)}"
            fail(name, "batch_axis", got, "none; a kernel for each batch index has no sparse form")
        shape = (*dense.in_features, *dense.out_features)
        refused = {"dot_general": None, "dot_general_cls": None, "preferred_element_type": None}
        check_dense_layer(name, dense, nnx.LinearGeneral, shape, refused)
        matrix = (math.prod(dense.in_features), math.prod(dense.out_features))
        keep = stored_entries(name, dense.kernel[...], mask).reshape(matrix)
        sparse = cls(
            pattern=SparsityPattern.from_mask(keep),
            kernel_init=nnx.initializers.zeros_init(),
            rngs=nnx.Rngs(0),
            **_options(dense),
        )
        sparse._take_parameters(dense)
        return sparse

    def to_dense(self) -> nnx.LinearGeneral:
        """The same layer as ``flax.nnx.LinearGeneral``, zeros where nothing is stored; shares no variable.

        >>> pattern = SparsityPattern.from_mask(jnp.eye(2, dtype=bool))
        >>> SparseLinearGeneral(2, (1, 2), pattern=pattern, rngs=nnx.Rngs(0)).to_dense().kernel.shape
        (2, 1, 2)
        """
        dense = nnx.LinearGeneral(kernel_init=nnx.initializers.zeros_init(), rngs=nnx.Rngs(0), **_options(self))
        self._give_parameters(dense)
        return dense


def _as_tuple(value: int | Sequence[int]) -> tuple[int, ...]:
    return (value,) if isinstance(value, int) else tuple(value)


def _options(layer: Any) -> dict[str, Any]:
    """Constructor options that the dense and the sparse layer have in common."""
    sizes = ("in_features", "out_features", "axis")
    names = (*sizes, "use_bias", "dtype", "param_dtype", "precision", "promote_dtype")
    return {name: getattr(layer, name) for name in names}
