"""Channel sums: values, gradients, dtypes and transformations against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from sparsejax.kernels import Layout, add_bias, channel_dot, channel_scale, channel_shift, channel_sum

SHAPES = [(1, 1), (7, 5), (33, 3), (2, 9, 4), (16, 5, 3, 2), (3, 70, 60, 1), (70, 1100)]
DTYPES = ["float32", "float64", "bfloat16"]


def random(shape, dtype, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def wide(x):
    return np.asarray(x, np.float64)


@pytest.mark.parametrize("layout", Layout)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_sums_match_numpy(shape, dtype, layout):
    with jax.enable_x64(dtype == "float64"):
        x, y = random(shape, dtype), random(shape, dtype, 1)
        axes = tuple(range(len(shape) - 1))
        total, dot = channel_sum(x, layout=layout), channel_dot(x, y, layout=layout)
        assert total.dtype == dot.dtype == (jnp.float64 if dtype == "float64" else jnp.float32)
        count = np.prod(shape[:-1])
        tolerance = (1e-14 if dtype == "float64" else 1e-6) * np.sqrt(count)
        np.testing.assert_allclose(total, wide(x).sum(axes), atol=4 * tolerance, rtol=1e-6)
        np.testing.assert_allclose(dot, (wide(x) * wide(y)).sum(axes), atol=4 * tolerance, rtol=1e-6)


def test_a_long_sum_keeps_its_digits():
    x = jnp.full((64, 128, 128, 2), 0.1, jnp.float32)
    exact = np.float64(np.float32(0.1)) * 64 * 128 * 128
    for layout in Layout:
        np.testing.assert_allclose(channel_sum(x, layout=layout), [exact, exact], rtol=1e-6)


def test_scale_and_shift_match_numpy():
    x, v = random((5, 3, 4), "float32"), random((4,), "float32", 1)
    np.testing.assert_array_equal(channel_scale(x, v), np.asarray(x) * np.asarray(v))
    np.testing.assert_array_equal(channel_shift(x, v), np.asarray(x) + np.asarray(v))


@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 4)])
def test_add_bias_and_its_gradient(shape):
    x, b = random(shape, "float32"), random((4,), "float32", 1)
    np.testing.assert_array_equal(add_bias(x, b), np.asarray(x) + np.asarray(b))
    w = random(shape, "float32", 2)
    grad = jax.grad(lambda b: jnp.vdot(add_bias(x, b), w))(b)
    np.testing.assert_allclose(grad, np.asarray(w).reshape(-1, 4).sum(0), rtol=1e-6)


@pytest.mark.parametrize("mode", ["fwd", "rev"])
def test_second_derivatives(mode):
    with jax.enable_x64(True):
        x, s = random((3, 2, 2, 3), "float64"), random((3,), "float64", 1)
        check_grads(channel_sum, (x,), order=2, modes=(mode,))
        check_grads(channel_dot, (x, x + 1), order=2, modes=(mode,))
        check_grads(channel_scale, (x, s), order=2, modes=(mode,))
        check_grads(channel_shift, (x, s), order=2, modes=(mode,))
        check_grads(lambda x, s: channel_dot(channel_scale(x, s), channel_shift(x, s)), (x, s), 2, (mode,))


@pytest.mark.parametrize("axis", [0, 1, 2, 3])
def test_vmap_folds_any_axis(axis):
    x, y = random((2, 3, 4, 5), "float32"), random((2, 3, 4, 5), "float32", 1)
    mapped = jax.vmap(channel_dot, in_axes=(axis, axis))(x, y)
    rest = tuple(a for a in range(3) if a != axis) if axis < 3 else (0, 1)
    product = np.moveaxis(wide(x) * wide(y), axis, 0)
    np.testing.assert_allclose(mapped, product.sum((1, 2)), rtol=1e-5, atol=1e-5)
    assert len(rest) == 2 and mapped.shape == (x.shape[axis], product.shape[-1])


def test_vmap_with_one_operand_shared():
    x, y = random((4, 3, 5), "float32"), random((3, 5), "float32", 1)
    np.testing.assert_allclose(
        jax.vmap(channel_dot, in_axes=(0, None))(x, y), (wide(x) * wide(y)).sum(1), rtol=1e-5, atol=1e-5
    )


def test_other_platforms_get_plain_operations():
    def step(x):
        return jax.grad(lambda x: channel_dot(x, x).sum() + channel_sum(x).sum())(x)

    text = jax.jit(step).trace(jnp.ones((2, 3))).lower(lowering_platforms=("cuda",)).as_text()
    assert "custom_call" not in text


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: channel_sum(jnp.ones(3)), r"channel_sum: x has shape \(3,\); expected two or more axes"),
        (lambda: channel_sum(jnp.ones((2, 3), jnp.int32)), "channel_sum: x has dtype int32; expected"),
        (lambda: channel_dot(jnp.ones((2, 3)), jnp.ones((3, 3))), r"channel_dot: y has float32\[3, 3\]"),
        (lambda: channel_scale(jnp.ones((2, 3)), jnp.ones(2)), r"channel_scale: scale has float32\[2\]"),
        (lambda: channel_shift(jnp.ones((2, 3)), jnp.ones(4)), r"channel_shift: shift has float32\[4\]"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
