"""Structures: which shapes the set of kept weights may take."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from sparsejax._checks import check_integer, fail

Shape = tuple[int, ...]


class Grid(NamedTuple):
    """How a structure cuts up one leaf: ``groups * units * size`` weights.

    Attributes:
      groups: parts that keep equally many units each.
      units: parts of a group that are kept or pruned as a whole.
      size: weights in a unit.
    """

    groups: int
    units: int
    size: int


class Structure(Protocol):
    """The interface of a structure: it sees the weights of a leaf as units in groups, and goes back."""

    @property
    def fixed(self) -> int | None:
        """Units kept in each group, if the structure leaves no choice."""
        ...

    def grid(self, name: str, shape: Shape) -> Grid:
        """Cut up a leaf of this shape; raises ValueError with the leaf's path if it cannot be."""
        ...

    def to_units(self, scores: jax.Array) -> jax.Array:
        """Add up the scores of each unit: array of the leaf's shape -> array[groups, units]."""
        ...

    def to_mask(self, marks: jax.Array, shape: Shape) -> jax.Array:
        """Mark the weights of marked units: bool[groups, units] -> bool array of the leaf's shape."""
        ...


def _require(structure: str, name: str, shape: Shape, fits: bool, rule: str) -> None:
    if not fits:
        fail(structure, f"leaf {name!r}", f"shape {shape}", rule, "Leave it out with where=... & ~path(...).")


@dataclass(frozen=True)
class Unstructured:
    """Single weights; built by ``unstructured``."""

    fixed: None = None

    def grid(self, name: str, shape: Shape) -> Grid:
        """One group of single weights."""
        return Grid(1, math.prod(shape), 1)

    def to_units(self, scores: jax.Array) -> jax.Array:
        """Flatten."""
        return scores.reshape(1, -1)

    def to_mask(self, marks: jax.Array, shape: Shape) -> jax.Array:
        """Restore the shape."""
        return marks.reshape(shape)


@dataclass(frozen=True)
class RowBalanced:
    """Equally many weights for each output unit; built by ``row_balanced``."""

    fixed: None = None

    def grid(self, name: str, shape: Shape) -> Grid:
        """A group for each output unit."""
        _require("row_balanced", name, shape, len(shape) >= 2, "at least two axes, the last one the outputs")
        return Grid(shape[-1], math.prod(shape[:-1]), 1)

    def to_units(self, scores: jax.Array) -> jax.Array:
        """Array[..., out] -> array[out, fan-in]."""
        return scores.reshape(-1, scores.shape[-1]).T

    def to_mask(self, marks: jax.Array, shape: Shape) -> jax.Array:
        """bool[out, fan-in] -> bool[..., out]."""
        return marks.T.reshape(shape)


@dataclass(frozen=True)
class NofM:
    """``n`` of every ``m`` weights along the reduction axis; built by ``n_of_m``."""

    n: int
    m: int

    @property
    def fixed(self) -> int:
        """Units kept in each group."""
        return self.n

    def grid(self, name: str, shape: Shape) -> Grid:
        """Groups of ``m`` neighbours along the input axis."""
        rule = f"an input axis (the last but one) that {self.m} divides"
        _require("n_of_m", name, shape, len(shape) >= 2 and shape[-2] % self.m == 0, rule)
        return Grid(math.prod(shape) // self.m, self.m, 1)

    def to_units(self, scores: jax.Array) -> jax.Array:
        """Array[..., in, out] -> array[groups, m]."""
        return jnp.swapaxes(scores, -1, -2).reshape(-1, self.m)

    def to_mask(self, marks: jax.Array, shape: Shape) -> jax.Array:
        """bool[groups, m] -> bool[..., in, out]."""
        return jnp.swapaxes(marks.reshape(*shape[:-2], shape[-1], shape[-2]), -1, -2)


@dataclass(frozen=True)
class Block:
    """Blocks of the kernel seen as a matrix; built by ``block``."""

    rows: int
    columns: int
    fixed: None = None

    def grid(self, name: str, shape: Shape) -> Grid:
        """One group of blocks."""
        inputs, outputs = math.prod(shape[:-1]), shape[-1]
        rule = f"a matrix view ({inputs}, {outputs}) that blocks of {self.rows} x {self.columns} tile"
        fits = len(shape) >= 2 and inputs % self.rows == 0 and outputs % self.columns == 0
        _require("block", name, shape, fits, rule)
        return Grid(1, inputs * outputs // (self.rows * self.columns), self.rows * self.columns)

    def to_units(self, scores: jax.Array) -> jax.Array:
        """Array[..., out] -> sums of blocks, array[1, blocks]."""
        inputs, outputs = math.prod(scores.shape[:-1]), scores.shape[-1]
        tiles = scores.reshape(inputs // self.rows, self.rows, outputs // self.columns, self.columns)
        return tiles.sum((1, 3)).reshape(1, -1)

    def to_mask(self, marks: jax.Array, shape: Shape) -> jax.Array:
        """bool[1, blocks] -> bool[..., out]."""
        tiles = marks.reshape(-1, shape[-1] // self.columns)
        return jnp.repeat(jnp.repeat(tiles, self.rows, 0), self.columns, 1).reshape(shape)


@dataclass(frozen=True)
class Channel:
    """Slices along one axis; built by ``channel``."""

    axis: int
    fixed: None = None

    def grid(self, name: str, shape: Shape) -> Grid:
        """One group of slices."""
        fits = -len(shape) <= self.axis < len(shape)
        _require("channel", name, shape, fits, f"an axis {self.axis}")
        return Grid(1, shape[self.axis], math.prod(shape) // shape[self.axis])

    def to_units(self, scores: jax.Array) -> jax.Array:
        """Sums of slices, array[1, channels]."""
        axis = self.axis % scores.ndim
        return scores.sum(tuple(i for i in range(scores.ndim) if i != axis)).reshape(1, -1)

    def to_mask(self, marks: jax.Array, shape: Shape) -> jax.Array:
        """bool[1, channels] -> bool array of the leaf's shape."""
        axis = self.axis % len(shape)
        return jnp.broadcast_to(marks.reshape([-1 if i == axis else 1 for i in range(len(shape))]), shape)


def _check_sizes(function: str, **sizes: int) -> None:
    for operand, value in sizes.items():
        check_integer(function, operand, value)


def unstructured() -> Unstructured:
    """Prune single weights, anywhere.

    mask = top-k of the scores, ties by flat index

    Returns:
      Structure.

    Source: Han et al. 2015, "Learning both weights and connections for efficient neural networks".

    >>> unstructured().grid("kernel", (3, 2))
    Grid(groups=1, units=6, size=1)
    """
    return Unstructured()


def row_balanced() -> RowBalanced:
    """Keep equally many weights for each output unit (constant fan-in).

    mask[:, o] = top-k of scores[:, o], the same k for every output o of a layer; ties by flat index of the inputs

    The last axis of a leaf is its outputs. The most regular of the unstructured layouts for a CPU kernel.

    Returns:
      Structure.

    Source: Lasby et al. 2023, "Dynamic sparse training with structured sparsity" (SRigL), section 3; the comparison
      group of Sun et al. 2023 (Wanda).

    >>> row_balanced().grid("kernel", (3, 3, 4, 8))
    Grid(groups=8, units=36, size=1)
    """
    return RowBalanced()


def n_of_m(n: int, m: int) -> NofM:
    """Keep the ``n`` largest of every ``m`` neighbouring weights along the reduction axis.

    Groups run along the last axis but one: the inputs of a ``(in, out)`` kernel, the input channels of a
    ``(*window, in, out)`` kernel; that is what 2:4 hardware reads. The sparsity is 1 - n/m and nothing else.

    Args:
      n: weights kept in a group, at least 1, at most ``m``.
      m: weights in a group; it must divide the input axis of every pruned leaf.

    Returns:
      Structure.

    Raises:
      ValueError: numbers out of range; when the optimizer state is made, a leaf that ``m`` does not divide.

    Source: Mishra et al. 2021, "Accelerating sparse deep neural networks" (2:4).

    >>> n_of_m(2, 4).grid("kernel", (8, 3))
    Grid(groups=6, units=4, size=1)
    """
    _check_sizes("n_of_m", n=n, m=m)
    if n > m:
        fail("n_of_m", "n", f"value {n}", f"at most m = {m}")
    return NofM(n, m)


def block(rows: int, columns: int) -> Block:
    """Keep or prune whole blocks of the kernel seen as a matrix.

    The matrix is ``(window * in, out)``; the score of a block is the sum of its weights' scores.

    Args:
      rows: inputs in a block.
      columns: outputs in a block.

    Returns:
      Structure.

    Raises:
      ValueError: sizes below 1; when the optimizer state is made, a leaf that blocks do not tile.

    Source: Gray et al. 2017, "GPU kernels for block-sparse weights".

    >>> block(4, 2).grid("kernel", (8, 6))
    Grid(groups=1, units=6, size=8)
    """
    _check_sizes("block", rows=rows, columns=columns)
    return Block(rows, columns)


def channel(axis: int = -1) -> Channel:
    """Keep or prune whole slices along one axis; the score of a slice is the sum of its weights' scores.

    Args:
      axis: -1 are output channels or neurons, -2 input channels.

    Returns:
      Structure.

    Raises:
      ValueError: when the optimizer state is made, a leaf without that axis.

    Source: Li et al. 2017, "Pruning filters for efficient ConvNets", section 3 (L1 norm of filters).

    >>> channel().grid("kernel", (3, 3, 4, 8))
    Grid(groups=1, units=8, size=36)
    """
    return Channel(axis)
