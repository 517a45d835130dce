"""Which layout each sparse convolution gets, why, and that numbers and the compiled step follow from it."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sparsejax import sparsify
from sparsejax.kernels import BATCH_MINOR, ROW_MAJOR, Layout
from sparsejax.models import BasicBlock
from sparsejax.nn import SparseConv, SparseLinear, densify, plan_layouts
from sparsejax.pattern import SparsityPattern

BATCH, SIDE, CHANNELS = 32, 6, 16
IMAGES = (BATCH, SIDE, SIDE, CHANNELS)
MOVED = re.compile(r"= f32\[([\d,]+)\]\{[\d,]+\S* (?:copy|transpose)\(")


class Between(nnx.Module):
    """A dense convolution, three sparse ones with a dense layer before the last, and a linear one."""

    def __init__(self, rngs: nnx.Rngs):
        self.stem = nnx.Conv(3, CHANNELS, (3, 3), rngs=rngs)
        self.first, self.second, self.last = (nnx.Conv(CHANNELS, CHANNELS, (3, 3), rngs=rngs) for _ in range(3))
        self.norm = nnx.BatchNorm(CHANNELS, rngs=rngs)
        self.mix = nnx.Linear(CHANNELS, CHANNELS, rngs=rngs)
        self.head = nnx.Linear(CHANNELS, CHANNELS, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.relu(self.first(self.stem(x)))
        x = nnx.gelu(self.mix(nnx.relu(self.norm(self.second(x)))))
        return self.head(self.last(x).mean((1, 2)))


def mask(layer: Any) -> np.ndarray:
    return np.random.default_rng(0).random(layer.kernel.shape) < 0.1


def sparse_model() -> tuple[Any, Any]:
    model = Between(nnx.Rngs(0))
    masks = {path: mask(getattr(model, path)) for path in ("first", "second", "last", "head")}
    image = jax.ShapeDtypeStruct((BATCH, SIDE, SIDE, 3), jnp.float32)
    return sparsify(model, masks, min_sparsity=0.5, policy="always", sample_input=image)


def test_layouts_and_reasons():
    model, report = sparse_model()
    layouts = {row.path: row.layout for row in report.rows}
    assert layouts["stem"] is layouts["mix"] is None
    assert layouts["head"] == "row-major: a linear layer"
    middle = "input beside a dense convolution; output between sparse layers"
    assert layouts["first"] == f"row-major to batch-minor: {middle}"
    # Its output goes through a batch norm, for which the conversion is worth it, to a dense product.
    assert layouts["second"] == "batch-minor: between sparse layers"
    assert layouts["last"].startswith("row-major: ") and "a matrix product" in layouts["last"]
    assert model.first.layouts == (Layout.ROW_MAJOR, Layout.BATCH_MINOR)
    assert "layout" in str(report).splitlines()[0]


def test_layouts_stay_with_the_layer_and_change_no_number():
    model, _ = sparse_model()
    model.eval()
    graph, state = nnx.split(model)
    assert nnx.merge(graph, state).second.layouts == model.second.layouts == BATCH_MINOR
    x = jnp.asarray(np.random.default_rng(1).standard_normal((BATCH, SIDE, SIDE, 3)), jnp.float32)
    planned = nnx.jit(lambda m, x: m(x))(model, x)
    for layer in (model.first, model.second, model.last):
        layer.layouts = ROW_MAJOR
    np.testing.assert_allclose(nnx.jit(lambda m, x: m(x))(model, x), planned, rtol=1e-5, atol=1e-6)
    assert not hasattr(densify(model).first, "layouts")


def test_without_an_input_nothing_is_planned():
    model = nnx.Conv(CHANNELS, CHANNELS, (3, 3), rngs=nnx.Rngs(0))
    sparse, report = sparsify(model, {"": mask(model)}, min_sparsity=0.5, policy="always")
    assert sparse.layouts == BATCH_MINOR and report.rows[0].layout == "batch-minor: not planned without sample_input"
    alone = plan_layouts(sparse, jax.ShapeDtypeStruct(IMAGES, jnp.float32))
    assert alone[""].layouts == sparse.layouts == ROW_MAJOR and alone[""].reason == "beside the model's edge"


def test_what_the_trace_does_not_reach_is_row_major():
    class Looped(nnx.Module):
        def __init__(self):
            self.conv, self.unused = (nnx.Conv(CHANNELS, CHANNELS, (1, 1), rngs=nnx.Rngs(0)) for _ in range(2))

        def __call__(self, x):
            return jax.lax.fori_loop(0, 2, lambda _, x: self.conv(x), x)

    model = Looped()
    masks = {"conv": mask(model.conv), "unused": mask(model.unused)}
    sparse, _ = sparsify(model, masks, min_sparsity=0.5, policy="always")
    plan = plan_layouts(sparse, jax.ShapeDtypeStruct(IMAGES, jnp.float32))
    for path in masks:
        assert plan[path].layouts == ROW_MAJOR and plan[path].reason == "not reached by the trace of the model"


def test_an_input_that_does_not_fit_is_refused():
    model, _ = sparse_model()
    with pytest.raises(
        ValueError, match=r"plan_layouts: sample_input has float32\[2\]; expected an input that Between"
    ):
        plan_layouts(model, jnp.ones(2))


def step_text(model: Any, x: jax.Array) -> str:
    """The compiled forward pass with all gradients."""
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    def loss(params: Any, x: jax.Array, rest: Any) -> jax.Array:
        return jnp.sum(jnp.sin(nnx.merge(graph, params, rest)(x)))

    operands = nnx.as_pure(params), x, nnx.as_pure(rest)
    return jax.jit(jax.value_and_grad(loss, (0, 1))).lower(*operands).compile().as_text()


def moved(text: str, size: int) -> int:
    """Operations that give an activation another order in memory, also as parts of fusions."""
    return sum(np.prod([int(n) for n in shape.split(",")]) >= size for shape in MOVED.findall(text))


@pytest.mark.parametrize("kind", ["conv", "linear"])
def test_a_layer_alone_moves_no_activation(kind: str) -> None:
    rng = np.random.default_rng(0)
    if kind == "conv":
        pattern = SparsityPattern.from_mask(rng.random((3, 3, CHANNELS, CHANNELS)) < 0.1)
        layer: Any = SparseConv(CHANNELS, CHANNELS, (3, 3), pattern=pattern, rngs=nnx.Rngs(0))
        x = jnp.ones(IMAGES)
    else:
        pattern = SparsityPattern.from_mask(rng.random((CHANNELS, CHANNELS)) < 0.1)
        layer, x = SparseLinear(CHANNELS, CHANNELS, pattern=pattern, rngs=nnx.Rngs(0)), jnp.ones((4, BATCH, CHANNELS))
    assert moved(step_text(layer, x), x.size) == 0


class Framed(nnx.Module):
    """A residual block between a sparse convolution from one channel and one to one channel."""

    def __init__(self, rngs: nnx.Rngs):
        self.enter, self.leave = nnx.Conv(1, CHANNELS, (3, 3), rngs=rngs), nnx.Conv(CHANNELS, 1, (3, 3), rngs=rngs)
        self.block = BasicBlock(CHANNELS, CHANNELS, 1, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.leave(self.block(self.enter(x)))


def test_a_residual_block_moves_what_the_plan_says() -> None:
    """The kernels convert at the model's edge; a layer with another layout than the plan's makes XLA convert."""
    model = Framed(nnx.Rngs(0))
    layers = {"enter": model.enter, "block/conv1": model.block.conv1, "block/conv2": model.block.conv2}
    masks = {path: mask(layer) for path, layer in (layers | {"leave": model.leave}).items()}
    x = jnp.ones((*IMAGES[:-1], 1))
    sparse, report = sparsify(model, masks, min_sparsity=0.5, policy="always", sample_input=x)
    planned = {row.path: row.layout for row in report.rows if row.layout}
    assert planned["block/conv1"] == planned["block/conv2"] == "batch-minor: between sparse layers"
    edge = "row-major to batch-minor: input beside the model's edge; output between sparse layers"
    assert planned["enter"] == edge
    assert moved(step_text(sparse, x), x.size) == 0
    sparse.block.conv1.layouts = ROW_MAJOR
    assert moved(step_text(sparse, x), CHANNELS * x.size) > 0
