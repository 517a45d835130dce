"""Pooling against Flax: values, gradients, padding, ties, NaN, dtypes and transformations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.test_util import check_grads

from sparsejax.kernels import BATCH_MINOR, ROW_MAJOR, Layout, _pool, _reference_pool, avg_pool, max_pool
from sparsejax.kernels._geometry import PoolGeometry

CASES = [
    ((2, 2), (2, 2), "VALID"),
    ((3, 3), (2, 2), ((1, 1), (1, 1))),
    ((3, 2), (1, 3), "SAME"),
    ((9, 7), None, "VALID"),
    ((1, 1), (3, 2), "VALID"),
    ((2, 3), (4, 4), ((0, 1), (2, 0))),
]
BATCHES = [1, 4, 16, 65]


def random(shape, dtype="float32", seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize(("window", "strides", "padding"), CASES)
@pytest.mark.parametrize(("ours", "flax"), [(max_pool, nnx.max_pool), (avg_pool, nnx.avg_pool)])
def test_matches_flax(ours, flax, window, strides, padding, batch):
    x = random((batch, 9, 7, 5))
    expected, pullback = jax.vjp(lambda x: flax(x, window, strides, padding), x)
    layout = Layout(batch % 2)
    got, our_pullback = jax.vjp(lambda x: ours(x, window, strides, padding, layout=layout), x)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    w = random(expected.shape, seed=1)
    np.testing.assert_allclose(our_pullback(w)[0], pullback(w)[0], rtol=1e-5, atol=1e-6)


def test_average_that_leaves_padding_out():
    x = random((2, 5, 6, 3))
    args = ((3, 2), (2, 1), ((1, 1), (1, 0)), False)
    np.testing.assert_allclose(avg_pool(x, *args), nnx.avg_pool(x, *args), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(8, 3), (2, 8, 3), (4, 2, 8, 3)])
def test_one_spatial_axis_and_any_batch_axes(shape):
    x = random(shape)
    expected = jnp.maximum(x[..., 0::2, :], x[..., 1::2, :])
    np.testing.assert_array_equal(max_pool(x, (2,), (2,)), expected)


def test_ties_give_the_gradient_to_the_first_and_nan_wins():
    x = jnp.array([1.0, 1.0, 0.0, jnp.nan]).reshape(1, 4, 1)
    y = max_pool(x, (2,), (2,)).ravel()
    assert y[0] == 1 and jnp.isnan(y[1])
    grad = jax.grad(lambda x: max_pool(x, (2,), (2,)).sum())(x).ravel()
    np.testing.assert_array_equal(grad, [1, 0, 0, 1])


def test_a_window_in_the_padding_is_minus_infinity_without_gradient():
    x = jnp.ones((1, 2, 1))
    y, pullback = jax.vjp(lambda x: max_pool(x, (2,), (2,), ((2, 0),)), x)
    np.testing.assert_array_equal(y.ravel(), [-np.inf, 1])
    np.testing.assert_array_equal(pullback(jnp.ones_like(y))[0].ravel(), [1, 0])


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize(("batch", "layouts"), [(1, BATCH_MINOR), (5, ROW_MAJOR), (64, ROW_MAJOR), (70, BATCH_MINOR)])
def test_every_primitive_matches_its_meaning(dtype, batch, layouts):
    with jax.enable_x64(dtype == "float64"):
        g = PoolGeometry((7, 6), (3, 2), (2, 3), ((1, 1), (0, 1)))
        x, y = random((batch, 7, 6, 3), dtype), random((batch, *g.out_spatial, 3), dtype, 1)
        best, arg = _pool._max_pool(x, geometry=g, layouts=layouts)
        expected, expected_arg = _reference_pool.max_pool(x, geometry=g)
        np.testing.assert_array_equal(best, expected)
        np.testing.assert_array_equal(arg, expected_arg)
        for name, args in [
            ("sum_pool", (x,)),
            ("sum_unpool", (y,)),
            ("max_take", (x, arg)),
            ("max_put", (y, arg)),
        ]:
            got = getattr(_pool, f"_{name}")(*args, geometry=g, layouts=layouts)
            want = getattr(_reference_pool, name)(*args, geometry=g)
            assert got.dtype == want.dtype == x.dtype
            tolerance = {"float32": 1e-6, "float64": 1e-14, "bfloat16": 1e-2}[dtype]
            np.testing.assert_allclose(
                np.asarray(got, np.float64), np.asarray(want, np.float64), rtol=tolerance, atol=tolerance
            )


def test_a_record_of_winners_that_names_no_tap_reads_and_writes_nothing():
    g = PoolGeometry((4,), (2,), (2,), ((0, 0),))
    arg = jnp.array([-1, 2**31 - 1], jnp.int32).reshape(1, 2, 1)
    x, y = jnp.ones((1, 4, 1)), jnp.ones((1, 2, 1))
    for layouts in (ROW_MAJOR, BATCH_MINOR):
        taken = _pool._max_take(x, arg, geometry=g, layouts=layouts)
        put = _pool._max_put(y, arg, geometry=g, layouts=layouts)
        assert not taken.any() and not put.any()
        assert taken.shape == y.shape and put.shape == x.shape


@pytest.mark.parametrize("pool", [max_pool, avg_pool])
def test_second_derivatives_and_vmap(pool):
    with jax.enable_x64(True):
        x = random((2, 4, 4, 3), "float64")
        check_grads(lambda x: pool(x**2, (2, 2), (2, 1)), (x,), order=2, modes=("fwd", "rev"))
    many = random((3, 2, 4, 4, 3))
    for axis in (0, 1, 4):
        mapped = jax.vmap(lambda x: pool(x, (2, 2)), in_axes=axis, out_axes=axis)(many)
        looped = jnp.stack([pool(x, (2, 2)) for x in jnp.moveaxis(many, axis, 0)], axis)
        np.testing.assert_array_equal(mapped, looped)


def test_under_jit_scan_and_remat():
    x = random((4, 6, 6, 2))

    def step(carry, x):
        return carry + jax.checkpoint(lambda x: max_pool(x, (2, 2)))(x).sum(), None

    def total(xs):
        return jax.lax.scan(step, 0.0, xs)[0]

    grad = jax.jit(jax.grad(total))(x[:, None])
    np.testing.assert_array_equal(grad[:, 0], jax.grad(lambda x: max_pool(x, (2, 2)).sum())(x))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: max_pool(x, (2, 2, 2)), "max_pool: window_shape has 3 axes; expected one or two"),
        (
            lambda x: max_pool(x, (9, 9)),
            r"max_pool: x has spatial shape \(4, 4\); expected room for the window",
        ),
        (lambda x: avg_pool(x, (2, 2), (0, 1)), r"avg_pool: strides has value \(0, 1\)"),
        (lambda x: avg_pool(x, (2, 2), padding="CIRCULAR"), "avg_pool: padding has value 'CIRCULAR'"),
        (lambda x: avg_pool(x, (2, 2), padding=((0, 0), (-1, 0))), "expected no negative amounts"),
        (lambda x: max_pool(x.astype(jnp.int32), (2, 2)), "max_pool: x has dtype int32"),
        (lambda x: max_pool(x[0, 0], (2, 2)), r"max_pool: x has shape \(4, 3\); expected at least 3 axes"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(jnp.ones((1, 4, 4, 3)))
