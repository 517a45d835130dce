"""``SparseEinsum``: ``flax.nnx.Einsum`` with a kernel stored at the entries of a pattern."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Unpack

import jax
import numpy as np
from flax import nnx

from sparsejax._checks import fail
from sparsejax.kernels import Layout, add_bias, spmm
from sparsejax.nn._layer import LayerOptions, SparseLayer
from sparsejax.nn._layer_checks import check_out_sharding
from sparsejax.pattern import SparsityPattern


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


class SparseEinsum(SparseLayer[nnx.Einsum]):
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

    Attributes:
      kernel: nnx.Param, float[nse].
      bias: nnx.Param, float[*bias_shape], or None.
      pattern: the SparsityPattern, value of the variable ``topology``.

    Raises:
      ValueError: an einsum string of another form, or a pattern of another shape.
      TypeError: the pattern is not a SparsityPattern.

    Source: signature of ``flax.nnx.Einsum``.

    >>> import jax.numpy as jnp
    >>> pattern = SparsityPattern.from_mask(jnp.ones((3, 8), bool).at[:, 0].set(False))
    >>> layer = SparseEinsum("bti,ihd->bhtd", (3, 2, 4), pattern=pattern, rngs=nnx.Rngs(0))
    >>> layer.kernel.shape, layer(jnp.ones((5, 7, 3))).shape
    ((21,), (5, 2, 7, 4))
    """

    dense_class = nnx.Einsum
    _shown = ("einsum_str", "kernel_shape", "bias_shape")

    def __init__(
        self,
        einsum_str: str,
        kernel_shape: Sequence[int],
        bias_shape: Sequence[int] | None = None,
        *,
        pattern: SparsityPattern,
        **options: Unpack[LayerOptions],
    ):
        self.einsum_str = einsum_str.replace(" ", "")
        self.dense_shape = tuple(kernel_shape)
        self.bias_shape = None if bias_shape is None else tuple(bias_shape)
        super().__init__(pattern=pattern, bias_shape=self.bias_shape, **options)

    @staticmethod
    def _check_options(function: str, layer: Any) -> None:
        parse(function, layer.einsum_str, len(SparseEinsum._dense_shape(layer)))

    @staticmethod
    def _dense_shape(layer: Any) -> tuple[int, ...]:
        return layer.dense_shape if isinstance(layer, SparseEinsum) else tuple(layer.kernel_shape)

    @staticmethod
    def _to_matrix(layer: Any, kernel: Any) -> Any:
        form = _contraction(layer)
        return kernel.transpose(form.kernel_axes).reshape(form.matrix_shape(layer.kernel_shape))

    @staticmethod
    def _from_matrix(layer: Any, matrix: Any) -> Any:
        axes = _contraction(layer).kernel_axes
        return matrix.reshape([layer.kernel_shape[axis] for axis in axes]).transpose(np.argsort(axes))

    def __call__(self, inputs: jax.Array, einsum_str: str | None = None, out_sharding: None = None) -> jax.Array:
        """Contract the input with the kernel; the string is that of the constructor."""
        check_out_sharding("SparseEinsum", out_sharding)
        if einsum_str is not None:
            fail("SparseEinsum", "einsum_str", f"value {einsum_str!r}", "none; the constructor has it")
        inputs, kernel, bias = self._promoted(inputs)
        form = _contraction(self)
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
            y = add_bias(y, bias.reshape(-1), layout=Layout.ROW_MAJOR)
        y = y.reshape(*lead, *(sizes[label] for label in form.free))
        return y.transpose(_result_axes(form, [left[axis] for axis in rest]))


def _contraction(layer: Any) -> Contraction:
    return parse("SparseEinsum", layer.einsum_str, len(layer.kernel_shape))


def _result_axes(form: Contraction, rest: list[str]) -> list[int]:
    """Where the result's axes lie in (axes of the input that are left, free axes of the kernel)."""
    labels = [*rest, *form.free]
    unnamed = [axis for axis, label in enumerate(labels) if label == "."]
    axes: list[int] = []
    for label in form.result:
        axes += unnamed if label == "." else [labels.index(label)]
    return axes
