"""Padding, stride and dilation arithmetic of convolutions and poolings; pure Python integers, tested alone."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NoReturn, TypeAlias

import numpy as np
from jax import lax

from sparsejax._checks import fail

Pairs: TypeAlias = tuple[tuple[int, int], ...]
PaddingLike: TypeAlias = str | int | Sequence[int | tuple[int, int]]
"""Padding as Flax takes it: a name, an integer for both sides of every axis, or one entry per axis."""
PerAxis: TypeAlias = int | Sequence[int] | None
"""One integer for every spatial axis, one for each, or None for ones."""

_INTEGERS: tuple[type[Any], ...] = (int, np.integer)
PADDING_NAMES = ("SAME", "VALID", "CIRCULAR", "CAUSAL")


@dataclasses.dataclass(frozen=True)
class ConvGeometry:
    """Everything static about one convolution; hashable, the parameter of the convolution primitives.

    Attributes:
      in_spatial, in_features: of the input, ``(batch, *in_spatial, in_features)``.
      out_features: of the output.
      window: kernel size; the kernel has shape ``(*window, in_features // groups, out_features)``.
      strides, input_dilation, kernel_dilation: one per spatial axis, 1 or more.
      padding: (low, high) per spatial axis, around the dilated input.
      groups: feature groups.
    """

    in_spatial: tuple[int, ...]
    in_features: int
    out_features: int
    window: tuple[int, ...]
    strides: tuple[int, ...]
    padding: Pairs
    input_dilation: tuple[int, ...]
    kernel_dilation: tuple[int, ...]
    groups: int

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        """Flax kernel shape, ``(*window, in_features // groups, out_features)``."""
        return (*self.window, self.in_features // self.groups, self.out_features)

    @property
    def columns(self) -> int:
        """Kernel positions of one output feature."""
        return math.prod(self.kernel_shape[:-1])

    @property
    def out_spatial(self) -> tuple[int, ...]:
        """``floor((dilated input + padding - dilated window) / stride) + 1``, or 0 where the window does not fit."""
        return tuple(
            max(0, (dilate(n, d) + low + high - dilate(w, kd)) // s + 1)
            for n, d, (low, high), w, kd, s in zip(
                self.in_spatial,
                self.input_dilation,
                self.padding,
                self.window,
                self.kernel_dilation,
                self.strides,
                strict=True,
            )
        )

    def attribute(self) -> np.ndarray:
        """Return the handlers' ``geometry`` attribute: groups, in and out features, seven numbers per spatial axis.

        A one-axis convolution is handed over as a two-axis one of height 1.
        """
        axes = [
            (n, out, w, s, low, d, kd)
            for n, out, w, s, (low, _), d, kd in zip(
                self.in_spatial,
                self.out_spatial,
                self.window,
                self.strides,
                self.padding,
                self.input_dilation,
                self.kernel_dilation,
                strict=True,
            )
        ]
        axes = [(1, 1, 1, 1, 0, 1, 1)] * (2 - len(axes)) + axes
        return np.array([self.groups, self.in_features, self.out_features, *sum(axes, ())], np.int64)


@dataclasses.dataclass(frozen=True)
class PoolGeometry:
    """One or two spatial axes: input sizes, window, strides and (low, high) padding; hashable."""

    in_spatial: tuple[int, ...]
    window: tuple[int, ...]
    strides: tuple[int, ...]
    padding: Pairs

    @property
    def out_spatial(self) -> tuple[int, ...]:
        """``floor((input + padding - window) / stride) + 1``, or 0 where the window does not fit."""
        sizes = zip(self.in_spatial, self.window, self.strides, self.padding, strict=True)
        return tuple(max(0, (n + low + high - w) // s + 1) for n, w, s, (low, high) in sizes)

    def attribute(self) -> np.ndarray:
        """Return the handlers' ``geometry`` attribute: in, out, window, stride, low padding of two axes."""
        axes = [
            (n, out, w, s, low)
            for n, out, w, s, (low, _) in zip(
                self.in_spatial, self.out_spatial, self.window, self.strides, self.padding, strict=True
            )
        ]
        return np.array(sum([(1, 1, 1, 1, 0)] * (2 - len(axes)) + axes, ()), np.int64)


def dilate(size: int, dilation: int) -> int:
    """Return the length of ``size`` elements with ``dilation - 1`` gaps between neighbours; 0 stays 0."""
    return (size - 1) * dilation + 1 if size > 0 else 0


def per_axis(function: str, operand: str, value: PerAxis, rank: int) -> tuple[int, ...]:
    """Return one positive integer per spatial axis from an integer, a sequence or None (all ones)."""
    raw: Any = 1 if value is None else value
    values: tuple[Any, ...] = (raw,) * rank if isinstance(raw, _INTEGERS) else tuple(raw)
    if len(values) != rank or any(not isinstance(v, _INTEGERS) or v < 1 for v in values):
        fail(function, operand, f"value {value!r}", f"a positive integer, or {rank} of them")
    return tuple(int(v) for v in values)


def resolve_padding(
    function: str,
    padding: PaddingLike,
    in_spatial: tuple[int, ...],
    window: tuple[int, ...],
    strides: tuple[int, ...],
    input_dilation: tuple[int, ...],
    kernel_dilation: tuple[int, ...],
) -> Pairs:
    """Return the (low, high) pairs of a padding that is a name, one number, numbers or pairs.

    For CIRCULAR these are the amounts of wrapped input on each side (as in Flax); the caller wraps.
    """
    rank = len(window)
    dilated = tuple(dilate(w, d) for w, d in zip(window, kernel_dilation, strict=True))
    if isinstance(padding, str):
        if padding == "VALID":
            return ((0, 0),) * rank
        if padding == "SAME":
            full = tuple(dilate(n, d) for n, d in zip(in_spatial, input_dilation, strict=True))
            return tuple((int(a), int(b)) for a, b in lax.padtype_to_pads(full, dilated, strides, "SAME"))
        if padding == "CIRCULAR":
            return tuple(((d - 1) // 2, d // 2) for d in dilated)
        if padding == "CAUSAL":
            if rank != 1:
                fail(function, "padding", f"value 'CAUSAL' with {rank} spatial axes", "one spatial axis")
            return ((dilated[0] - 1, 0),)
        _bad_padding(function, padding, rank)
    entries: Any = padding
    if isinstance(entries, _INTEGERS):
        return ((int(entries), int(entries)),) * rank
    if not isinstance(entries, Sequence) or len(entries) != rank:
        _bad_padding(function, padding, rank)
    if any(not isinstance(p, (*_INTEGERS, Sequence)) for p in entries):
        _bad_padding(function, padding, rank)
    pairs: tuple[tuple[Any, ...], ...] = tuple((p, p) if isinstance(p, _INTEGERS) else tuple(p) for p in entries)
    if any(len(p) != 2 or any(not isinstance(v, _INTEGERS) for v in p) for p in pairs):
        _bad_padding(function, padding, rank)
    return tuple((int(low), int(high)) for low, high in pairs)


def _bad_padding(function: str, padding: Any, rank: int) -> NoReturn:
    names = ", ".join(PADDING_NAMES)
    fail(function, "padding", f"value {padding!r}", f"{names}, an integer, or {rank} integers or (low, high) pairs")
