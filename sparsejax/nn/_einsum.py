"""``SparseEinsum``: ``flax.nnx.Einsum`` with a kernel stored at the entries of a pattern."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
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


@dataclasses.dataclass(frozen=True)
class Contraction:
    """An einsum of an input with a kernel, as one matrix product between permutations of axes.

    Attributes:
      inputs, kernel, result: labels of the axes; the input's and the result's "..." is the character ".".
      contracted: labels that input and kernel share, in the kernel's order.
      free: labels of the kernel that the result has.
    """

    inputs: str
    kernel: str
    result: str
    contracted: str
    free: str

    @property
    def kernel_axes(self) -> tuple[int, ...]:
        """Permutation that brings the kernel's contracted axes to the front."""
        return tuple(self.kernel.index(label) for label in self.contracted + self.free)

    def matrix_shape(self, kernel_shape: Sequence[int]) -> tuple[int, int]:
        """Shape of the kernel as a matrix, (contracted, free)."""
        sizes = dict(zip(self.kernel, kernel_shape, strict=True))
        return math.prod(sizes[label] for label in self.contracted), math.prod(sizes[label] for label in self.free)


def parse(function: str, einsum_str: str, rank: int) -> Contraction:
    """Read an einsum string that contracts axes of the input with a kernel of ``rank`` axes.

    Raises:
      ValueError: another form: a repeated label, a label that input, kernel and result share (a batch of kernels), one
        that is summed in one operand alone, or an ellipsis in the kernel.

    >>> parse("f", "...ij,ijhd->...hd", 4).contracted
    'ij'
    """
    operands, result = einsum_str.replace(" ", "").replace("...", ".").split("->")
    inputs, kernel = operands.split(",")
    contracted = "".join(label for label in kernel if label in inputs)
    free = "".join(label for label in kernel if label not in inputs)
    kept = [label for label in inputs if label not in contracted]
    plain = (
        len(kernel) == rank
        and "." not in kernel
        and all(len(set(labels)) == len(labels) for labels in (inputs, kernel, result))
        and sorted(result) == sorted([*kept, *free])
        and contracted != ""
    )
    if not plain:
        rule = "a contraction of input axes with a kernel, such as '...i,io->...o'; other forms stay dense"
        fail(function, "einsum_str", f"value {einsum_str!r}", rule)
    return Contraction(inputs, kernel, result, contracted, free)


class SparseEinsum(SparseLayer):
    """Einsum of an input with a sparse kernel: ``y = einsum(einsum_str, x, K) + bias``, ``K`` zero outside the pattern.

    Same arguments, initial numbers and results as ``flax.nnx.Einsum`` with the kernel masked by the pattern, for
    einsum strings that contract axes of the input with the kernel. The kernel is stored as a matrix whose first axis is
    the contracted axes, flattened, and whose second is the others, each in the kernel's order.

    Args:
      einsum_str: two operands and an explicit result, such as ``"...i,ihd->...hd"``. No label may stand in input,
        kernel and result at once.
      kernel_shape: shape of the dense kernel.
      bias_shape: shape of the bias, whose axes are those that the result has from the kernel, in the result's order;
        None for no bias.
      pattern: SparsityPattern of shape (product of contracted sizes, product of free sizes).
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
      bias: nnx.Param, float[*bias_shape], or None.
      pattern: the SparsityPattern, value of the variable ``topology``.

    Raises:
      ValueError: an einsum string of another form, or a pattern of another shape.
      TypeError: the pattern is not a SparsityPattern.

    Source: signature of ``flax.nnx.Einsum``.

    >>> pattern = SparsityPattern.from_mask(jnp.ones((3, 8), bool).at[:, 0].set(False))
    >>> layer = SparseEinsum("bti,ihd->bhtd", (3, 2, 4), pattern=pattern, rngs=nnx.Rngs(0))
    >>> layer.kernel.shape, layer(jnp.ones((5, 7, 3))).shape
    ((21,), (5, 2, 7, 4))
    """

    _shown = ("einsum_str", "kernel_shape", "bias_shape")

    def __init__(
        self,
        einsum_str: str,
        kernel_shape: Sequence[int],
        bias_shape: Sequence[int] | None = None,
        *,
        pattern: SparsityPattern,
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
        self.einsum_str = einsum_str.replace(" ", "")
        self.dense_shape = tuple(kernel_shape)
        self.bias_shape = None if bias_shape is None else tuple(bias_shape)
        self.contraction = parse("SparseEinsum", einsum_str, len(self.dense_shape))
        check_pattern("SparseEinsum", pattern, self.contraction.matrix_shape(self.dense_shape))
        check_dtypes("SparseEinsum", dtype, param_dtype)
        self.dtype = dtype
        self.param_dtype = param_dtype
        self.precision = precision
        self.promote_dtype = promote_dtype

        def matrix_init(key: jax.Array, _: Any, dtype: Any) -> jax.Array:
            return self._to_matrix(kernel_init(key, self.dense_shape, dtype))

        def shaped_bias_init(key: jax.Array, _: Any, dtype: Any) -> jax.Array:
            return bias_init(key, self.bias_shape, dtype)

        self._create_parameters(
            pattern,
            self.bias_shape is not None,
            param_dtype,
            matrix_init,
            shaped_bias_init,
            rngs,
            kernel_metadata,
            bias_metadata,
        )

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        """Shape of the dense kernel."""
        return self.dense_shape

    def _to_matrix(self, kernel: Any) -> Any:
        """Permute a dense kernel to the matrix that the pattern describes."""
        return kernel.transpose(self.contraction.kernel_axes).reshape(self.contraction.matrix_shape(self.dense_shape))

    def _from_matrix(self, matrix: Any) -> Any:
        """Return the dense kernel of a matrix; the inverse of ``_to_matrix``."""
        axes = self.contraction.kernel_axes
        return matrix.reshape([self.dense_shape[axis] for axis in axes]).transpose(np.argsort(axes))

    def __call__(self, inputs: jax.Array, einsum_str: str | None = None, out_sharding: None = None) -> jax.Array:
        """Contract the input with the kernel; the string is that of the constructor."""
        check_out_sharding("SparseEinsum", out_sharding)
        if einsum_str is not None:
            fail("SparseEinsum", "einsum_str", f"value {einsum_str!r}", "none; the constructor has it")
        bias = None if self.bias is None else self.bias[...]
        inputs, kernel, bias = self.promote_dtype((inputs, self.kernel[...], bias), dtype=self.dtype)
        form = self.contraction
        left = (
            form.inputs.replace(".", "." * (inputs.ndim - len(form.inputs) + 1)) if "." in form.inputs else form.inputs
        )
        if len(left) != inputs.ndim:
            fail("SparseEinsum", "inputs", f"shape {inputs.shape}", f"axes as in {self.einsum_str!r}")
        contracted = [left.index(label) for label in form.contracted]
        rest = [axis for axis in range(inputs.ndim) if axis not in contracted]
        x = inputs.transpose(*rest, *contracted)
        lead = x.shape[: len(rest)]
        y = spmm(kernel, self.pattern, x.reshape(*lead, self.pattern.columns))
        sizes = dict(zip(form.kernel, self.dense_shape, strict=True))
        if bias is not None:
            order = [label for label in form.result if label in sizes]
            bias = bias.reshape([sizes[label] for label in order]).transpose(
                [order.index(label) for label in form.free]
            )
            y = add_bias(y, bias.reshape(-1))
        y = y.reshape(*lead, *(sizes[label] for label in form.free))
        return y.transpose(_result_axes(form, [left[axis] for axis in rest]))

    @classmethod
    def from_dense(cls, dense: nnx.Einsum, mask: Any = None) -> SparseEinsum:
        """Convert a dense layer; values, variable types, metadata and options are kept.

        Args:
          dense: the layer to copy. It is not changed and shares no variable with the result.
          mask: bool array of the kernel's shape, true stores the weight, be it zero or not. None stores the
            weights that are not zero. Weights outside the mask are dropped.

        Raises:
          ValueError: an einsum string that is no contraction of input axes with the kernel, an attribute without a
            sparse counterpart (an ``einsum_op`` hook, ``preferred_element_type``, sharding, a foreign attribute), an
            unsupported dtype, or a mask of another shape or dtype.
          TypeError: not an ``nnx.Einsum``, or a subclass.

        >>> dense = nnx.Einsum("...i,io->...o", (2, 3), (3,), rngs=nnx.Rngs(0))
        >>> SparseEinsum.from_dense(dense, jnp.zeros((2, 3), bool).at[0].set(True)).pattern.nse
        3
        """
        name = "SparseEinsum.from_dense"
        check_exact_type(name, dense, nnx.Einsum)
        form = parse(name, dense.einsum_str, len(dense.kernel_shape))
        refused = {"einsum_op": jnp.einsum, "preferred_element_type": None}
        check_dense_layer(name, dense, nnx.Einsum, tuple(dense.kernel_shape), refused)
        keep = stored_entries(name, dense.kernel[...], mask).transpose(form.kernel_axes)
        sparse = cls(
            pattern=SparsityPattern.from_mask(keep.reshape(form.matrix_shape(dense.kernel_shape))),
            kernel_init=nnx.initializers.zeros_init(),
            rngs=nnx.Rngs(0),
            **_options(dense),
        )
        sparse._take_parameters(dense)
        return sparse

    def to_dense(self) -> nnx.Einsum:
        """The same layer as ``flax.nnx.Einsum``, zeros where nothing is stored; shares no variable.

        >>> pattern = SparsityPattern.from_mask(jnp.eye(2, dtype=bool))
        >>> SparseEinsum("bi,io->bo", (2, 2), pattern=pattern, rngs=nnx.Rngs(0)).to_dense().kernel.shape
        (2, 2)
        """
        dense = nnx.Einsum(kernel_init=nnx.initializers.zeros_init(), rngs=nnx.Rngs(0), **_options(self))
        self._give_parameters(dense)
        return dense


def _result_axes(form: Contraction, rest: list[str]) -> list[int]:
    """Where the result's axes lie in (axes of the input that are left, free axes of the kernel)."""
    labels = [*rest, *form.free]
    unnamed = [axis for axis, label in enumerate(labels) if label == "."]
    axes: list[int] = []
    for label in form.result:
        axes += unnamed if label == "." else [labels.index(label)]
    return axes


def _options(layer: Any) -> dict[str, Any]:
    """Constructor options that the dense and the sparse layer have in common."""
    names = ("einsum_str", "kernel_shape", "bias_shape", "dtype", "param_dtype", "precision", "promote_dtype")
    return {name: getattr(layer, name) for name in names}
