"""A pattern without its transposed orientation gives the same bits, and derives what is left out where it is read."""

from __future__ import annotations

import dataclasses

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import sparsejax as sx
from sparsejax.kernels import conv, spmm, spmm_t
from sparsejax.pattern import SparsityPattern
from sparsejax.pattern._build import both_orientations
from sparsejax.pattern._pattern import ARRAYS

MATRIX = np.random.default_rng(0).random((40, 24)) < 0.2
WINDOWS = np.random.default_rng(1).random((3, 3, 4, 6)) < 0.3


def pair(mask: np.ndarray, extra: int) -> tuple[SparsityPattern, SparsityPattern]:
    whole = SparsityPattern.from_mask(mask, int(mask.sum()) + extra)
    return whole, whole.forward_only()


@pytest.mark.parametrize("extra", [0, 7])
@pytest.mark.parametrize("mask", [MATRIX, WINDOWS, np.zeros((5, 3), bool), np.ones((2, 2), bool)])
def test_the_derived_arrays_are_those_of_the_mask(mask, extra):
    whole, forward = pair(mask, extra)
    derived = both_orientations(*(getattr(forward.validate(), name) for name in ARRAYS))
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(derived, name), getattr(whole, name), err_msg=name)
    assert sum(a.nbytes for a in jax.tree.leaves(whole)) - sum(a.nbytes for a in jax.tree.leaves(forward)) == (
        8 * whole.nse
    )


@pytest.mark.parametrize("extra", [0, 7])
@pytest.mark.parametrize("jit", [False, True])
def test_products_and_gradients_have_the_same_bits(extra, jit):
    whole, forward = pair(MATRIX, extra)
    data = jnp.arange(1.0, whole.nse + 1)
    x, y = jnp.sin(jnp.arange(70 * 40.0)).reshape(70, 40), jnp.cos(jnp.arange(70 * 24.0)).reshape(70, 24)

    def all_of(pattern):
        def loss(data, x):
            return jnp.sum(spmm(data, pattern, x) ** 2)

        hessian = jax.jvp(jax.grad(loss, (0, 1)), (data, x), (data, x))[1]
        mapped = jax.vmap(lambda x: spmm_t(data, pattern, x))(y)
        return spmm(data, pattern, x), spmm_t(data, pattern, y), jax.grad(loss, (0, 1))(data, x), hessian, mapped

    call = jax.jit(all_of) if jit else all_of
    for a, b in zip(jax.tree.leaves(call(whole)), jax.tree.leaves(call(forward)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_convolutions_have_the_same_bits():
    whole, forward = pair(WINDOWS, 3)
    data, x = jnp.arange(1.0, whole.nse + 1), jnp.sin(jnp.arange(2 * 25 * 4.0)).reshape(2, 5, 5, 4)
    both = [
        jax.value_and_grad(lambda d, x, p=p: jnp.sum(conv(d, p, x) ** 2), (0, 1))(data, x) for p in (whole, forward)
    ]
    for a, b in zip(*map(jax.tree.leaves, both), strict=True):
        np.testing.assert_array_equal(a, b)


def test_inference_sorts_nothing():
    _, forward = pair(MATRIX, 0)
    data, x = jnp.ones(forward.nse), jnp.ones((3, 40))
    product = jax.jit(spmm).lower(data, forward, x).compile().as_text()
    gradient = jax.jit(jax.grad(lambda x, p: spmm(data, p, x).sum())).lower(x, forward).compile().as_text()
    assert " sort(" not in product and " sort(" in gradient


def test_other_uses_of_the_pattern():
    whole, forward = pair(MATRIX, 2)
    data = jnp.arange(1.0, whole.nse + 1)
    np.testing.assert_array_equal(forward.to_bcsr(data).todense(), whole.to_bcsr(data).todense())
    assert forward.pad_to(300).is_forward_only and forward.pad_to(300).validate().nse == 300
    state = flax.serialization.to_state_dict(forward)
    assert flax.serialization.from_state_dict(whole, state) == forward != whole


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("indptr_t", jnp.zeros(41, jnp.int32), "indptr_t has pointers that differ from the row orientation"),
        ("perm_t", jnp.zeros(3, jnp.int32), r"perm_t has shape \(3,\); expected shape \(0,\)"),
        ("indices", jnp.full(int(MATRIX.sum()), 99, jnp.int32), "indices has element 0 equal to 99"),
    ],
)
def test_damaged_arrays_are_refused(field, value, message):
    _, forward = pair(MATRIX, 0)
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(forward, **{field: value}).validate()


@pytest.mark.parametrize("layer", [sx.nn.SparseConv, sx.nn.SparseConvTranspose])
def test_a_model_for_inference(layer):
    model = layer(4, 6, (3, 3), pattern=SparsityPattern.from_mask(WINDOWS), rngs=nnx.Rngs(0))
    x = jnp.ones((2, 5, 5, 4))
    before = model(x)
    assert sx.nn.forward_only(model) == 8 * int(WINDOWS.sum())
    np.testing.assert_array_equal(model(x), before)
    assert sx.nn.forward_only(model) == 0
