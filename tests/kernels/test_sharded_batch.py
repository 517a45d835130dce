"""A plain ``jit`` over a sharded batch: the same numbers as on one device, and no activation is gathered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import sparsejax as sx
from helpers.grid import make_pattern, normal
from sparsejax.kernels import add_bias, channel_dot, sddmm, spmm_t
from sparsejax.nn import avg_pool, max_pool

AXES = pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=["auto", "explicit"])


def linear() -> tuple[Callable[..., Any], Any, Any]:
    pattern, _ = make_pattern("padded", (6, 5))
    return lambda data, x: sx.spmm(data, pattern, x), normal(0, (pattern.nse,), "float32"), normal(1, (8, 6), "float32")


def tokens() -> tuple[Callable[..., Any], Any, Any]:
    f, data, x = linear()
    return f, data, x.reshape(4, 2, 6)


def transposed() -> tuple[Callable[..., Any], Any, Any]:
    pattern, _ = make_pattern("padded", (5, 6))
    f = lambda data, y: spmm_t(data, pattern, y)  # noqa: E731
    return f, normal(0, (pattern.nse,), "float32"), normal(1, (8, 6), "float32")


def convolution() -> tuple[Callable[..., Any], Any, Any]:
    pattern, _ = make_pattern("padded", (3, 3, 2, 4))
    f = lambda data, x: max_pool(avg_pool(sx.conv(data, pattern, x), (2, 2)), (2, 2))  # noqa: E731
    return f, normal(0, (pattern.nse,), "float32"), normal(1, (8, 5, 4, 2), "float32")


def place(kind: AxisType, x: Any) -> tuple[Any, Any]:
    mesh = jax.make_mesh((2,), ("data",), axis_types=(kind,))
    return mesh, jax.device_put(x, NamedSharding(mesh, P("data")))


def text_and_result(step: Any, *args: Any) -> tuple[str, Any]:
    compiled = step.lower(*args).compile()
    return compiled.as_text(), step(*args)


@AXES
@pytest.mark.parametrize("case", [linear, tokens, transposed, convolution])
def test_products_keep_the_batch_sharded(kind: AxisType, case: Any) -> None:
    f, data, x = case()

    def loss(data: Any, x: Any) -> Any:
        y = f(data, x)
        return jnp.mean(jnp.sin(add_bias(y, jnp.arange(y.shape[-1], dtype=jnp.float32))) ** 2)

    step = jax.value_and_grad(loss, (0, 1))
    expected = jax.jit(step)(data, x)
    mesh, sharded = place(kind, x)
    with jax.set_mesh(mesh):
        text, result = text_and_result(jax.jit(step), data, sharded)
    assert "all-gather" not in text
    assert text.count(" all-reduce(") >= 1
    assert result[1][1].sharding.spec[0] == "data"
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), result, expected)


@AXES
def test_weight_gradients_are_sums_over_devices(kind: AxisType) -> None:
    pattern, _ = make_pattern("padded", (6, 5))
    x, y = normal(0, (8, 6), "float32"), normal(1, (8, 5), "float32")
    mesh, (xs, ys) = place(kind, (x, y))
    with jax.set_mesh(mesh):
        text, result = text_and_result(jax.jit(lambda x, y: (sddmm(pattern, x, y), channel_dot(x, x))), xs, ys)
    assert "all-gather" not in text
    for a, b in zip(result, (sddmm(pattern, x, y), channel_dot(x, x)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_a_batch_that_does_not_divide_is_computed_whole() -> None:
    """Seven rows over two devices: XLA pads the shorter share, and the padding must not be summed."""
    f, data, x = linear()
    mesh, sharded = place(AxisType.Auto, x)

    def loss(data: Any, x: Any) -> Any:
        return jnp.sum(jnp.sin(f(data, x[:7])))

    with jax.set_mesh(mesh):
        result = jax.jit(jax.grad(loss))(data, sharded)
    np.testing.assert_allclose(result, jax.grad(loss)(data, x), rtol=1e-5)


class Net(nnx.Module):
    """Convolutions, batch norm with its activation, pooling and a head."""

    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.first = nnx.Conv(3, 8, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.second = nnx.Conv(8, 8, (3, 3), rngs=rngs)
        self.head = nnx.Linear(8, 4, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        x = sx.nn.norm_act(self.norm, self.first(x), activation="relu")
        return self.head(sx.nn.max_pool(self.second(x), (2, 2)).mean((1, 2)))


@AXES
def test_a_network_trains_as_on_one_device(kind: AxisType) -> None:
    """Batch norm uses the statistics of the whole batch, as ``jit`` means it."""
    model = Net()
    masks = {"first": np.ones((3, 3, 3, 8), bool), "second": np.arange(576).reshape(3, 3, 8, 8) % 3 == 0}
    sparse, _ = sx.sparsify(model, masks, policy="always", min_sparsity=0.1)
    x, y = normal(0, (8, 8, 8, 3), "float32"), jnp.arange(8) % 4

    def loss(model: Any, x: Any, y: Any) -> Any:
        return optax.softmax_cross_entropy_with_integer_labels(model(x), y).mean()

    expected = nnx.jit(nnx.value_and_grad(loss))(nnx.clone(sparse), x, y)
    mesh, (xs, ys) = place(kind, (x, y))
    with jax.set_mesh(mesh):
        graph, state = nnx.split(nnx.clone(sparse))
        replicated = nnx.merge(graph, jax.device_put(state, NamedSharding(mesh, P())))
        text, result = text_and_result(nnx.jit(nnx.value_and_grad(loss)), replicated, xs, ys)
    assert "all-gather" not in text
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), result, expected)
