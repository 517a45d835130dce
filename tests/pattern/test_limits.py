"""Sizes and capacities near the limits of int32, and masks that do not fit; no large array is made."""

from __future__ import annotations

from unittest import mock

import jax
import numpy as np
import pytest
import scipy.sparse

from sparsejax import SparsityPattern
from sparsejax.pattern import _build

MOST = 2**31 - 1


def view(*shape: int) -> np.ndarray:
    """A mask of any logical size in one byte."""
    return np.broadcast_to(np.zeros((), bool), shape)


@pytest.fixture(autouse=True)
def nothing_is_built():
    """A size that is refused must be refused before its arrays are made."""

    def build(mask: np.ndarray, nse: int | None) -> None:
        raise AssertionError(f"built for shape {mask.shape} and nse {nse}")

    with mock.patch.object(_build, "build_on_host", build):
        yield


@pytest.mark.parametrize("shape", [(2**16, 2**15), (2**11, 2**10, 2**10), (1, 2**31), (2**31, 1), (2**40, 2)])
def test_kernels_of_more_weights_than_int32_are_refused(shape) -> None:
    size = np.prod(shape, dtype=object)
    message = f"mask has {size} entries; expected at most {MOST}, the range of int32 indices"
    with pytest.raises(ValueError, match=message):
        SparsityPattern.from_mask(view(*shape))
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda m: SparsityPattern.from_mask(m, nse=8), jax.ShapeDtypeStruct(shape, bool))
    with pytest.raises(ValueError, match=message.replace("mask", "kernel")):
        SparsityPattern.from_dense(np.broadcast_to(np.float32(0), shape))


@pytest.mark.parametrize("shape", [(MOST, 0), (0, MOST), (2**40, 0), (2**25, 2, 0)])
def test_pointers_for_a_kernel_without_weights_are_refused(shape) -> None:
    with pytest.raises(ValueError, match="expected at most 16777216 rows and columns for 0 weights"):
        SparsityPattern.from_mask(view(*shape))


@pytest.mark.parametrize("nse", [MOST, MOST - 1, 2**40, 2**24 + 1, -1])
def test_capacities_that_no_mask_can_use_are_refused(nse) -> None:
    message = rf"nse has value {nse}; expected a capacity between 0 and 16777216 for a kernel of shape \(3, 3\)"
    mask = np.eye(3, dtype=bool)
    with pytest.raises(ValueError, match=message):
        SparsityPattern.from_mask(mask, nse=nse)
    with pytest.raises(ValueError, match=message):
        jax.jit(lambda m: SparsityPattern.from_mask(m, nse=nse))(mask)


def test_the_largest_sizes_are_traced_without_an_array() -> None:
    shape = (2**16, 2**15 - 1)  # 2147418112 weights
    abstract = jax.ShapeDtypeStruct(shape, bool)
    pattern = jax.eval_shape(lambda m: SparsityPattern.from_mask(m, nse=MOST - 2**16), abstract)
    assert pattern.nse == MOST - 2**16
    assert pattern.indptr.shape == (2**15,)


def test_a_scipy_matrix_with_absurd_sizes_is_refused() -> None:
    wide = scipy.sparse.csc_array((2**40, 1), dtype=np.float32)
    with pytest.raises(ValueError, match="expected at most 16777216 rows and columns for 0 entries"):
        SparsityPattern.from_scipy(wide)


def test_a_large_sparse_matrix_of_few_entries_works() -> None:
    """Its dense form would have 2**40 weights; nothing but the dense form is too large."""
    entries = (np.ones(3, np.float32), ([5, 2**20 - 1, 7], [0, 1, 2**20 - 1]))
    data, pattern = SparsityPattern.from_scipy(scipy.sparse.coo_array(entries, shape=(2**20, 2**20)))
    assert (data.shape, pattern.nse, pattern.shape) == ((3,), 3, (2**20, 2**20))


class TestPadding:
    @pytest.fixture
    def nothing_is_built(self) -> None:
        """Here patterns are built."""

    def test_padding_has_the_same_limit(self, nothing_is_built) -> None:
        pattern = SparsityPattern.from_mask(np.eye(3, dtype=bool))
        with pytest.raises(ValueError, match=f"SparsityPattern.pad_to: nse has value {MOST}"):
            pattern.pad_to(MOST)
        assert pattern.pad_to(100).nse == 100
