"""SciPy and BCSR matrices to patterns with their values, and back."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from jax.experimental.sparse import BCOO, BCSR

from helpers.grid import PATTERNS, make_pattern, normal, stored
from sparsejax import SparsityPattern, spmm
from sparsejax.kernels import spmm_t

pytestmark = pytest.mark.usefixtures("strict_dtypes")
FORMATS = ("csr", "csc", "coo", "lil", "dia", "bsr", "dok")


def dense_case(kind: str) -> tuple[SparsityPattern, np.ndarray, np.ndarray, np.ndarray]:
    """A pattern of shape (6, 5), its mask, values in its order, and the dense matrix."""
    pattern, mask = make_pattern(kind, (6, 5))
    dense = np.where(mask, normal(0, (6, 5), "float32"), np.float32(0))
    return pattern, mask, stored(mask, dense, pattern.nse).astype(np.float32), dense


@pytest.mark.parametrize("kind", PATTERNS)
@pytest.mark.parametrize("fmt", FORMATS)
def test_from_scipy(kind: str, fmt: str) -> None:
    _, mask, values, dense = dense_case(kind)
    data, pattern = SparsityPattern.from_scipy(scipy.sparse.csr_array(dense).asformat(fmt))
    assert np.array_equal(pattern.validate().scatter(data), dense)
    if fmt not in ("dia", "bsr"):  # these two store zeros of their own
        assert np.array_equal(pattern.mask(), mask)
        assert np.array_equal(data, values[: mask.sum()])


@pytest.mark.parametrize("kind", PATTERNS)
def test_to_scipy(kind: str) -> None:
    pattern, mask, values, dense = dense_case(kind)
    matrix = pattern.to_scipy(values)
    assert isinstance(matrix, scipy.sparse.csc_array) and matrix.shape == (6, 5)
    assert matrix.nnz == mask.sum()
    assert np.array_equal(matrix.toarray(), dense)


def test_scipy_keeps_stored_zeros_and_sums_duplicates() -> None:
    matrix = scipy.sparse.coo_array((np.float32([1, 2, 0, 4]), ([0, 0, 1, 2], [1, 1, 0, 1])), shape=(3, 2))
    data, pattern = SparsityPattern.from_scipy(matrix)
    assert np.array_equal(data, np.float32([0, 3, 4]))
    assert np.array_equal(pattern.validate().mask(), [[False, True], [True, False], [False, True]])


def test_scipy_argument_is_left_as_it_was() -> None:
    matrix = scipy.sparse.csc_array((np.float32([1, 2]), np.array([2, 0]), np.array([0, 2])), shape=(3, 1))
    SparsityPattern.from_scipy(matrix)
    assert matrix.indices.tolist() == [2, 0]


@pytest.mark.parametrize("kind", PATTERNS)
def test_bcsr_round_trip(kind: str) -> None:
    pattern, mask, values, dense = dense_case(kind)
    matrix = pattern.to_bcsr(values)
    assert isinstance(matrix, BCSR) and matrix.shape == (6, 5)
    assert np.array_equal(matrix.todense(), dense)
    data, again = SparsityPattern.from_bcsr(matrix)
    assert np.array_equal(again.validate().mask(), mask)
    assert np.array_equal(again.scatter(data), dense)


def test_products_of_all_formats_agree() -> None:
    pattern, _, values, dense = dense_case("random")
    x, y = normal(1, (7, 6), "float32"), normal(2, (7, 5), "float32")
    for product in (spmm(values, pattern, x), x @ pattern.to_scipy(values)):
        np.testing.assert_allclose(product, x @ dense, rtol=1e-5, atol=1e-6)
    for product in (spmm_t(values, pattern, y), (pattern.to_bcsr(values) @ y.T).T):
        np.testing.assert_allclose(product, y @ dense.T, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda p: SparsityPattern.from_scipy(np.eye(2)),
            "SparsityPattern.from_scipy: matrix has type ndarray; expected a SciPy sparse array or matrix.",
        ),
        (
            lambda p: SparsityPattern.from_bcsr(BCOO.fromdense(np.eye(2))),
            "SparsityPattern.from_bcsr: matrix has type BCOO; expected a BCSR matrix.",
        ),
        (
            lambda p: SparsityPattern.from_bcsr(BCSR.fromdense(np.ones((2, 3, 4)), n_batch=1)),
            "SparsityPattern.from_bcsr: matrix has n_batch = 1 and n_dense = 0; expected 0 and 0: no batch",
        ),
        (
            lambda p: p.to_scipy(np.ones(3)),
            "SparsityPattern.to_scipy: data has shape (3,); expected shape (",
        ),
        (
            lambda p: make_pattern("random", (3, 2, 2))[0].to_bcsr(np.ones(3)),
            "SparsityPattern.to_bcsr: pattern has shape (3, 2, 2); expected two axes (in, out).",
        ),
    ],
)
def test_refused(call: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        call(make_pattern("random", (6, 5))[0])
