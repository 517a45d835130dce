"""Batch norm in one pass under every transformation of JAX, against plain JAX that JAX differentiates itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from jax.test_util import check_grads

from helpers.grid import normal
from sparsejax.kernels import Layout, Layouts, _norm, _reference_norm, batch_norm, export_checks

pytestmark = pytest.mark.usefixtures("x64", "strict_dtypes")

KINDS = {
    "plain": (3, "none", None),
    "relu": (3, "relu", None),
    "residual": (4, "none", None),
    "residual_relu": (4, "relu", None),
    "row_major": (4, "relu", Layout.ROW_MAJOR),
}


def ours(kind: str) -> Callable[..., Any]:
    """The primitive as a function of x, scale, bias and, where the kind has one, the residual."""
    return lambda *o: batch_norm(*o, epsilon=1e-3, activation=KINDS[kind][1], layout=KINDS[kind][2])


def plain(kind: str) -> Callable[..., Any]:
    """The same from its definition."""

    def f(x: Any, scale: Any, bias: Any, residual: Any = None) -> Any:
        axes = tuple(range(x.ndim - 1))
        mean, var = x.mean(axes), x.var(axes)
        z = (x - mean) / jnp.sqrt(var + 1e-3) * scale + bias
        z = z if residual is None else z + residual
        return (jax.nn.relu(z) if KINDS[kind][1] == "relu" else z), mean, var

    return f


def operands(kind: str) -> tuple[jax.Array, ...]:
    shapes = ((5, 3, 2, 4), (4,), (4,), (5, 3, 2, 4))[: KINDS[kind][0]]
    return tuple(jnp.asarray(normal(i, shape, "float64")) for i, shape in enumerate(shapes))


def loss(f: Callable[..., Any]) -> Callable[..., Any]:
    """A scalar of all three results that is not linear in any."""

    def total(*o: Any) -> Any:
        y, mean, var = f(*o)
        return jnp.sum(jnp.sin(y)) + jnp.sum(mean**3) + jnp.sum(jnp.cos(var))

    return total


def gradient(f: Callable[..., Any], o: Any) -> Any:
    return jax.grad(loss(f), tuple(range(len(o))))(*o)


def curved(f: Callable[..., Any], o: Any) -> Any:
    """A scalar of the gradient."""
    return sum(jnp.sum(jnp.cos(g)) for g in gradient(f, o))


def stack(o: Any, axis: int = 0) -> list[jax.Array]:
    return [jnp.stack([a, jnp.cos(a), a * a], min(axis, a.ndim)) for a in o]


def scan(f: Callable[..., Any], o: Any) -> Any:
    """Gradient through layers that feed each other."""

    def total(x: Any, rest: Any) -> Any:
        step = jax.checkpoint(lambda x, r: (f(x, *r)[0] + x, f(x, *r)[2]))
        x, var = jax.lax.scan(step, x, rest)
        return jnp.sum(jnp.sin(x)) + jnp.sum(var)

    return jax.grad(total, (0, 1))(o[0], stack(o[1:]))


RUN: dict[str, Callable[..., Any]] = {
    "value": lambda f, o: f(*o),
    "grad": gradient,
    "grad_of_one": lambda f, o: [jax.grad(loss(f), i)(*o) for i in range(len(o))],
    "grad_of_statistics": lambda f, o: [jax.grad(lambda x, i=i: jnp.sum(f(x, *o[1:])[i] ** 2))(o[0]) for i in (1, 2)],
    "jvp": lambda f, o: jax.jvp(f, o, tuple(map(jnp.cos, o))),
    "jvp_of_one": lambda f, o: [jax.jvp(lambda v, i=i: f(*o[:i], v, *o[i + 1 :]), (v,), (v,)) for i, v in enumerate(o)],
    "grad_of_grad": lambda f, o: jax.grad(lambda *o: curved(f, o), tuple(range(len(o))))(*o),
    "jvp_of_grad": lambda f, o: jax.jvp(lambda *o: gradient(f, o), o, tuple(map(jnp.cos, o))),
    "grad_of_jvp": lambda f, o: jax.grad(lambda x: jnp.sum(jax.jvp(loss(f), (x, *o[1:]), tuple(map(jnp.sin, o)))[1]))(
        o[0]
    ),
    "hessian": lambda f, o: jax.hessian(loss(f), 1)(*o),
    "jacfwd": lambda f, o: jax.jacfwd(f, 1)(*o),
    "jacrev": lambda f, o: jax.jacrev(f, 0)(*o),
    "vmap": lambda f, o: jax.vmap(f)(*stack(o)),
    "vmap_of_one": lambda f, o: [
        jax.vmap(lambda v, i=i: f(*o[:i], v, *o[i + 1 :]), in_axes=1, out_axes=-1)(stack(o, 1)[i])
        for i in range(len(o))
    ],
    "vmap_of_grad": lambda f, o: jax.vmap(lambda *o: gradient(f, o))(*stack(o)),
    "grad_of_vmap": lambda f, o: gradient(jax.vmap(f), stack(o)),
    "vmap_of_vmap": lambda f, o: jax.vmap(lambda s: jax.vmap(lambda x: f(x, s, *o[2:]))(stack(o)[0]))(stack(o)[1]),
    "linearize": lambda f, o: (lambda y, linear: (y, linear(*map(jnp.cos, o))))(*jax.linearize(f, *o)),
    "scan": scan,
}


def assert_same(got: Any, want: Any) -> None:
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, rtol=1e-10, atol=1e-10), got, want)


# Without a residual the gate is computed again from x: its own way through each rule.
ALSO_WITHOUT_RESIDUAL = ("grad", "jvp", "grad_of_grad", "vmap_of_grad")
ALSO_ROW_MAJOR = (*ALSO_WITHOUT_RESIDUAL, "vmap", "scan")
CASES = [
    *((t, "residual_relu") for t in RUN),
    *((t, "relu") for t in ALSO_WITHOUT_RESIDUAL),
    *((t, "row_major") for t in ALSO_ROW_MAJOR),
]


@pytest.mark.parametrize(("transformation", "kind"), CASES)
def test_transformation(transformation: str, kind: str) -> None:
    run = jax.jit(RUN[transformation], static_argnums=0)
    got, want = run(ours(kind), operands(kind)), run(plain(kind), operands(kind))
    assert any(np.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(want))
    assert_same(got, want)


def test_without_jit() -> None:
    o = operands("residual_relu")
    assert_same(ours("residual_relu")(*o), plain("residual_relu")(*o))
    assert_same(gradient(ours("residual_relu"), o), gradient(plain("residual_relu"), o))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "row_major"])
def test_check_grads(kind: str) -> None:
    check_grads(jax.jit(ours(kind)), operands(kind), order=2, modes=("fwd", "rev"))


def test_mapped_calls_are_one_call() -> None:
    o = operands("residual_relu")
    f = jax.vmap(lambda x: gradient(ours("residual_relu"), (x, *o[1:])))
    text = jax.jit(f).lower(stack(o)[0]).as_text()
    assert "while" not in text
    assert text.count("@sparsejax_batch_norm_v2") == text.count("@sparsejax_batch_norm_grad_v2") == 1


def test_other_platforms_get_plain_operations() -> None:
    step = jax.jit(lambda *o: gradient(ours("residual_relu"), o)).trace(*operands("residual_relu"))
    assert "custom_call" not in step.lower(lowering_platforms=("cuda",)).as_text()
    assert step.lower(lowering_platforms=("cpu",)).as_text().count("custom_call @sparsejax") == 2


def test_a_gradient_has_the_layout_of_what_it_is_the_gradient_of() -> None:
    """Both ways: forward and backward, and the tangents of the backward pass."""
    o = operands("row_major")
    jaxpr = str(jax.make_jaxpr(lambda *o: jax.grad(lambda *o: curved(ours("row_major"), o))(*o))(*o))
    assert "BATCH_MINOR" not in jaxpr and jaxpr.count("sparsejax_batch_norm_grad[") >= 2


@pytest.mark.parametrize("gate", ["open", "input", "output"])
@pytest.mark.parametrize("layout", Layout)
def test_the_gradient_matches_its_meaning_at_any_point(gate: str, layout: Layout) -> None:
    """Also where mean and variance are not those of x."""
    x, vector = (5, 3, 2, 4), (4,)
    shapes = [x, vector, vector, x, vector, vector, vector, vector] + [x] * (gate == "output")
    o = [jnp.asarray(normal(i, shape, "float64")) for i, shape in enumerate(shapes)]
    o[7] = jnp.square(o[7])
    params = {"epsilon": 1e-3, "gate": gate, "layouts": Layouts(layout, layout)}
    assert_same(list(_norm._grad(*o, **params)), list(_reference_norm.batch_norm_grad(*o, **params)))


@pytest.mark.parametrize("inside", [False, True])
def test_shard_map(inside: bool) -> None:
    """Each device normalises its part; gradients of what is replicated are summed over devices."""
    kind, (x, *rest) = "residual_relu", operands("residual_relu")
    x, residual = (jnp.concatenate([a, jnp.cos(a)]) for a in (x, rest.pop()))
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    specs = (P("batch"), P(), P(), P("batch"))

    def parts(x: Any, scale: Any, bias: Any, residual: Any) -> Any:
        halves = zip(jnp.split(x, 2), jnp.split(residual, 2), strict=True)
        return sum(loss(plain(kind))(x, scale, bias, r) for x, r in halves)

    def local(*o: Any) -> Any:
        return jax.lax.psum(loss(ours(kind))(*o), "batch")

    want = jax.grad(parts, (0, 1, 2, 3))(x, *rest, residual)
    if inside:
        got = jax.shard_map(lambda *o: gradient(ours(kind), o), mesh=mesh, in_specs=specs, out_specs=specs)
    else:
        whole = jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=P())
        got = jax.grad(whole, (0, 1, 2, 3))
    assert_same(jax.jit(got)(x, *rest, residual), want)


def test_export_with_a_symbolic_batch_and_its_gradient() -> None:
    kind, o = "residual_relu", operands("residual_relu")
    step = jax.jit(lambda *o: gradient(ours(kind), o))
    (batch,) = jax.export.symbolic_shape("batch")
    shapes = [jax.ShapeDtypeStruct((batch, *a.shape[1:]) if a.ndim > 1 else a.shape, a.dtype) for a in o]
    exported = jax.export.export(step, platforms=("cpu", "cuda"), disabled_checks=export_checks())(*shapes)
    loaded = jax.export.deserialize(exported.serialize())
    for n in (1, 4, 5):
        part = [a[:n] if a.ndim > 1 else a for a in o]
        jax.tree.map(np.testing.assert_array_equal, list(loaded.call(*part)), list(step(*part)))
