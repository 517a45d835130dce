"""What the kernel tests range over, and the meaning they are held to: dense loops in NumPy, float64.

The convolution here is written from its definition, one window tap at a time, and shares nothing with ``lax`` or with
the reference lowering. Weight gradients are read off at the stored entries.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from sparsejax import SparsityPattern
from sparsejax.kernels import Layout, Layouts

DTYPES = ("float32", "float64", "bfloat16")
BATCHES = (0, 1, 2, 3, 7, 8, 9, 16, 20, 33, 64, 100)
MATRICES = ((1, 1), (5, 3), (37, 29), (64, 16), (130, 7))
LAYOUTS = tuple(itertools.starmap(Layouts, itertools.product(Layout, Layout)))
TRANSFORMATIONS = (
    *("eager", "jit", "grad", "jvp", "jvp_of_one", "grad_of_grad", "jvp_of_grad", "jacfwd", "jacrev"),
    *("vmap_a", "vmap_b", "vmap_both", "vmap_of_vmap", "vmap_pattern", "vmap_of_grad", "grad_of_vmap"),
    *("remat", "scan", "linearize", "check_grads", "shard_map", "export", "other_platform"),
)
PATTERNS = ("random", "empty", "full", "gaps", "one_full_row", "padded")


def make_mask(kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Boolean mask of a kernel; ``gaps`` has an output and an input without entries.

    ``2 x 4`` has blocks of two inputs and four outputs.
    """
    if " x " in kind:
        block = tuple(map(int, kind.split(" x ")))
        kept = rng.random((*shape[:-2], shape[-2] // block[0], shape[-1] // block[1])) < 0.3
        return kept.repeat(block[0], -2).repeat(block[1], -1)
    if kind == "empty":
        return np.zeros(shape, bool)
    if kind == "full":
        return np.ones(shape, bool)
    mask = rng.random(shape) < 0.3
    if kind == "stairs":  # outputs with 0, 1, 2, ... entries
        places = np.argsort(rng.random(shape), axis=0)
        mask = places < np.arange(shape[-1]) % (shape[0] + 1)
    if kind == "gaps":
        mask[..., 0] = False
        mask[..., -1, :] = False
    if kind == "one_full_row":
        mask[..., -1] = True
    return mask


def make_pattern(kind: str, shape: tuple[int, ...], seed: int = 0) -> tuple[SparsityPattern, np.ndarray]:
    """A pattern of a kind, and its mask; ``padded`` has room for nine more entries."""
    mask = make_mask(kind, shape, np.random.default_rng(seed))
    return SparsityPattern.from_mask(mask, int(mask.sum()) + 9 if kind == "padded" else None), mask


def normal(seed: int, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Standard normal numbers, representable in the dtype."""
    return np.random.default_rng(seed).standard_normal(shape).astype(jnp.dtype(dtype))


def wide(array: Any) -> np.ndarray:
    """The array in float64."""
    return np.asarray(array).astype(np.float64)


def flat(array: np.ndarray) -> np.ndarray:
    """All axes but the last as one."""
    return array.reshape(math.prod(array.shape[:-1]), array.shape[-1])


def entry_positions(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``(row, column)`` of the stored entries in their order."""
    return np.nonzero(flat(mask).T)


def dense_kernel(mask: np.ndarray, data: Any) -> np.ndarray:
    """Kernel of the mask's shape in float64, filled entry by entry from ``data``."""
    rows, columns = entry_positions(mask)
    kernel = np.zeros(flat(mask).shape)
    kernel[columns, rows] = wide(data)[: rows.size]
    return kernel.reshape(mask.shape)


def stored(mask: np.ndarray, gradient: np.ndarray, nse: int) -> np.ndarray:
    """Entries of a dense gradient in the order of ``data``, zero in the padding."""
    rows, columns = entry_positions(mask)
    out = np.zeros(nse)
    out[: rows.size] = flat(gradient)[columns, rows]
    return out


def assert_close(got: Any, want: np.ndarray, magnitude: np.ndarray, dtype: str) -> None:
    """Compare with the bound of a sum formed in the accumulation type and rounded once.

    ``magnitude`` is the same sum over absolute products. bfloat16 results may differ by one rounding of the exact
    value (half a unit in the last place, 2**-8) plus the error of a float32 sum: sums formed in bfloat16 do not pass.
    """
    assert got.dtype == jnp.dtype(dtype), (got.dtype, dtype)
    assert got.shape == want.shape, (got.shape, want.shape)
    rounding = 2.0**-8 if dtype == "bfloat16" else 0.0
    step = np.finfo("float64" if dtype == "float64" else "float32").eps
    allowed = rounding * np.abs(want) + 8 * step * magnitude
    excess = np.abs(wide(got) - want) - allowed
    assert not np.isnan(excess).any() and (excess <= 0).all(), f"off by {excess.max():.3g} beyond the bound"


class ConvCase(NamedTuple):
    """One convolution; spatial entries per axis, padding as explicit pairs."""

    batch: int
    spatial: tuple[int, ...]
    in_features: int
    out_features: int
    window: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    input_dilation: tuple[int, ...]
    kernel_dilation: tuple[int, ...]
    groups: int

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        """Shape of the kernel in Flax order."""
        return (*self.window, self.in_features // self.groups, self.out_features)

    @property
    def out_spatial(self) -> tuple[int, ...]:
        """Number of positions at which the window fits, counted one by one."""
        counts = []
        for axis in range(len(self.spatial)):
            length = (self.spatial[axis] - 1) * self.input_dilation[axis] + 1 + sum(self.padding[axis])
            reach = (self.window[axis] - 1) * self.kernel_dilation[axis] + 1
            counts.append(len(range(0, length - reach + 1, self.strides[axis])))
        return tuple(counts)

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments of ``sparsejax.conv``."""
        return {
            "strides": self.strides,
            "padding": self.padding,
            "input_dilation": self.input_dilation,
            "kernel_dilation": self.kernel_dilation,
            "feature_group_count": self.groups,
        }


class Meeting(NamedTuple):
    """Where one window tap of one group connects input and output: index grids into each."""

    tap: tuple[int, ...]
    at_input: tuple[np.ndarray, ...]
    at_output: tuple[np.ndarray, ...]
    outs: slice


def _touched(case: ConvCase, axis: int, tap: int) -> tuple[list[int], list[int]]:
    """Input and output positions of an axis that meet at a tap, one by one from the definition."""
    inputs, outputs = [], []
    for out in range(case.out_spatial[axis]):
        dilated = out * case.strides[axis] + tap * case.kernel_dilation[axis] - case.padding[axis][0]
        source, gap = divmod(dilated, case.input_dilation[axis])
        if gap == 0 and 0 <= source < case.spatial[axis]:
            inputs.append(source)
            outputs.append(out)
    return inputs, outputs


def meetings(case: ConvCase) -> Iterator[Meeting]:
    """Every tap of every group; no position occurs twice in one of them."""
    ins, outs = case.in_features // case.groups, case.out_features // case.groups
    for tap in itertools.product(*map(range, case.window)):
        touched = [_touched(case, axis, i) for axis, i in enumerate(tap)]
        batch = range(case.batch)
        for g in range(case.groups):
            grids = [
                np.ix_(batch, *(pair[side] for pair in touched), range(g * n, (g + 1) * n))
                for side, n in ((0, ins), (1, outs))
            ]
            yield Meeting(tap, grids[0], grids[1], slice(g * outs, (g + 1) * outs))


def conv_forward(case: ConvCase, kernel: np.ndarray, x: np.ndarray) -> np.ndarray:
    """``y[b, *out_spatial, out]``."""
    y = np.zeros((case.batch, *case.out_spatial, case.out_features))
    for m in meetings(case):
        y[m.at_output] += x[m.at_input] @ kernel[m.tap][:, m.outs]
    return y


def conv_input_grad(case: ConvCase, kernel: np.ndarray, ct: np.ndarray) -> np.ndarray:
    """Cotangent of ``x``."""
    x = np.zeros((case.batch, *case.spatial, case.in_features))
    for m in meetings(case):
        x[m.at_input] += ct[m.at_output] @ kernel[m.tap][:, m.outs].T
    return x


def conv_weight_grad(case: ConvCase, x: np.ndarray, ct: np.ndarray) -> np.ndarray:
    """Cotangent of the dense kernel."""
    kernel = np.zeros(case.kernel_shape)
    for m in meetings(case):
        pixels_in, pixels_out = (flat(a) for a in (x[m.at_input], ct[m.at_output]))
        kernel[m.tap][:, m.outs] += pixels_in.T @ pixels_out
    return kernel
