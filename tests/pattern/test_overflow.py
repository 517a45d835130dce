"""A mask with more entries than the capacity, made where no error can be raised: NaN, and errors where they can be."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax import SparsityPattern, spmm

MASK = np.eye(6, dtype=bool)
KERNEL = np.arange(1.0, 37.0, dtype=np.float32).reshape(6, 6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize(("nse", "fits"), [(5, False), (6, True), (7, True)])
def test_gather_and_scatter_under_jit_give_nan(dtype: str, nse: int, fits: bool) -> None:
    @jax.jit
    def both(mask: jax.Array, kernel: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        pattern = SparsityPattern.from_mask(mask, nse=nse)
        data = pattern.gather(kernel)
        return data, pattern.scatter(jnp.ones(nse, dtype)), pattern.indptr[-1] <= pattern.nse

    data, dense, check = both(MASK, KERNEL.astype(dtype))
    assert bool(check) is fits
    assert bool(jnp.isnan(data).all()) is not fits
    assert bool(jnp.isnan(dense).all()) is not fits
    if fits:
        np.testing.assert_array_equal(np.asarray(data, np.float32)[:6], KERNEL.diagonal())


def test_no_gradient_goes_through_what_is_lost() -> None:
    def loss(kernel: jax.Array, nse: int) -> jax.Array:
        return SparsityPattern.from_mask(jnp.asarray(MASK), nse=nse).gather(kernel).sum()

    traced = jax.jit(lambda mask, k: SparsityPattern.from_mask(mask, nse=5).gather(k).sum())
    assert np.isnan(traced(MASK, KERNEL))
    np.testing.assert_array_equal(jax.grad(loss)(jnp.asarray(KERNEL), 6), MASK)


def test_vmapped_masks_are_poisoned_one_by_one() -> None:
    masks = np.stack([np.eye(3, dtype=bool), np.ones((3, 3), bool)])
    data = jax.vmap(lambda m: SparsityPattern.from_mask(m, nse=4).gather(jnp.ones((3, 3))))(masks)
    assert np.isfinite(data[0]).all() and np.isnan(data[1]).all()


def test_outside_jit_it_is_an_error() -> None:
    pattern = jax.jit(lambda mask: SparsityPattern.from_mask(mask, nse=5))(MASK)
    message = r"pattern has 6 entries; expected at most nse = 5\. Was it made under jit"
    for use in (lambda: pattern.gather(KERNEL), lambda: pattern.scatter(np.ones(5, np.float32)), pattern.mask):
        with pytest.raises(ValueError, match=message):
            use()
    with pytest.raises(ValueError, match="last element 6; expected at most nse = 5"):
        pattern.validate()
    with pytest.raises((jax.errors.JaxRuntimeError, ValueError), match="indptr has last element 6"):
        jax.block_until_ready(spmm(jnp.ones(5), pattern, jnp.ones((1, 6))))


def test_a_weight_that_is_not_stored_does_not_multiply() -> None:
    """As the documentation says, with the check that it names."""
    pattern = SparsityPattern.from_mask(np.array([[True, False], [False, True]]))
    x = jnp.array([[jnp.inf, 1.0]])
    np.testing.assert_array_equal(spmm(jnp.array([1.0, 3.0]), pattern, x), [[jnp.inf, 3.0]])
    assert np.isnan(x @ jnp.array([[1.0, 0.0], [0.0, 3.0]])).tolist() == [[False, True]]
    assert not bool(jnp.isfinite(x).all())
