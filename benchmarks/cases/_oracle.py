"""What a layer computes, in float64 and by dense arithmetic: the reference of every implementation."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from ._shapes import Shape

Slices = tuple[slice, ...]


def taps(shape: Shape) -> Iterator[tuple[tuple[int, ...], Slices, Slices]]:
    """For each window position: its index, and which outputs meet which inputs there, padding clipped away."""
    per_axis = []
    for (size, window, pad), out in zip(shape.axes, shape.out_spatial, strict=True):
        positions = []
        for tap in range(window):
            first = max(0, -(-(pad - tap) // shape.stride))
            last = min(out - 1, (size - 1 + pad - tap) // shape.stride)
            start = first * shape.stride - pad + tap
            count = max(0, last - first + 1)
            reads = slice(start, start + (count - 1) * shape.stride + 1, shape.stride) if count else slice(0, 0)
            positions.append((tap, slice(first, first + count), reads))
        per_axis.append(positions)
    for combination in itertools.product(*per_axis):
        yield (
            tuple(tap for tap, _, _ in combination),
            tuple(outputs for _, outputs, _ in combination),
            tuple(inputs for _, _, inputs in combination),
        )


def products(
    shape: Shape, kernel: np.ndarray, x: np.ndarray, cotangent: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Output, input gradient and weight gradient of a dense layer.

    y[b, o, f] = sum over taps t and channels c of kernel[t, c, f] * x[b, o * stride - pad + t, c], one matrix product
    per window position; the gradients are its adjoints.

    Args:
      shape: of the layer.
      kernel: float[*window, in, out].
      x: float[batch, *spatial, in].
      cotangent: float[batch, *out_spatial, out].

    Returns:
      float64 arrays of the shapes of ``cotangent``, ``x`` and ``kernel``.

    Source: Nikdan et al. 2023 (SparseProp), section 3, definitions of the three products.
    """
    kernel, x, cotangent = (np.asarray(a, np.float64) for a in (kernel, x, cotangent))
    y, dx, dw = np.zeros(shape.y), np.zeros(shape.x), np.zeros(shape.kernel)
    for tap, outputs, inputs in taps(shape):
        at_out, at_in = (slice(None), *outputs), (slice(None), *inputs)
        seen = x[at_in].reshape(-1, shape.in_features)
        part = cotangent[at_out].reshape(-1, shape.out_features)
        y[at_out] += (seen @ kernel[tap]).reshape(y[at_out].shape)
        dx[at_in] += (part @ kernel[tap].T).reshape(dx[at_in].shape)
        dw[tap] = seen.T @ part
    return y, dx, dw
