"""Static shape of a window reduction."""

from __future__ import annotations

import dataclasses

import numpy as np

from sparsejax.kernels._conv_shapes import Pairs


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
        """The handlers' ``geometry`` attribute: in, out, window, stride, low padding of two axes."""
        axes = [
            (n, out, w, s, low)
            for n, out, w, s, (low, _) in zip(
                self.in_spatial, self.out_spatial, self.window, self.strides, self.padding, strict=True
            )
        ]
        return np.array(sum([(1, 1, 1, 1, 0)] * (2 - len(axes)) + axes, ()), np.int64)
