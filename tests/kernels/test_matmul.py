"""The matrix products against the dense oracle."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.grid import BATCHES, DTYPES, LAYOUTS, MATRICES, PATTERNS, assert_close, make_pattern, normal, wide
from helpers.kernel_checks import check_matmul
from helpers.sampling import SAMPLE
from sparsejax import SparsityPattern, spmm
from sparsejax.kernels import BATCH_MINOR, ROW_MAJOR, Layouts, sddmm, spmm_t

pytestmark = pytest.mark.usefixtures("x64", "strict_dtypes")
COVERING = list(zip(BATCHES, itertools.cycle(MATRICES), strict=False))  # each batch once, matrices in turn


@pytest.mark.parametrize("kind", PATTERNS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_grid(kind: str, dtype: str) -> None:
    start = PATTERNS.index(kind) + DTYPES.index(dtype)  # over kinds and dtypes, every batch has every layout
    for (batch, shape), layouts in zip(COVERING, itertools.cycle(LAYOUTS[start % 4 :] + LAYOUTS[: start % 4])):
        pattern, mask = make_pattern(kind, shape, batch)
        check_matmul(pattern, mask, batch, dtype, layouts=layouts)


@pytest.mark.parametrize("layouts", [ROW_MAJOR, BATCH_MINOR])
@pytest.mark.parametrize("batch", [1, 16, 100])
@pytest.mark.parametrize("dtype", DTYPES)
def test_long_rows(batch: int, dtype: str, layouts: Layouts) -> None:
    """Rows longer than every unrolled step, and more columns than one tile of the batch holds."""
    pattern, mask = make_pattern("random", (3000, 40))
    check_matmul(pattern, mask, batch, dtype, layouts=layouts)


@pytest.mark.parametrize("kind", ["1 x 2", "1 x 4", "2 x 1", "4 x 2", "8 x 8"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_blocks(kind: str, dtype: str) -> None:
    """Neighbouring outputs, or inputs, with the same entries: one pass or several, full and ragged batches."""
    for shape, batch, layouts in (
        ((40, 24), 100, ROW_MAJOR),
        ((64, 8), 33, BATCH_MINOR),
        ((1600, 72), 130, ROW_MAJOR),
        ((1600, 72), 160, BATCH_MINOR),
        ((48, 2400), 65, BATCH_MINOR),
    ):
        pattern, mask = make_pattern(kind, shape)
        check_matmul(pattern, mask, batch, dtype, layouts=layouts)


def test_layouts_do_not_change_bits() -> None:
    """Several passes, a ragged block, results that are written around the caches, and rows that are no whole lines."""
    pattern, _ = make_pattern("random", (3000, 1060))
    data, x, ct = (normal(i, s, "float32") for i, s in enumerate([(pattern.nse,), (1000, 3000), (1000, 1060)]))

    @functools.partial(jax.jit, static_argnums=0)
    def step(layouts: Layouts) -> tuple[jax.Array, ...]:
        y, pullback = jax.vjp(lambda d, v: spmm(d, pattern, v, layouts=layouts), data, x)
        return y, *pullback(ct)

    first, *others = (step(layouts) for layouts in LAYOUTS)
    for other in others:
        for got, want in zip(other, first, strict=True):
            np.testing.assert_array_equal(got, want)


def test_many_rows_are_shared_between_tasks() -> None:
    pattern, mask = make_pattern("random", (50, 4000))
    check_matmul(pattern, mask, 33, "float32")


SHAPES = ((1, 1), (4, 9), (17, 8), (33, 20))


@st.composite
def _masks(draw: st.DrawFn) -> np.ndarray:
    columns, rows = draw(st.sampled_from(SHAPES))
    bits = draw(st.binary(min_size=columns * rows, max_size=columns * rows))
    mask = np.frombuffer(bits, np.uint8).reshape(columns, rows) > draw(st.sampled_from([0, 127, 230]))
    for axis, value in draw(st.lists(st.tuples(st.integers(0, 1), st.booleans()), max_size=2)):
        index = draw(st.integers(0, mask.shape[axis] - 1))
        mask = mask.copy()
        mask[(slice(None),) * axis + (index,)] = value  # whole rows and columns, empty or full
    return mask


@settings(derandomize=True, deadline=None, max_examples=60 // SAMPLE)
@given(
    mask=_masks(),
    padding=st.sampled_from([0, 30]),
    batch=st.sampled_from([0, 1, 7, 16, 33, 100]),
    dtype=st.sampled_from(DTYPES),
)
def test_any_pattern(mask: np.ndarray, padding: int, batch: int, dtype: str) -> None:
    capacity = mask.size + padding  # few capacities, so that programs are reused
    check_matmul(SparsityPattern.from_mask(mask, capacity), mask, batch, dtype)


def test_bfloat16_sums_are_float32() -> None:
    """The bound that holds for one rounding at the end is broken by sums rounded at every step."""
    pattern, _mask = make_pattern("full", (2048, 2))
    data, x = normal(0, (pattern.nse,), "bfloat16"), normal(1, (4, 2048), "bfloat16")
    rows = wide(data).reshape(2, 2048)
    want, magnitude = wide(x) @ rows.T, np.abs(wide(x)) @ np.abs(rows).T
    assert_close(spmm(data, pattern, x), want, magnitude, "bfloat16")

    running = np.zeros((4, 2), jnp.bfloat16)
    for column in range(2048):
        product = wide(x)[:, column, None] * rows[None, :, column]
        running = (wide(running) + product).astype(jnp.bfloat16)
    with pytest.raises(AssertionError, match="beyond the bound"):
        assert_close(running, want, magnitude, "bfloat16")


def test_padding_is_ignored_whatever_it_holds() -> None:
    pattern, mask = make_pattern("padded", (37, 29))
    data = normal(0, (pattern.nse,), "float32")
    x, ct = normal(1, (33, 37), "float32"), normal(2, (33, 29), "float32")
    clean = data.copy()
    clean[mask.sum() :] = 0.0
    data[mask.sum() :] = np.nan
    assert np.array_equal(spmm(data, pattern, x), spmm(clean, pattern, x))
    assert np.array_equal(spmm_t(data, pattern, ct), spmm_t(clean, pattern, ct))
    assert not np.asarray(sddmm(pattern, x, ct))[mask.sum() :].any()


def test_outputs_without_entries_are_exact_zeros() -> None:
    pattern, _ = make_pattern("gaps", (6, 5))
    x = np.full((7, 6), np.inf, np.float32)
    assert not np.asarray(spmm(np.ones(pattern.nse, np.float32), pattern, x))[:, 0].any()


@pytest.mark.parametrize("lead", [(), (3,), (2, 3), (2, 0, 3)])
def test_leading_axes(lead: tuple[int, ...]) -> None:
    pattern, _mask = make_pattern("random", (6, 5))
    data = normal(0, (pattern.nse,), "float32")
    x, ct = normal(1, (*lead, 6), "float32"), normal(2, (*lead, 5), "float32")
    y, back = spmm(data, pattern, x), spmm_t(data, pattern, ct)
    assert y.shape == (*lead, 5) and back.shape == (*lead, 6)
    flat = spmm(data, pattern, x.reshape(-1, 6))
    assert np.array_equal(y, np.asarray(flat).reshape(y.shape))
    assert np.array_equal(sddmm(pattern, x, ct), sddmm(pattern, x.reshape(-1, 6), ct.reshape(-1, 5)))


@pytest.mark.parametrize("shape", [(0, 5), (5, 0)])
def test_kernels_without_inputs_or_outputs(shape: tuple[int, int]) -> None:
    check_matmul(SparsityPattern.from_mask(np.zeros(shape, bool)), np.zeros(shape, bool), 7, "float32")


def test_adjoint_identity() -> None:
    """<L(x; w), u> = <x, L^T(u; w)> = <w, sddmm(x, u)>."""
    pattern, _ = make_pattern("random", (37, 29))
    data, x, u = (normal(i, s, "float64") for i, s in enumerate([(pattern.nse,), (20, 37), (20, 29)]))
    forward = np.vdot(spmm(data, pattern, x), u)
    assert np.isclose(forward, np.vdot(x, spmm_t(data, pattern, u)), rtol=1e-13)
    assert np.isclose(forward, np.vdot(data, sddmm(pattern, x, u)), rtol=1e-13)
