"""The k largest scores, exactly, ties by index: against a stable NumPy sort."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsejax.pruning.allocation import select

VALUES = st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.5, -2.5, 1e-38, 3e38, -3e38, np.inf, -np.inf])


def oracle(scores: list[np.ndarray], k: int) -> list[np.ndarray]:
    flat = np.concatenate([score.ravel() for score in scores]).astype(np.float64)
    rank = np.where(np.isnan(flat), -np.inf, flat)
    # lexsort: NaN after everything, then larger first, then the lower index first.
    order = np.lexsort((np.arange(flat.size), -rank, np.isnan(flat)))
    mask = np.zeros(flat.size, bool)
    mask[order[:k]] = True
    return [
        part.reshape(score.shape)
        for part, score in zip(np.split(mask, np.cumsum([s.size for s in scores])[:-1]), scores, strict=True)
    ]


@settings(max_examples=60, deadline=None)
@given(st.lists(VALUES, min_size=12, max_size=12), st.integers(0, 12))
def test_select_with_ties_and_special_values_matches_a_stable_sort(values: list[float], k: int) -> None:
    scores = [np.array(values[:4], np.float32).reshape(2, 2), np.array(values[4:], np.float32)]
    got = jax.jit(select)([jnp.asarray(score) for score in scores], k)
    for mask, expected in zip(got, oracle(scores, k), strict=True):
        np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_every_k_gives_exactly_k(dtype: jnp.dtype) -> None:
    # Rounded to one decimal, most of the 300 scores are tied.
    scores = jnp.round(jax.random.normal(jax.random.key(0), (15, 20)), 1).astype(dtype)
    choose = jax.jit(lambda k: select([scores], k)[0])
    for k in (0, 1, 2, 77, 150, 299, 300):
        mask = choose(k)
        assert int(mask.sum()) == k
        np.testing.assert_array_equal(mask, oracle([np.asarray(scores, np.float32)], k)[0])


def test_all_scores_equal_keeps_the_first_ones() -> None:
    masks = select([jnp.zeros((2, 3)), jnp.zeros(4)], 8)
    assert masks[0].all()
    assert masks[1].tolist() == [True, True, False, False]


def test_nan_ranks_last() -> None:
    scores = [jnp.array([jnp.nan, -jnp.inf, 1.0, jnp.nan])]
    assert select(scores, 2)[0].tolist() == [False, True, True, False]
    assert select(scores, 3)[0].tolist() == [True, True, True, False]


def test_arrays_of_different_dtypes_are_compared_by_value() -> None:
    masks = select([jnp.array([1.0, 3.0], jnp.bfloat16), jnp.array([2.0, 4.0], jnp.float32)], 2)
    assert [mask.tolist() for mask in masks] == [[False, True], [False, True]]


def test_float64_scores_are_not_rounded() -> None:
    with jax.enable_x64(True):
        scores = jnp.array([1.0, 1.0 + 1e-15, 1.0 - 1e-15], jnp.float64)
        assert select([scores], 1)[0].tolist() == [False, True, False]


def test_select_under_vmap() -> None:
    scores = jnp.array([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])
    masks = jax.vmap(lambda row: select([row], 1)[0])(scores)
    assert masks.tolist() == [[False, False, True], [True, False, False]]
