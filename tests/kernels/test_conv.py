"""The convolution and its gradients against the dense oracle."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sparsejax
from helpers.grid import DTYPES, LAYOUTS, PATTERNS, ConvCase, make_pattern, normal
from helpers.kernel_checks import COMPACT_CASES, check_conv, random_conv_case
from helpers.sampling import SAMPLE
from sparsejax.kernels import BATCH_MINOR, ROW_MAJOR, Layouts

pytestmark = pytest.mark.usefixtures("x64", "strict_dtypes")


def square(batch: int, size: int, window: int, stride: int, pad: int) -> ConvCase:
    """A convolution with equal sides."""
    twice = (size, size), (window, window), (stride, stride), ((pad, pad), (pad, pad))
    return ConvCase(batch, twice[0], 3, 4, *twice[1:], (1, 1), (1, 1), 1)


@pytest.mark.parametrize("kind", PATTERNS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_patterns(kind: str, dtype: str) -> None:
    start = PATTERNS.index(kind) + DTYPES.index(dtype)  # over kinds and dtypes, every case has every layout
    for i, case in enumerate(COMPACT_CASES, start):
        check_conv(case, kind, dtype, layouts=LAYOUTS[i % 4])


BATCHES = (1, 3, 7, 8, 9, 16, 20, 33)
SIZES = (1, 5, 7, 8, 14, 15, 16)
WINDOWS = [(k, s, p) for k in (1, 2, 3, 5, 7) for s in (1, 2, 3) for p in {0, k // 2, k}]


@pytest.mark.parametrize(("window", "stride", "pad"), WINDOWS)
def test_windows(window: int, stride: int, pad: int) -> None:
    """Every window, stride and padding; batches and image sizes in turn, different ones for each."""
    offset = WINDOWS.index((window, stride, pad))
    sizes = [s for s in SIZES if s + 2 * pad >= window]
    for i in range(2):
        batch, size = BATCHES[(offset + 3 * i) % len(BATCHES)], sizes[(offset + 2 * i) % len(sizes)]
        case = square(batch, size, window, stride, pad)
        check_conv(case, "random", "float32", offset, LAYOUTS[3 * (offset + i) % 4])


@pytest.mark.parametrize(("batch", "size"), list(itertools.product((3, 16), (28, 33, 57))))
def test_larger_images(batch: int, size: int) -> None:
    case = square(batch, size, 3, 1 + size % 2, 1)
    for layouts in (ROW_MAJOR, BATCH_MINOR):
        check_conv(case, "random", "float32", layouts=layouts)


@pytest.mark.parametrize("seed", range(8))
def test_random_geometry(seed: int) -> None:
    """Two axes that differ in everything, groups, both dilations, negative padding."""
    rng = np.random.default_rng(seed)
    for number in range(12):
        case = random_conv_case(rng)
        if case is not None:
            kind, dtype = str(rng.choice(PATTERNS)), str(rng.choice(DTYPES))
            check_conv(case, kind, dtype, number, LAYOUTS[(seed + number) % 4])


@settings(derandomize=True, deadline=None, max_examples=40 // SAMPLE)
@given(
    case=st.sampled_from(COMPACT_CASES),
    batch=st.sampled_from([0, 1, 7, 16, 33]),
    kind=st.sampled_from(PATTERNS),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 3),
    layouts=st.sampled_from(LAYOUTS),
)
def test_any_pattern(case: ConvCase, batch: int, kind: str, dtype: str, seed: int, layouts: Layouts) -> None:
    check_conv(case._replace(batch=batch), kind, dtype, seed, layouts)


def test_many_channels_are_shared_between_tasks() -> None:
    case = ConvCase(16, (7, 7), 96, 80, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), (1, 1), 1)
    for layouts in (ROW_MAJOR, BATCH_MINOR):
        check_conv(case, "random", "float32", layouts=layouts)
        check_conv(case._replace(batch=3, strides=(2, 2)), "random", "bfloat16", layouts=layouts)


@pytest.mark.parametrize("kind", ["1 x 2", "1 x 4", "4 x 1", "4 x 4"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_blocks(kind: str, dtype: str) -> None:
    """Neighbouring output or input channels with the same entries, with a stride, groups, passes and small batches."""
    same = ((1, 1), (1, 1))
    for case, layouts in (
        (ConvCase(33, (7, 5), 16, 24, (3, 3), (1, 1), same, (1, 1), (1, 1), 1), BATCH_MINOR),
        (ConvCase(3, (9, 8), 16, 8, (3, 3), (2, 2), same, (1, 1), (1, 1), 2), ROW_MAJOR),
        (ConvCase(17, (6, 6), 128, 16, (3, 3), (1, 1), same, (1, 1), (2, 1), 1), ROW_MAJOR),
        (ConvCase(2, (5, 5), 32, 16, (1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1), (1, 1), 1), BATCH_MINOR),
    ):
        check_conv(case, kind, dtype, layouts=layouts)


def test_depthwise() -> None:
    case = ConvCase(20, (9, 9), 24, 24, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), (1, 1), 24)
    check_conv(case, "random", "float32")


@pytest.mark.parametrize("lead", [(), (2,), (2, 3), (0,), (2, 0)])
def test_leading_axes(lead: tuple[int, ...]) -> None:
    pattern, _ = make_pattern("random", (3, 3, 2, 4))
    data, x = normal(0, (pattern.nse,), "float32"), normal(1, (*lead, 6, 5, 2), "float32")
    y = sparsejax.conv(data, pattern, x)
    assert y.shape == (*lead, 6, 5, 4)
    flat = sparsejax.conv(data, pattern, x.reshape(int(np.prod(lead)), 6, 5, 2))
    assert np.array_equal(np.asarray(y).reshape(flat.shape), flat)


def test_padding_of_the_capacity_is_ignored() -> None:
    pattern, mask = make_pattern("padded", (3, 3, 2, 4))
    data, x = normal(0, (pattern.nse,), "float32"), normal(1, (5, 6, 6, 2), "float32")
    clean, dirty = data.copy(), data.copy()
    clean[mask.sum() :], dirty[mask.sum() :] = 0.0, np.nan

    def run(values: np.ndarray) -> tuple[jax.Array, jax.Array, jax.Array]:
        y, vjp = jax.vjp(lambda d, v: sparsejax.conv(d, pattern, v), jnp.asarray(values), jnp.asarray(x))
        return y, *vjp(jnp.ones_like(y))

    for a, b in zip(run(clean), run(dirty), strict=True):
        assert np.array_equal(a, b)
    assert not np.asarray(run(dirty)[1])[mask.sum() :].any()


def test_infinite_neighbours_do_not_leak() -> None:
    """Pixels that a tap does not touch are not multiplied by zero instead."""
    mask = np.zeros((3, 3, 1, 1), bool)
    mask[1, 1] = True
    pattern = sparsejax.SparsityPattern.from_mask(mask)
    x = np.full((3, 4, 4, 1), np.inf, np.float32)
    x[:, 1, 1] = 2.0
    y = sparsejax.conv(np.ones(1, np.float32), pattern, x)
    assert np.array_equal(y, x)


@pytest.mark.parametrize("shape", [(0, 2, 4), (3, 0, 4), (3, 0, 2, 4), (3, 3, 0, 4)], ids=str)
def test_a_window_or_features_of_size_0_are_refused_while_tracing(shape: tuple[int, ...]) -> None:
    pattern = sparsejax.SparsityPattern.from_mask(np.ones(shape, bool))
    x = jax.ShapeDtypeStruct((2, *(6,) * (len(shape) - 2), shape[-2]), jnp.float32)
    with pytest.raises(ValueError, match="a window and input features of size 1 or more"):
        jax.eval_shape(lambda d, x: sparsejax.conv(d, pattern, x), jnp.zeros(0), x)


def test_an_image_without_pixels_is_refused_while_tracing() -> None:
    pattern = sparsejax.SparsityPattern.from_mask(np.ones((3, 2, 4), bool))
    for padding in ("SAME", "VALID", "CIRCULAR", 2):
        with pytest.raises(ValueError, match=r"conv: x has spatial shape .* expected spatial axes of size 1 or more"):
            jax.eval_shape(
                lambda d, x, p=padding: sparsejax.conv(d, pattern, x, padding=p), jnp.ones(24), jnp.ones((1, 0, 2))
            )
