"""Batches of 1 to 16, which have kernels of their own: rows of every length, every batch, wrong indices."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.grid import DTYPES, LAYOUTS, make_pattern, normal, wide
from helpers.kernel_checks import check_matmul
from sparsejax import SparsityPattern, spmm

pytestmark = pytest.mark.usefixtures("x64", "strict_dtypes")
SMALL = range(1, 18)  # one more than these kernels take


@pytest.mark.parametrize("kind", ["stairs", "empty", "padded", "one_full_row", "4 x 4"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_batch(kind: str, dtype: str) -> None:
    pattern, mask = make_pattern(kind, (72, 80))
    for batch in SMALL:
        check_matmul(pattern, mask, batch, dtype, layouts=LAYOUTS[batch % 4])


@pytest.mark.parametrize("dtype", DTYPES)
def test_inputs_too_large_for_one_pass(dtype: str) -> None:
    pattern, mask = make_pattern("one_full_row", (140_000, 2))
    for batch in (1, 2):
        check_matmul(pattern, mask, batch, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_of_other_rows_do_not_enter_a_sum(dtype: str, value: float) -> None:
    """A vector of entries may begin in the rows before: their weights and inputs must not matter."""
    pattern, mask = make_pattern("stairs", (40, 41))
    rows = np.repeat(np.arange(41), mask.sum(0))
    for batch in (1, 2, 4, 16):
        data, x = normal(0, (pattern.nse,), dtype), normal(1, (batch, 40), dtype)
        clean = wide(spmm(data, pattern, x))
        for row in range(41):
            spoiled = data.copy()
            spoiled[rows == row] = value
            got = wide(spmm(spoiled, pattern, x))
            assert np.array_equal(np.delete(got, row, axis=1), np.delete(clean, row, axis=1))
            assert not mask[:, row].any() or not np.isfinite(got[:, row]).all()
        for column in range(40):
            infinite = x.copy()
            infinite[:, column] = value
            got = wide(spmm(data, pattern, infinite))
            unread = ~mask[column]
            assert np.array_equal(got[:, unread], clean[:, unread])
            assert not np.isfinite(got[:, ~unread]).any()


@pytest.mark.parametrize("batch", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [-1, 37, 2**31 - 1, -(2**31)])
def test_wrong_indices(batch: int, dtype: str, value: int) -> None:
    """Every position is checked: in full vectors, in what follows them, and in the first entries of the pattern."""
    pattern, _ = make_pattern("stairs", (37, 38))
    data, x = normal(0, (pattern.nse,), dtype), normal(1, (batch, 37), dtype)
    for position in (0, 1, 5, 40, pattern.nse // 2, pattern.nse - 20, pattern.nse - 1):
        wrong = dataclasses.replace(pattern, indices=jnp.asarray(pattern.indices).at[position].set(value))
        with pytest.raises((jax.errors.JaxRuntimeError, ValueError)) as caught:
            jax.block_until_ready(spmm(data, wrong, x))
        message = f"sparsejax_spmm: indices has value {value} at element {position}; expected values in [0, 37)."
        assert message in str(caught.value)
    assert np.isfinite(wide(spmm(data, pattern, x))).all()


def test_entries_without_inputs() -> None:
    """An index of a pattern without inputs is out of range, whatever it is."""
    pattern = SparsityPattern.from_mask(np.zeros((0, 3), bool), 4)
    wrong = dataclasses.replace(pattern, indptr=jnp.asarray([0, 1, 1, 1], jnp.int32))
    with pytest.raises((jax.errors.JaxRuntimeError, ValueError)) as caught:
        jax.block_until_ready(spmm(np.ones(4, np.float32), wrong, np.ones((1, 0), np.float32)))
    assert "sparsejax_spmm: indices has value 0 at element 0; expected values in [0, 0)." in str(caught.value)


@pytest.mark.parametrize("dtype", DTYPES)
def test_batching_and_compilation(dtype: str) -> None:
    """A batch of one under ``vmap`` is a small batch; ``jit`` changes no bits."""
    pattern, _ = make_pattern("stairs", (72, 80))
    data, x = normal(0, (pattern.nse,), dtype), normal(1, (6, 72), dtype)
    together = spmm(data, pattern, x)
    assert np.array_equal(jax.vmap(lambda v: spmm(data, pattern, v))(x), together)
    assert np.array_equal(jax.jit(lambda d, v: spmm(d, pattern, v))(data, x), together)
