"""Every primitive under every transformation of JAX, against the same transformation of its plain-JAX meaning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from helpers.grid import TRANSFORMATIONS, make_pattern, normal
from sparsejax.kernels import BATCH_MINOR, ROW_MAJOR, Layout, Layouts, _conv, _matmul, _reference
from sparsejax.kernels._geometry import ConvGeometry
from sparsejax.kernels._operands import pattern_operands

pytestmark = pytest.mark.usefixtures("x64", "strict_dtypes")

GEOMETRY = ConvGeometry((5, 4), 4, 6, (3, 2), (2, 1), ((1, 0), (0, 1)), (1, 2), (1, 1), 2)
BATCH = 5
MIXED = Layouts(Layout.BATCH_MINOR, Layout.ROW_MAJOR)


class Op(NamedTuple):
    """A product bilinear in ``a`` and ``b``: the primitive and what it means."""

    kernel: Callable[..., Any]
    reference: Callable[..., Any]
    a: tuple[int, ...]
    b: tuple[int, ...]


def _ops() -> dict[str, Op]:
    matrix, conv = make_pattern("padded", (6, 5))[0], make_pattern("padded", GEOMETRY.kernel_shape)[0]
    w, x, y = (matrix.nse,), (BATCH, 6), (BATCH, 5)
    cw, cx, cy = (conv.nse,), (BATCH, *GEOMETRY.in_spatial, 4), (BATCH, *GEOMETRY.out_spatial, 6)
    return {
        "spmm": Op(_with_layouts(_matmul._spmm, ROW_MAJOR), _reference.spmm, w, x),
        "spmm_t": Op(_with_layouts(_matmul._spmm_t, BATCH_MINOR), _reference.spmm_t, w, y),
        "sddmm": Op(_with_layouts(_matmul._sddmm, MIXED), _reference.sddmm, x, y),
        "conv": Op(_with_geometry(_conv._conv), _with_geometry(_reference.conv), cw, cx),
        "conv_input_grad": Op(
            _with_geometry(_conv._conv_input_grad, BATCH_MINOR), _with_geometry(_reference.conv_input_grad), cw, cy
        ),
        "conv_weight_grad": Op(
            _with_geometry(_conv._conv_weight_grad, MIXED), _with_geometry(_reference.conv_weight_grad), cx, cy
        ),
    }


def _with_layouts(f: Callable[..., Any], layouts: Layouts) -> Callable[..., Any]:
    return lambda *operands: f(*operands, layouts=layouts)


def _with_geometry(f: Callable[..., Any], layouts: Layouts = ROW_MAJOR) -> Callable[..., Any]:
    return lambda *operands: f(*operands, geometry=GEOMETRY, layouts=layouts)


OPS = _ops()


def index_arrays(name: str, seed: int = 0) -> tuple[jax.Array, ...]:
    """The pattern's operands; every seed has the same capacity and another topology."""
    shape = GEOMETRY.kernel_shape if "conv" in name else (6, 5)
    capacity = make_pattern("padded", shape)[0].nse
    _, mask = make_pattern("random", shape, seed)
    flat = np.flatnonzero(mask)[:capacity]
    kept = np.zeros(mask.size, bool)
    kept[flat] = True
    return pattern_operands(_matmul.SparsityPattern.from_mask(kept.reshape(shape), capacity))


def loss(f: Callable[..., Any]) -> Callable[..., Any]:
    """A scalar that is not linear, so that second derivatives differ from zero."""
    return lambda a, b, index: jnp.sum(jnp.sin(f(a, b, *index)))


def gradient(f: Callable[..., Any]) -> Callable[..., Any]:
    """Gradients with respect to both operands."""
    return jax.grad(loss(f), (0, 1))


def hessian_product(f: Callable[..., Any], a: Any, b: Any, index: Any) -> Any:
    """Gradient of a function of the gradient, reverse over reverse."""
    return jax.grad(lambda a, b: sum(jnp.sum(jnp.cos(g)) for g in gradient(f)(a, b, index)), (0, 1))(a, b)


def stack(array: jax.Array, axis: int = 0) -> jax.Array:
    """Three different copies along a new axis."""
    return jnp.stack([array, -array, jnp.cos(array)], axis)


def scan(f: Callable[..., Any], a: Any, b: Any, index: Any) -> Any:
    """Gradient through a scan over three values of ``b`` that feeds ``a`` back."""

    def total(a: Any, bs: Any) -> Any:
        def step(carry: Any, b: Any) -> Any:
            y = f(carry, b, *index)
            return jnp.tanh(carry + jnp.sum(y) / y.size), jnp.sum(jnp.sin(y))

        return jnp.sum(jax.lax.scan(step, a, bs)[1])

    return jax.grad(total, (0, 1))(a, stack(b))


def linearize(f: Callable[..., Any], a: Any, b: Any, index: Any) -> Any:
    """Value, linear map and its transpose."""
    y, linear = jax.linearize(lambda a, b: f(a, b, *index), a, b)
    (back,) = jax.linear_transpose(lambda b: f(a, b, *index), b)(y)
    (front,) = jax.linear_transpose(lambda a: f(a, b, *index), a)(y)
    return y, linear(jnp.cos(a), jnp.cos(b)), back, front


def vmap_pattern(f: Callable[..., Any], a: Any, b: Any, index: Any, two: Any) -> Any:
    """Patterns of one capacity mapped together with the first operand, and alone."""
    both = jax.vmap(lambda a, i: f(a, b, *i))(jnp.stack([a, -a]), two)
    return both, jax.vmap(lambda i: gradient(f)(a, b, i))(two)


RUN: dict[str, Callable[..., Any]] = {
    "eager": lambda f, a, b, i: f(a, b, *i),
    "jit": lambda f, a, b, i: jax.jit(f)(a, b, *i),
    "grad": lambda f, a, b, i: gradient(f)(a, b, i),
    "jvp": lambda f, a, b, i: jax.jvp(lambda a, b: f(a, b, *i), (a, b), (jnp.cos(a), jnp.cos(b))),
    "jvp_of_one": lambda f, a, b, i: (
        jax.jvp(lambda a: f(a, b, *i), (a,), (jnp.cos(a),)),
        jax.jvp(lambda b: f(a, b, *i), (b,), (jnp.cos(b),)),
    ),
    "grad_of_grad": hessian_product,
    "jvp_of_grad": lambda f, a, b, i: jax.jvp(lambda a, b: gradient(f)(a, b, i), (a, b), (jnp.cos(a), jnp.cos(b))),
    "vmap_a": lambda f, a, b, i: jax.vmap(lambda a: f(a, b, *i), in_axes=a.ndim, out_axes=1)(stack(a, a.ndim)),
    "vmap_b": lambda f, a, b, i: jax.vmap(lambda b: f(a, b, *i), in_axes=1, out_axes=-1)(stack(b, 1)),
    "vmap_both": lambda f, a, b, i: jax.vmap(lambda a, b: f(a, b, *i))(stack(a), stack(b)),
    "vmap_of_vmap": lambda f, a, b, i: jax.vmap(lambda b: jax.vmap(lambda a: f(a, b, *i))(stack(a)))(stack(b)),
    "vmap_of_grad": lambda f, a, b, i: jax.vmap(lambda b: gradient(f)(a, b, i))(stack(b)),
    "grad_of_vmap": lambda f, a, b, i: jax.grad(lambda a: jnp.sum(jnp.sin(jax.vmap(lambda b: f(a, b, *i))(stack(b)))))(
        a
    ),
    "jacfwd": lambda f, a, b, i: jax.jacfwd(lambda a: f(a, b, *i))(a),
    "jacrev": lambda f, a, b, i: jax.jacrev(lambda a: f(a, b, *i))(a),
    "remat": lambda f, a, b, i: gradient(jax.checkpoint(f))(a, b, i),
    "scan": scan,
    "linearize": linearize,
}


def assert_same(got: Any, want: Any) -> None:
    """Equal trees up to the rounding of float64."""
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, rtol=1e-11, atol=1e-11), got, want)


def operands(name: str) -> tuple[jax.Array, jax.Array]:
    """Values of both operands."""
    return jnp.asarray(normal(1, OPS[name].a, "float64")), jnp.asarray(normal(2, OPS[name].b, "float64"))


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("transformation", [t for t in TRANSFORMATIONS if t in RUN])
def test_transformation(name: str, transformation: str) -> None:
    index, run = index_arrays(name), RUN[transformation]
    got = run(OPS[name].kernel, *operands(name), index)
    want = run(OPS[name].reference, *operands(name), index)
    assert any(np.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(want))
    assert_same(got, want)


@pytest.mark.parametrize("name", OPS)
def test_vmap_over_patterns(name: str) -> None:
    index, other = index_arrays(name), index_arrays(name, seed=1)
    assert not np.array_equal(index[0], other[0])
    two = tuple(map(lambda *i: jnp.stack(i), index, other))
    got = vmap_pattern(OPS[name].kernel, *operands(name), index, two)
    assert_same(got, vmap_pattern(OPS[name].reference, *operands(name), index, two))


@pytest.mark.parametrize("name", OPS)
def test_check_grads(name: str) -> None:
    index = index_arrays(name)
    f = OPS[name].kernel
    check_grads(lambda a, b: f(a, b, *index), operands(name), order=2, modes=("fwd", "rev"))


@pytest.mark.parametrize("name", ["spmm", "spmm_t", "conv", "conv_input_grad"])
def test_vmap_over_activations_is_one_call(name: str) -> None:
    """No loop: a mapped batch becomes a larger batch."""
    a, b = operands(name)
    mapped = jax.vmap(lambda b: OPS[name].kernel(a, b, *index_arrays(name)))
    assert "while" not in jax.jit(mapped).lower(stack(b)).as_text()


def test_every_transformation_of_the_grid_is_run() -> None:
    elsewhere = {"vmap_pattern", "check_grads", "shard_map", "export", "other_platform"}
    assert set(TRANSFORMATIONS) == set(RUN) | elsewhere
