"""The faults observed in SparseProp 0.1.14 (df97d8e), each as a test of ours.

The wrong results there came from remainders of the batch, ignored strides of the operands, counters that are too
narrow, and arguments that were accepted but not supported.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sparsejax
from helpers.grid import ConvCase, assert_close, conv_forward, conv_input_grad, dense_kernel, make_pattern, normal, wide
from helpers.kernel_checks import check_conv, check_matmul
from sparsejax import SparsityPattern, conv, spmm

pytestmark = pytest.mark.usefixtures("strict_dtypes")


def image(batch: int, size: int, stride: int = 1, window: int = 3, **changes: Any) -> ConvCase:
    """A square convolution of 4 features to 5."""
    pad, pair = window // 2, (stride, stride)
    case = ConvCase(batch, (size, size), 4, 5, (window, window), pair, ((pad, pad), (pad, pad)), (1, 1), (1, 1), 1)
    return case._replace(**changes)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("batch", [4, 9, 20])
def test_batch_that_is_no_multiple_of_eight(batch: int, stride: int) -> None:
    check_conv(image(batch, 9, stride), "random", "float32")


def test_inputs_of_a_convolution_in_any_layout() -> None:
    """A channels-first array seen as channels-last, and the output of a layer followed by ReLU only."""
    pattern, mask = make_pattern("random", (3, 3, 4, 4))
    data = normal(0, (pattern.nse,), "float32")
    channels_first = normal(1, (9, 4, 8, 8), "float32")

    @jax.jit
    def both(data: Any, x: Any) -> Any:
        first = conv(data, pattern, jnp.transpose(x, (0, 2, 3, 1)))
        return first, conv(data, pattern, jax.nn.relu(first))

    first, second = both(data, channels_first)
    case, kernel = image(9, 8)._replace(out_features=4), dense_kernel(mask, data)
    x = wide(channels_first).transpose(0, 2, 3, 1)
    for got, source in ((first, x), (second, np.maximum(wide(first), 0))):
        size = conv_forward(case, np.abs(kernel), np.abs(source))
        assert_close(got, conv_forward(case, kernel, source), size, "float32")


def test_broadcast_cotangent() -> None:
    """The gradient of a plain sum of the outputs."""
    pattern, mask = make_pattern("random", (3, 3, 4, 5))
    data, x = normal(0, (pattern.nse,), "float32"), normal(1, (7, 8, 8, 4), "float32")
    got = jax.jit(jax.grad(lambda v: jnp.sum(conv(data, pattern, v))))(x)
    case, kernel, ones = image(7, 8), dense_kernel(mask, data), np.ones((7, 8, 8, 5))
    size = conv_input_grad(case, np.abs(kernel), ones)
    assert_close(got, conv_input_grad(case, kernel, ones), size, "float32")


@pytest.mark.parametrize("view", [lambda a: a.T, lambda a: a[:, 16:48], lambda a: a[::2, ::-1][:, :32]])
def test_inputs_of_a_linear_layer_in_any_layout(view: Any) -> None:
    pattern, mask = make_pattern("random", (32, 16))
    data, base = normal(0, (pattern.nse,), "float32"), normal(1, (32, 64), "float32")
    kernel, x = dense_kernel(mask, data), wide(view(base))
    for got in (spmm(data, pattern, view(base)), jax.jit(lambda a: spmm(data, pattern, view(a)))(base)):
        assert_close(got, x @ kernel, np.abs(x) @ np.abs(kernel), "float32")


@pytest.mark.parametrize("offset", [1, 3, 5])
def test_storage_that_is_not_aligned(offset: int) -> None:
    pattern, mask = make_pattern("full", (16, 16))
    x = normal(1, (16 * 16 + offset,), "float32")[offset:].reshape(16, 16)
    data = normal(0, (pattern.nse + offset,), "float32")[offset:]
    assert x.ctypes.data % 32 or data.ctypes.data % 32
    kernel = dense_kernel(mask, data)
    for v in (x, jax.dlpack.from_dlpack(x), jnp.asarray(x)):
        assert_close(spmm(data, pattern, v), wide(x) @ kernel, np.abs(wide(x)) @ np.abs(kernel), "float32")


def test_more_gradients_than_a_stack_holds() -> None:
    """2.4 million entries; 8 MiB of float32 are 2.1 million."""
    mask = np.random.default_rng(0).random((3, 3, 1024, 1024)) < 0.25
    pattern = SparsityPattern.from_mask(mask)
    assert pattern.nse > 2_200_000
    x, ct = normal(1, (8, 1, 1, 1024), "float32"), normal(2, (8, 1, 1, 1024), "float32")
    data = jnp.asarray(normal(0, (pattern.nse,), "float32"))
    _, vjp = jax.vjp(lambda d: conv(d, pattern, x), data)
    want = np.zeros(mask.shape)
    want[1, 1] = wide(x)[:, 0, 0].T @ wide(ct)[:, 0, 0]  # one pixel meets the central tap only
    np.testing.assert_allclose(pattern.scatter(vjp(jnp.asarray(ct))[0]), np.where(mask, want, 0), atol=1e-5)


@pytest.mark.parametrize("kind", ["empty", "random"])
def test_all_weights_zero(kind: str) -> None:
    """Nothing stored, or zeros stored: gradients of the weights are those of any other value."""
    for shape in ((6, 5), (3, 3, 4, 5)):
        pattern, _ = make_pattern(kind, shape)
        x = jnp.asarray(normal(1, (7, 6) if len(shape) == 2 else (7, 8, 8, 4), "float32"))

        def f(d: Any, v: Any, pattern: SparsityPattern = pattern, two: bool = len(shape) == 2) -> Any:
            return spmm(d, pattern, v) if two else conv(d, pattern, v)

        y, vjp = jax.vjp(f, jnp.zeros(pattern.nse), x)
        of_data, of_x = vjp(jnp.ones_like(y))
        assert not np.any(y) and not np.any(of_x)
        assert np.all(np.asarray(of_data) != 0) and of_data.shape == (pattern.nse,)


def test_more_than_32767_entries_in_an_output() -> None:
    mask = np.ones((1, 1, 40_000, 2), bool)
    mask[0, 0, ::7, 1] = False
    pattern = SparsityPattern.from_mask(mask)
    x, ct = np.ones((2, 2, 2, 40_000), np.float32), np.ones((2, 2, 2, 2), np.float32)
    y, vjp = jax.vjp(lambda d, v: conv(d, pattern, v), jnp.ones(pattern.nse), jnp.asarray(x))
    assert np.array_equal(y[0, 0, 0], mask[0, 0].sum(axis=0))
    of_data, of_x = vjp(jnp.asarray(ct))
    assert np.array_equal(of_data, np.full(pattern.nse, 8))
    assert np.array_equal(of_x[1, 1, 1], mask[0, 0].sum(axis=1))


@pytest.mark.parametrize(
    "changes",
    [
        {"in_features": 8, "out_features": 6, "groups": 2},
        {"kernel_dilation": (2, 3)},
        {"input_dilation": (3, 2)},
        {"strides": (2, 1)},
        {"padding": ((2, 0), (1, 3))},
        {"window": (5, 2)},
        {"spatial": (6, 13)},
    ],
)
def test_arguments_that_differ_from_the_square_case(changes: dict[str, Any]) -> None:
    check_conv(image(9, 8)._replace(**changes), "random", "float32")


@pytest.mark.parametrize("padding", ["SAME", "VALID", "CIRCULAR"])
def test_padding_by_name(padding: str) -> None:
    pattern, mask = make_pattern("random", (3, 3, 4, 5))
    data, x = normal(0, (pattern.nse,), "float32"), normal(1, (9, 8, 8, 4), "float32")
    got = conv(data, pattern, x, padding=padding)
    case, kernel, source = image(9, 8), dense_kernel(mask, data), wide(x)
    if padding == "CIRCULAR":
        source, case = np.pad(source, [(0, 0), (1, 1), (1, 1), (0, 0)], mode="wrap"), case._replace(spatial=(10, 10))
    if padding != "SAME":
        case = case._replace(padding=((0, 0), (0, 0)))
    size = conv_forward(case, np.abs(kernel), np.abs(source))
    assert_close(got, conv_forward(case, kernel, source), size, "float32")


@pytest.mark.parametrize("stride", [3, 4, 7])
def test_stride_above_two(stride: int) -> None:
    check_conv(image(9, 14, stride), "random", "float32")


def test_more_entries_than_a_float_counts() -> None:
    """17 million entries: row pointers beyond 2**24 that were rounded to float32 are off by one."""
    rng = np.random.default_rng(0)
    mask = np.ones((4096, 4200), bool)
    mask[rng.integers(0, 4096, 5000), rng.integers(0, 4200, 5000)] = False
    pattern = SparsityPattern.from_mask(mask)
    assert pattern.nse > 2**24
    data = jnp.ones(pattern.nse)
    y, vjp = jax.vjp(lambda v: spmm(data, pattern, v), jnp.ones((1, 4096)))
    assert np.array_equal(y[0], mask.sum(axis=0))
    assert np.array_equal(vjp(jnp.ones((1, 4200)))[0][0], mask.sum(axis=1))
    position = jnp.asarray(np.arange(4200, dtype=np.float32)[None])
    of_data = sparsejax.kernels.sddmm(pattern, jnp.ones((1, 4096)), position)
    assert np.array_equal(of_data, np.repeat(np.arange(4200), mask.sum(axis=0)))


@pytest.mark.parametrize("size", [16, 32])
def test_stride_two_to_the_end_of_a_row(size: int) -> None:
    """Infinite neighbours show a value that is added to another pixel's gradient even if it is zero times it."""
    case = image(8, size, stride=2)
    check_conv(case, "random", "float32")
    pattern, _ = make_pattern("full", case.kernel_shape)
    ct = np.zeros((8, size // 2, size // 2, 5), np.float32)
    ct[:, :, -1] = np.inf  # the last output column reads the three last input columns
    x = jnp.zeros((8, size, size, 4))
    _, vjp = jax.vjp(lambda v: conv(jnp.ones(pattern.nse), pattern, v, strides=2, padding=1), x)
    (of_x,) = vjp(jnp.asarray(ct))
    assert np.isfinite(of_x[:, :, : size - 3]).all() and np.isinf(of_x[:, :, size - 3 :]).all()


def test_a_stored_weight_that_is_zero_stays_stored() -> None:
    for shape in ((6, 5), (3, 3, 4, 5)):
        pattern, mask = make_pattern("padded", shape)
        data = normal(0, (pattern.nse,), "float32")
        data[::2] = 0.0
        again = pattern.gather(pattern.scatter(data))
        data[mask.sum() :] = 0.0  # the capacity's padding
        assert np.array_equal(again, data)
        assert np.array_equal(pattern.mask(), mask)
        gradient = jax.grad(lambda d, p=pattern: jnp.sum(p.scatter(d)))(jnp.asarray(data))
        assert np.array_equal(gradient, np.arange(pattern.nse) < mask.sum())
    values, kept = SparsityPattern.from_scipy(make_pattern("random", (6, 5))[0].to_scipy(np.zeros(len_of((6, 5)))))
    assert kept.nse == len_of((6, 5)) and not np.any(values)


def len_of(shape: tuple[int, ...]) -> int:
    """Entries of the random pattern of a shape."""
    return make_pattern("random", shape)[0].nse


def test_training_through_zero() -> None:
    """A weight at zero has a gradient and moves on."""
    pattern, mask = make_pattern("random", (6, 5))
    check_matmul(pattern, mask, 7, "float32")
    x = jnp.asarray(normal(1, (7, 6), "float32"))
    gradient = jax.grad(lambda d: jnp.sum((spmm(d, pattern, x) - jnp.float32(1)) ** 2))(jnp.zeros(pattern.nse))
    assert np.all(np.asarray(gradient) != 0)
