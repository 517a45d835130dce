"""Batch norm in one pass: results and gradients against NumPy in float64, special values, and bad input."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.grid import DTYPES, normal, wide
from helpers.norm_oracle import NormCase, check_norm, operands, run
from sparsejax.kernels import Layout, batch_norm

SHAPES = [(1, 3, 1), (2, 1), (3, 5, 7, 4), (16, 9, 2), (33, 3, 5, 67), (64, 12, 11, 1), (100, 5)]
GRID = [(shape, "float32") for shape in SHAPES] + [(SHAPES[i], d) for i in (2, 4) for d in ("float64", "bfloat16")]
layouts = pytest.mark.parametrize("layout", Layout, ids=lambda layout: layout.name.lower())


def stated(dtype):
    return jax.enable_x64(dtype == "float64")


@pytest.mark.parametrize(("shape", "dtype"), GRID, ids=str)
@pytest.mark.parametrize("activation", ["none", "relu"])
@pytest.mark.parametrize("residual", [False, True])
@layouts
def test_results_and_gradients(shape, residual, activation, dtype, layout):
    with stated(dtype):
        check_norm(NormCase(shape, residual, activation, layout=layout), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("scale", "bias"), [(False, True), (True, False), (False, False)])
def test_without_scale_or_bias(scale, bias, dtype):
    with stated(dtype):
        check_norm(NormCase((7, 6, 5), True, "relu", scale, bias), dtype)


@layouts
def test_several_runs_of_a_channel_and_several_channels_of_a_task(layout):
    check_norm(NormCase((64, 31, 30, 3), True, "relu", layout=layout), "float32")
    check_norm(NormCase((5, 3, 500), False, "relu", layout=layout), "float32")


def test_several_runs_and_parts_of_rows():
    """More rows than a run has; rows that are longer than a run; and more channels than elements of a part."""
    for shape in ((40, 30, 31, 37), (100, 7, 700), (3, 1, 150_001)):
        check_norm(NormCase(shape, True, "relu", layout=Layout.ROW_MAJOR), "float32")


def test_two_axes_are_row_major_unless_asked():
    text = jax.jit(lambda x: batch_norm(x, epsilon=1e-3)).lower(jnp.ones((4, 3))).as_text()
    assert "layouts = dense<1>" in text
    text = jax.jit(lambda x: batch_norm(x, epsilon=1e-3)).lower(jnp.ones((4, 2, 3))).as_text()
    assert "layouts = dense<0>" in text


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(0, 3), (3, 0, 2, 4), (5, 0), (0, 0)], ids=str)
@layouts
def test_empty_arrays(shape, dtype, layout):
    with stated(dtype):
        case = NormCase(shape, True, "relu", layout=layout)
        (y, mean, var), grads = run(case, operands(case, dtype))
        assert y.shape == grads["x"].shape == shape and mean.shape == var.shape == shape[-1:]
        assert np.isnan(mean).all() and np.isnan(var).all()  # as jnp.mean of nothing
        assert not np.any(grads["bias"])


@pytest.mark.parametrize("dtype", DTYPES)
@layouts
def test_forward_and_backward_agree_on_the_sign_to_the_bit(dtype, layout):
    """Biases that cancel one element each, up to the rounding that a fused multiply-add leaves out."""
    with stated(dtype):
        vector, channels = "float64" if dtype == "float64" else "float32", 200
        column = normal(0, (213, 1), dtype)
        x = np.broadcast_to(column, (213, channels))
        scale = jnp.full(channels, 0.7, vector)
        norm = functools.partial(batch_norm, x, scale, epsilon=0.0, layout=layout)
        flat, mean, var = norm()
        factor = (0.7 / np.sqrt(wide(var))).astype(vector)
        product = (x.astype(vector) - np.asarray(mean)) * factor  # rounded before the addition
        bias = -np.take_along_axis(product, np.arange(channels)[None] % 213, 0)[0]
        (y, _, _), vjp = jax.vjp(lambda b: norm(bias=b, activation="relu"), jnp.asarray(bias))
        (dbias,) = vjp((jnp.ones_like(y), jnp.zeros_like(mean), jnp.zeros_like(mean)))
        np.testing.assert_array_equal(wide(dbias), (wide(y) > 0).sum(0))
        assert (np.abs(wide(flat) + bias).min(0) <= 2.0**-8).all()


def test_the_derivative_of_relu_at_zero_is_zero():
    x = jnp.asarray([[1.0], [3.0]])
    for residual in (None, jnp.zeros_like(x)):
        y, vjp = jax.vjp(
            lambda s, r=residual: batch_norm(x, s, None, r, epsilon=0.0, activation="relu")[0], jnp.zeros(1)
        )
        assert not np.any(y) and not np.any(vjp(jnp.ones_like(y))[0])


@layouts
def test_a_large_mean_costs_no_digits_of_the_variance(layout):
    x = np.asarray(1e4 + 0.05 * normal(0, (64, 20, 20, 3), "float32"), np.float32)
    exact = x.astype(np.float64)
    _, mean, var = batch_norm(x, epsilon=0.0, layout=layout)
    np.testing.assert_allclose(mean, exact.mean((0, 1, 2)), rtol=1e-7)
    np.testing.assert_allclose(var, exact.var((0, 1, 2)), rtol=1e-4)


@pytest.mark.parametrize("dtype", DTYPES)
@layouts
def test_constant_channels(dtype, layout):
    with stated(dtype):
        x = jnp.broadcast_to(jnp.asarray([0.1, -7e3, 0.0, 1e30], dtype), (50, 7, 4))
        (y, mean, var), vjp = jax.vjp(lambda x: batch_norm(x, epsilon=1e-5, layout=layout), x)
        np.testing.assert_allclose(wide(mean), wide(x[0, 0]), rtol=1e-6)
        assert np.isfinite(wide(y)).all() and not np.any(var)
        assert np.isfinite(wide(vjp((jnp.ones_like(y), mean, var))[0])).all()


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("at", [(0, 0, 1), (2, 3, 1)], ids=str)
@layouts
def test_infinities_and_nan_stay_in_their_channel(bad, at, layout):
    x = normal(0, (16, 400, 3), "float32")
    x[at] = bad
    (y, mean, var), vjp = jax.vjp(lambda x: batch_norm(x, epsilon=1e-5, activation="relu", layout=layout), x)
    (dx,) = vjp((jnp.ones_like(y), jnp.zeros(3), jnp.zeros(3)))
    np.testing.assert_array_equal(mean[1], np.float32(bad))
    assert np.isnan(var[1]) and np.isnan(y[..., 1]).all() and np.isnan(dx[..., 1]).all()
    for good in (0, 2):
        assert np.isfinite(y[..., good]).all() and np.isfinite(dx[..., good]).all()


@pytest.mark.parametrize("of", ["y", "x"])
@pytest.mark.parametrize("residual", [False, True])
@layouts
def test_the_cotangent_that_dx_replaces_is_whole_where_it_is_needed(of, residual, layout):
    """The cotangent is another operand too, and read again afterwards."""
    norm = functools.partial(batch_norm, epsilon=1.0, activation="relu", layout=layout)
    x, r = (jnp.asarray(normal(i, (16, 5, 5, 8), "float32")) for i in range(2))

    def step(x, r):
        x = 2 * x
        y, vjp = jax.vjp(lambda x: norm(x, None, None, r if residual else None)[0], x)
        ct = y if of == "y" else x
        dx = vjp(ct)[0]
        return dx, ct + 0, jnp.cos(ct)

    dx, ct, after = jax.jit(step)(x, r)
    want, want_ct, want_after = step(x, r)  # one call each: nothing to share
    np.testing.assert_allclose(dx, want, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(ct, want_ct)
    np.testing.assert_allclose(after, want_after, atol=1e-6)
    np.testing.assert_array_equal(x, normal(0, (16, 5, 5, 8), "float32"))


X = np.ones((2, 3), np.float32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((X[0],), r"x has shape \(3,\); expected two or more axes, channels last"),
        ((X.astype(np.float16),), "x has dtype float16; expected dtype float32, float64 or bfloat16"),
        ((X, np.ones(2, np.float32)), r"scale has float32\[2\]; expected float32\[3\] to match x"),
        ((X, None, np.ones(3, np.int32)), r"bias has int32\[3\]; expected float32\[3\] to match x"),
        ((X, None, None, X[:1]), r"residual has float32\[1, 3\]; expected float32\[2, 3\], that of x"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=f"batch_norm: {message}"):
        batch_norm(*arguments, epsilon=1e-5)
    with pytest.raises(ValueError, match="batch_norm: activation has value 'tanh'; expected one of 'none', 'relu'"):
        batch_norm(X, epsilon=1e-5, activation="tanh")
