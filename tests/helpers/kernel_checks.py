"""One call each: every product of a matrix or a convolution, and its gradients, against the dense oracle of grid.py.

``compact`` runs them, batch norm (norm_oracle.py) and attention (attention_oracle.py) for every dtype.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import jax
import numpy as np

import sparsejax
from helpers.attention_oracle import COMPACT_ATTENTIONS, check_attention
from helpers.grid import (
    LAYOUTS,
    ConvCase,
    assert_close,
    conv_forward,
    conv_input_grad,
    conv_weight_grad,
    dense_kernel,
    make_pattern,
    normal,
    stored,
    wide,
)
from helpers.norm_oracle import COMPACT_NORMS, check_norm
from sparsejax import SparsityPattern
from sparsejax.kernels import ROW_MAJOR, Layouts, sddmm, spmm_t

COMPACT_CASES = (
    ConvCase(33, (7, 5), 3, 4, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), (1, 1), 1),
    ConvCase(16, (9, 8), 4, 6, (3, 2), (2, 2), ((1, 1), (0, 1)), (1, 1), (1, 1), 2),
    ConvCase(5, (6, 14), 2, 3, (1, 5), (1, 3), ((0, 0), (4, 2)), (2, 1), (1, 2), 1),
    ConvCase(64, (15,), 3, 5, (4,), (2,), ((3, 0),), (3,), (1,), 1),
    ConvCase(1, (8, 8), 5, 7, (3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1), (1, 1), 1),
)


@functools.partial(jax.jit, static_argnames="layouts")
def _matmul(data: Any, pattern: SparsityPattern, x: Any, ct: Any, layouts: Layouts) -> tuple[Any, ...]:
    y, vjp = jax.vjp(lambda d, v: sparsejax.spmm(d, pattern, v, layouts=layouts), data, x)
    return y, *vjp(ct), sddmm(pattern, x, ct, layouts=layouts), spmm_t(data, pattern, ct, layouts=layouts)


def check_matmul(
    pattern: SparsityPattern,
    mask: np.ndarray,
    batch: int,
    dtype: str,
    seed: int = 0,
    layouts: Layouts = ROW_MAJOR,
) -> None:
    """The three matrix products, forward and as gradients of ``spmm``."""
    columns, rows = mask.shape
    data = normal(seed, (pattern.nse,), dtype)
    x, ct = normal(seed + 1, (batch, columns), dtype), normal(seed + 2, (batch, rows), dtype)
    y, grad_data, grad_x, product_data, product_x = _matmul(data, pattern, x, ct, layouts)

    kernel, wx, wct = dense_kernel(mask, data), wide(x), wide(ct)
    size, size_x, size_ct = np.abs(kernel), np.abs(wx), np.abs(wct)
    assert_close(y, wx @ kernel, size_x @ size, dtype)
    for got in (grad_x, product_x):
        assert_close(got, wct @ kernel.T, size_ct @ size.T, dtype)
    want, magnitude = stored(mask, wx.T @ wct, pattern.nse), stored(mask, size_x.T @ size_ct, pattern.nse)
    for got in (grad_data, product_data):
        assert_close(got, want, magnitude, dtype)


@functools.partial(jax.jit, static_argnames=("case", "layouts"))
def _conv(data: Any, pattern: SparsityPattern, x: Any, ct: Any, case: ConvCase, layouts: Layouts) -> tuple[Any, ...]:
    """The output, both gradients at once, and each alone."""
    conv = functools.partial(sparsejax.conv, layouts=layouts, **case.options)
    y, vjp = jax.vjp(lambda d, v: conv(d, pattern, v), data, x)
    of_data = jax.linear_transpose(lambda d: conv(d, pattern, x), data)
    of_x = jax.linear_transpose(lambda v: conv(data, pattern, v), x)
    return y, *vjp(ct), *of_data(ct), *of_x(ct)


def check_conv(case: ConvCase, kind: str, dtype: str, seed: int = 0, layouts: Layouts = ROW_MAJOR) -> None:
    """A convolution and both its gradients."""
    pattern, mask = make_pattern(kind, case.kernel_shape, seed)
    data = normal(seed, (pattern.nse,), dtype)
    x = normal(seed + 1, (case.batch, *case.spatial, case.in_features), dtype)
    ct = normal(seed + 2, (case.batch, *case.out_spatial, case.out_features), dtype)
    y, grad_data, grad_x, alone_data, alone_x = _conv(data, pattern, x, ct, case, layouts)
    kernel, wx, wct = dense_kernel(mask, data), wide(x), wide(ct)
    size, size_x, size_ct = np.abs(kernel), np.abs(wx), np.abs(wct)
    assert_close(y, conv_forward(case, kernel, wx), conv_forward(case, size, size_x), dtype)
    for got in (grad_x, alone_x):
        assert_close(got, conv_input_grad(case, kernel, wct), conv_input_grad(case, size, size_ct), dtype)
    want, magnitude = conv_weight_grad(case, wx, wct), conv_weight_grad(case, size_x, size_ct)
    for got in (grad_data, alone_data):
        assert_close(got, stored(mask, want, pattern.nse), stored(mask, magnitude, pattern.nse), dtype)


def random_conv_case(rng: np.random.Generator) -> ConvCase | None:
    """Any convolution of one or two axes, or None where the drawn window does not fit."""
    rank, groups = int(rng.integers(1, 3)), int(rng.choice([1, 1, 2, 3]))

    def axes(*values: int) -> tuple[int, ...]:
        return tuple(int(v) for v in rng.choice(values, rank))

    case = ConvCase(
        batch=int(rng.choice([1, 2, 7, 8, 16, 20, 33, 64, 70])),
        spatial=axes(1, 2, 3, 5, 7, 8, 14),
        in_features=groups * int(rng.integers(1, 5)),
        out_features=groups * int(rng.integers(1, 5)),
        window=axes(1, 2, 3, 4, 5),
        strides=axes(1, 1, 2, 3, 4),
        padding=tuple((int(low), int(high)) for low, high in rng.integers(-1, 4, (rank, 2))),
        input_dilation=axes(1, 1, 1, 2, 3),
        kernel_dilation=axes(1, 1, 2, 3),
        groups=groups,
    )
    return case if min(case.out_spatial) > 0 else None


def compact() -> dict[str, Any]:
    """A small run over everything, for each instruction set; returns what was covered."""
    with jax.enable_x64(True):
        for dtype in ("float32", "float64", "bfloat16"):
            for batch, layouts in itertools.product((1, 2, 3, 7, 16, 33, 100), LAYOUTS):
                pattern, mask = make_pattern("padded", (37, 29), batch)
                check_matmul(pattern, mask, batch, dtype, layouts=layouts)
            for batch in (1, 2, 3, 5, 12):  # every kernel of small batches, with rows of every length
                check_matmul(*make_pattern("stairs", (70, 80), batch), batch, dtype)
            for case, layouts in itertools.product(COMPACT_CASES, LAYOUTS):
                check_conv(case, "gaps", dtype, layouts=layouts)
            for norm in COMPACT_NORMS:
                check_norm(norm, dtype)
            for case in COMPACT_ATTENTIONS:
                check_attention(case, dtype)
    return {"conv cases": len(COMPACT_CASES), "norm cases": len(COMPACT_NORMS)}
