"""Attention in blocks under every transformation of JAX, against plain JAX that JAX differentiates itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from helpers.grid import normal
from sparsejax.kernels import attention, export_checks

pytestmark = pytest.mark.usefixtures("x64")

MASK = np.random.default_rng(0).random((2, 1, 5, 7)) < 0.7
BIAS = normal(9, (3, 1, 7), "float64")


def ours(q: Any, k: Any, v: Any, bias: Any = BIAS, mask: Any = MASK) -> Any:
    return attention(q, k, v, mask, bias=bias, causal=True)


def plain(q: Any, k: Any, v: Any, bias: Any = BIAS, mask: Any = MASK) -> Any:
    """The same from its definition."""
    scores = jnp.einsum("blhd,bshd->bhls", q, k) / jnp.sqrt(q.shape[-1]) + bias
    seen = mask & jnp.tril(jnp.ones(scores.shape[-2:], bool))
    weights = jax.nn.softmax(jnp.where(seen, scores, -1e30), axis=-1)
    return jnp.einsum("bhls,bshd->blhd", weights, v)


def operands() -> tuple[jax.Array, ...]:
    return tuple(jnp.asarray(normal(i, (2, n, 3, 4), "float64")) for i, n in enumerate((5, 7, 7)))


def loss(f: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *o: jnp.sum(jnp.sin(f(*o)))


def gradient(f: Callable[..., Any], o: Any) -> Any:
    return jax.grad(loss(f), tuple(range(len(o))))(*o)


def curved(f: Callable[..., Any], o: Any) -> Any:
    return sum(jnp.sum(jnp.cos(g)) for g in gradient(f, o))


def stack(a: Any, axis: int = 0) -> jax.Array:
    return jnp.stack([a, jnp.cos(a), a * a], axis)


def mapped_mask(f: Callable[..., Any], o: Any) -> Any:
    """A mask without a batch, mapped; and a bias that is not."""
    masks = jnp.stack([MASK[0, 0], ~MASK[1, 0]])
    return jax.vmap(lambda m: gradient(lambda *o: f(*o, mask=m), o))(masks)


RUN: dict[str, Callable[..., Any]] = {
    "grad": gradient,
    "grad_of_bias": lambda f, o: gradient(f, (*o, BIAS)),
    "jvp": lambda f, o: jax.jvp(f, o, tuple(map(jnp.cos, o))),
    "jvp_of_one": lambda f, o: [jax.jvp(lambda v, i=i: f(*o[:i], v, *o[i + 1 :]), (v,), (v,)) for i, v in enumerate(o)],
    "grad_of_grad": lambda f, o: jax.grad(lambda *o: curved(f, o), (0, 1, 2))(*o),
    "jvp_of_grad": lambda f, o: jax.jvp(lambda *o: gradient(f, o), o, tuple(map(jnp.cos, o))),
    "vmap_of_grad": lambda f, o: jax.vmap(lambda *o: gradient(f, o))(*map(stack, o)),
    "vmap_of_q": lambda f, o: jax.vmap(lambda q: f(q, *o[1:]), in_axes=2, out_axes=1)(stack(o[0], 2)),
    "vmap_of_mask": mapped_mask,
    "remat": lambda f, o: gradient(jax.checkpoint(f), o),
    "scan": lambda f, o: jax.grad(lambda q: jnp.sum(jax.lax.scan(lambda c, k: (f(c, *k), 0.0), q, o_of(o))[0]))(o[0]),
}


def o_of(o: Any) -> Any:
    return stack(o[1]), stack(o[2])


def assert_same(got: Any, want: Any) -> None:
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, rtol=1e-10, atol=1e-10), got, want)


@pytest.mark.parametrize("transformation", RUN)
def test_transformation(transformation: str) -> None:
    run = jax.jit(RUN[transformation], static_argnums=0)
    got, want = run(ours, operands()), run(plain, operands())
    assert any(np.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(want))
    assert_same(got, want)


def test_mapped_calls_are_one_call_and_no_matrix_of_scores_is_there() -> None:
    q, k, v = (jnp.asarray(normal(i, (2, 211, 1, 4), "float64")) for i in range(3))
    f = jax.jit(jax.vmap(lambda q: gradient(lambda *o: attention(*o), (q, k, v))))
    text = f.lower(stack(q)).as_text()
    assert "while" not in text and "211x211" not in text
    assert text.count("@sparsejax_attention_v1") == text.count("@sparsejax_attention_grad_v1") == 1


def test_other_platforms_get_plain_operations() -> None:
    step = jax.jit(lambda *o: gradient(ours, o)).trace(*operands())
    assert "custom_call" not in step.lower(lowering_platforms=("cuda",)).as_text()
    assert step.lower(lowering_platforms=("cpu",)).as_text().count("custom_call @sparsejax") == 2


def test_export_with_a_symbolic_batch() -> None:
    (batch,) = jax.export.symbolic_shape("batch")
    step = jax.jit(lambda *o: gradient(lambda *o: attention(*o, MASK[0], causal=True), o))
    shapes = [jax.ShapeDtypeStruct((batch, *a.shape[1:]), a.dtype) for a in operands()]
    loaded = jax.export.deserialize(jax.export.export(step, disabled_checks=export_checks())(*shapes).serialize())
    jax.tree.map(np.testing.assert_array_equal, list(loaded.call(*operands())), list(step(*operands())))


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=["auto", "explicit"])
def test_the_batch_stays_sharded(kind: AxisType) -> None:
    mesh = jax.make_mesh((2,), ("data",), axis_types=(kind,))
    placed = jax.device_put(operands(), NamedSharding(mesh, P("data")))
    step = jax.jit(lambda *o: gradient(lambda *o: attention(*o, MASK[0, 0], bias=BIAS), o))
    with jax.set_mesh(mesh):
        text, got = step.lower(*placed).compile().as_text(), step(*placed)
    assert "all-gather" not in text
    assert got[0].sharding.spec[0] == "data"
    assert_same(got, step(*operands()))


def test_shard_map() -> None:
    """Gradients of keys that all devices have are sums over the devices."""
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    q, k, v = operands()
    specs = (P("data"), P(), P())
    local = jax.shard_map(
        lambda *o: jax.lax.psum(loss(attention)(*o), "data"), mesh=mesh, in_specs=specs, out_specs=P()
    )
    got = jax.jit(jax.grad(local, (0, 1, 2)))(q, k[:1], v[:1])
    want = jax.grad(lambda q, k, v: loss(attention)(q, jnp.repeat(k, 2, 0), jnp.repeat(v, 2, 0)), (0, 1, 2))
    assert_same(got, want(q, k[:1], v[:1]))
