"""A sparse layer called alone: row-major in and out, and no activation is copied or transposed."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sparsejax import SparsityPattern, spmm
from sparsejax.kernels import BATCH_MINOR, ROW_MAJOR, Layout, add_bias, conv, max_pool
from sparsejax.nn import SparseLinear

BATCH, IN, OUT = 64, 48, 80
SIZE = BATCH * IN  # elements of the smaller activation
LAYOUT = re.compile(r"f32\[([\d,]+)\]\{([\d,]+)")


def _pattern() -> SparsityPattern:
    return SparsityPattern.from_mask(np.random.default_rng(0).random((IN, OUT)) < 0.1)


def _layer(data: jax.Array, bias: jax.Array, x: jax.Array, pattern: SparsityPattern, **options: Any) -> jax.Array:
    return jax.nn.gelu(add_bias(spmm(data, pattern, x, **options), bias))


def _loss(data: jax.Array, bias: jax.Array, x: jax.Array, pattern: SparsityPattern, **options: Any) -> jax.Array:
    return jnp.sum(jnp.sin(_layer(data, bias, x, pattern, **options)))


def _mapped(data: jax.Array, bias: jax.Array, x: jax.Array, pattern: SparsityPattern) -> jax.Array:
    parts = x.reshape(4, BATCH // 4, IN)
    return jnp.sum(jax.vmap(lambda v: spmm(data, pattern, v))(parts) * bias)


def _scanned(data: jax.Array, bias: jax.Array, x: jax.Array, pattern: SparsityPattern) -> jax.Array:
    """The products of three steps; the batch stays whole."""

    def step(carry: jax.Array, _: None) -> tuple[jax.Array, None]:
        y = _layer(data, bias, carry, pattern)
        return carry + y[:, :IN], None

    return jnp.sum(jax.lax.scan(step, x, None, length=3)[0])


def _sharded(data: jax.Array, bias: jax.Array, x: jax.Array, pattern: SparsityPattern) -> jax.Array:
    mesh = jax.make_mesh((1,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    shards = jax.sharding.PartitionSpec("batch")
    layer = functools.partial(_layer, pattern=pattern)
    mapped = jax.shard_map(layer, mesh=mesh, in_specs=(jax.P(), jax.P(), shards), out_specs=shards)
    return jnp.sum(jnp.sin(mapped(data, bias, x)))


def _tokens(data: jax.Array, bias: jax.Array, x: jax.Array, pattern: SparsityPattern) -> jax.Array:
    """A layer of Flax on several batch axes."""
    layer = SparseLinear(IN, OUT, pattern=pattern, rngs=nnx.Rngs(0))
    layer.kernel[...], layer.bias[...] = data, bias
    return jnp.sum(jax.nn.gelu(layer(x.reshape(4, BATCH // 4, IN))))


def _convolved(data: jax.Array, x: jax.Array, pattern: SparsityPattern) -> jax.Array:
    y = conv(data, pattern, x, strides=2, layouts=ROW_MAJOR)
    return jnp.sum(jnp.sin(max_pool(jax.nn.relu(y), (2, 2), layout=Layout.ROW_MAJOR)))


def _moved(text: str) -> list[str]:
    """Instructions that give an activation another order in memory."""
    found = []
    for line in text.splitlines():
        match = re.search(r" = f32\[([\d,]+)\]\{([\d,]+)\S* (copy|transpose)\(", line)
        if match is not None and np.prod([int(n) for n in match.group(1).split(",")]) >= SIZE:
            found.append(line.strip()[:160])
    return found


def _not_row_major(text: str) -> list[str]:
    orders = {m.group(0) for m in LAYOUT.finditer(text) if m.group(1).count(",")}
    return [o for o in orders if [int(i) for i in o.split("{")[1].split(",")] != list(range(o.count(",") // 2, -1, -1))]


STEPS: dict[str, Callable[..., Any]] = {
    "forward": _layer,
    "grad": jax.value_and_grad(_loss, (0, 1, 2)),
    "vmap": jax.value_and_grad(_mapped, (0, 1, 2)),
    "tokens": jax.value_and_grad(_tokens, (0, 1, 2)),
    "scan": jax.value_and_grad(_scanned, (0, 1, 2)),
    "shard_map": jax.value_and_grad(_sharded, (0, 1, 2)),
}


def _operands() -> tuple[Any, ...]:
    pattern = _pattern()
    return jnp.ones(pattern.nse), jnp.ones(OUT), jnp.ones((BATCH, IN)), pattern


@pytest.mark.parametrize("name", STEPS)
def test_no_activation_moves(name: str) -> None:
    text = jax.jit(STEPS[name]).lower(*_operands()).compile().as_text()
    assert "sparsejax_spmm_v2" in text
    assert _not_row_major(text) == []
    if name != "scan":  # whose carry XLA copies, in the same order
        assert _moved(text) == []


def test_no_image_moves() -> None:
    pattern = SparsityPattern.from_mask(np.random.default_rng(0).random((3, 3, 12, 8)) < 0.2)
    operands = jnp.ones(pattern.nse), jnp.ones((64, 10, 10, 12)), pattern
    text = jax.jit(jax.value_and_grad(_convolved, (0, 1))).lower(*operands).compile().as_text()
    assert "sparsejax_conv_backward_v2" in text and "sparsejax_max_put_v2" in text
    assert _not_row_major(text) == [] and _moved(text) == []


def test_the_check_finds_what_moves() -> None:
    """The same layer in the other layout is transposed at both ends."""
    step = functools.partial(_layer, layouts=BATCH_MINOR)
    text = jax.jit(step).lower(*_operands()).compile().as_text()
    assert _moved(text) != [] and _not_row_major(text) != []


def test_an_eager_call_returns_row_major_memory() -> None:
    data, _, x, pattern = _operands()
    y = spmm(data, pattern, x)
    assert y.format.layout.major_to_minor == (0, 1)
