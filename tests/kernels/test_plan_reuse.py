"""Plans that handlers keep from call to call are those of the pattern at hand."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
import pytest

import sparsejax
from helpers.grid import (
    ConvCase,
    conv_forward,
    conv_input_grad,
    conv_weight_grad,
    dense_kernel,
    make_mask,
    normal,
    stored,
)
from sparsejax import SparsityPattern
from sparsejax._native import ffi

# Of one phase and of several; the first has entries enough for passes over its channels, where vectors are narrow.
CASES = (
    ConvCase(4, (9, 9), 192, 24, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), (1, 1), 1),
    ConvCase(3, (8, 7), 6, 10, (3, 2), (2, 2), ((1, 1), (0, 1)), (1, 1), (1, 1), 2),
)


@functools.partial(jax.jit, static_argnames="number")
def products(number: int, pattern: SparsityPattern, data: Any, x: Any, ct: Any) -> tuple[Any, ...]:
    """The convolution of a case and both gradients."""
    y, vjp = jax.vjp(lambda d, v: sparsejax.conv(d, pattern, v, **CASES[number].options), data, x)
    return y, *vjp(ct)


def check(number: int, seed: int) -> None:
    """The products with the pattern of this seed; all patterns of a case have one capacity, hence one executable."""
    case = CASES[number]
    mask = make_mask("random", case.kernel_shape, np.random.default_rng(seed))
    pattern = SparsityPattern.from_mask(mask, nse=mask.size)
    data = normal(seed, (pattern.nse,), "float32")
    x = normal(seed + 1, (case.batch, *case.spatial, case.in_features), "float32")
    ct = normal(seed + 2, (case.batch, *case.out_spatial, case.out_features), "float32")
    y, grad_data, grad_x = products(number, pattern, data, x, ct)
    kernel = dense_kernel(mask, data)
    np.testing.assert_allclose(y, conv_forward(case, kernel, x), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(grad_x, conv_input_grad(case, kernel, ct), rtol=1e-4, atol=1e-4)
    want = stored(mask, conv_weight_grad(case, x, ct), pattern.nse)
    np.testing.assert_allclose(grad_data, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("number", range(len(CASES)))
def test_patterns_that_change_between_calls(number: int) -> None:
    """Of one shape and capacity, as after an update of RigL; back and forth."""
    for seed in (0, 10, 0, 20, 10, 0):
        check(number, seed)


def test_moved_entry_of_the_same_row() -> None:
    """One column index differs, nothing else."""
    rows = np.zeros((3, 3, 4, 2), bool)
    rows[0, 0, 1, 0] = rows[2, 1, 3, 1] = True
    moved = rows.copy()
    moved[2, 1, 3, 1], moved[2, 1, 2, 1] = False, True
    x = normal(0, (2, 6, 6, 4), "float32")
    results = [
        sparsejax.conv(np.ones(2, np.float32), SparsityPattern.from_mask(m), x, padding="SAME")
        for m in (rows, moved, rows)
    ]
    assert np.array_equal(results[0], results[2])
    assert not np.array_equal(results[0], results[1])


def test_patterns_on_several_threads() -> None:
    """Every thread finds, makes and keeps plans of all patterns at once."""
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(check, i % 2, 100 + 10 * (i % 5)) for i in range(40)]:
            done.result()


def test_a_plan_keeps_no_copy_of_the_pattern() -> None:
    """It has an offset and a position for each entry; indices of another four bytes would pass the bound."""
    mask = make_mask("random", (3, 3, 64, 128), np.random.default_rng(5))
    pattern = SparsityPattern.from_mask(mask)
    call = jax.jit(lambda d, x: sparsejax.conv(d, pattern, x, padding="VALID"))
    data, x = normal(1, (pattern.nse,), "float32"), normal(2, (16, 4, 4, 64), "float32")
    before = ffi.plan_bytes()
    first = np.asarray(call(data, x))
    added = ffi.plan_bytes() - before
    np.testing.assert_array_equal(call(data, x), first)
    assert ffi.plan_bytes() - before == added
    assert 4 * pattern.nse < added < 9 * pattern.nse
