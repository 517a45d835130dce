"""Which layouts convolutions and batch norms get, why, and that numbers and the compiled step follow from them."""

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
from sparsejax.nn import BatchNorm, SparseConv, SparseLinear, densify, norm_act, plan_layouts
from sparsejax.pattern import SparsityPattern

BATCH, SIDE, CHANNELS = 32, 6, 16
IMAGES = (BATCH, SIDE, SIDE, CHANNELS)
MOVED = re.compile(r"= f32\[([\d,]+)\]\{[\d,]+\S* (?:copy|transpose)\(")


class Between(nnx.Module):
    """A dense convolution, three sparse ones with a dense layer before the last, and a linear one; two batch norms."""

    def __init__(self, rngs: nnx.Rngs):
        self.stem = nnx.Conv(3, CHANNELS, (3, 3), rngs=rngs)
        self.first, self.second, self.last = (nnx.Conv(CHANNELS, CHANNELS, (3, 3), rngs=rngs) for _ in range(3))
        self.inner, self.outer = (nnx.BatchNorm(CHANNELS, rngs=rngs) for _ in range(2))
        self.mix = nnx.Linear(CHANNELS, CHANNELS, rngs=rngs)
        self.head = nnx.Linear(CHANNELS, CHANNELS, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.relu(self.inner(self.first(self.stem(x))))
        x = nnx.gelu(self.mix(norm_act(self.outer, self.second(x))))
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
    # Its output goes through a batch norm, which has either layout, to a dense product.
    assert layouts["second"] == (
        "batch-minor to row-major: input between sparse layers; output beside a matrix product"
    )
    assert layouts["inner"] == "batch-minor: between sparse layers"
    assert layouts["outer"] == "row-major: beside a matrix product"
    assert (model.inner.layout, model.outer.layout) == (Layout.BATCH_MINOR, Layout.ROW_MAJOR)
    assert layouts["last"].startswith("row-major: ") and "a matrix product" in layouts["last"]
    assert model.first.layouts == (Layout.ROW_MAJOR, Layout.BATCH_MINOR)
    assert "layout" in str(report).splitlines()[0]


def test_layouts_stay_with_the_layer_and_change_no_number():
    model, _ = sparse_model()
    model.eval()
    graph, state = nnx.split(model)
    assert nnx.merge(graph, state).first.layouts == model.first.layouts == (Layout.ROW_MAJOR, Layout.BATCH_MINOR)
    assert nnx.merge(graph, state).inner.layout == model.inner.layout == Layout.BATCH_MINOR
    x = jnp.asarray(np.random.default_rng(1).standard_normal((BATCH, SIDE, SIDE, 3)), jnp.float32)
    planned = nnx.jit(lambda m, x: m(x))(model, x)
    for layer in (model.first, model.second, model.last):
        layer.layouts = ROW_MAJOR
    model.inner.layout, model.outer.layout = Layout.ROW_MAJOR, Layout.BATCH_MINOR
    np.testing.assert_allclose(nnx.jit(lambda m, x: m(x))(model, x), planned, rtol=1e-5, atol=1e-6)
    dense = densify(model)
    assert not hasattr(dense.first, "layouts") and not hasattr(dense.inner, "layout")


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


def sparse_conv() -> SparseConv:
    pattern = SparsityPattern.from_mask(np.random.default_rng(0).random((3, 3, CHANNELS, CHANNELS)) < 0.1)
    return SparseConv(CHANNELS, CHANNELS, (3, 3), pattern=pattern, rngs=nnx.Rngs(0))


ALONE = {
    "conv": (sparse_conv, IMAGES),
    "norm": (lambda: BatchNorm(CHANNELS, rngs=nnx.Rngs(0)), IMAGES),
    "norm by running averages": (lambda: BatchNorm(CHANNELS, use_running_average=True, rngs=nnx.Rngs(0)), IMAGES),
    "norm of two axes": (lambda: BatchNorm(CHANNELS, rngs=nnx.Rngs(0)), (BATCH * SIDE, CHANNELS)),
    "linear": (
        lambda: SparseLinear(
            CHANNELS,
            CHANNELS,
            pattern=SparsityPattern.from_mask(np.random.default_rng(0).random((CHANNELS, CHANNELS)) < 0.1),
            rngs=nnx.Rngs(0),
        ),
        (4, BATCH, CHANNELS),
    ),
}


@pytest.mark.parametrize("kind", ALONE)
def test_a_layer_alone_moves_no_activation(kind: str) -> None:
    make, shape = ALONE[kind]
    text = step_text(make(), jnp.ones(shape))
    assert moved(text, int(np.prod(shape))) == 0


def has_batch_minor(text: str) -> bool:
    """Whether an activation has the batch as the fastest axis in memory."""
    return f"f32[{','.join(map(str, IMAGES))}]{{0," in text


class ByHand(nnx.Module):
    """Layers of ours that nobody has planned."""

    def __init__(self) -> None:
        self.conv, self.norm = sparse_conv(), BatchNorm(CHANNELS, rngs=nnx.Rngs(0))

    def __call__(self, x: jax.Array) -> jax.Array:
        return norm_act(self.norm, self.conv(x), x)


def test_a_convolution_and_a_batch_norm_without_a_plan_are_row_major() -> None:
    model = ByHand()
    assert not has_batch_minor(step_text(model, jnp.ones(IMAGES)))
    model.norm.layout = Layout.BATCH_MINOR
    assert has_batch_minor(step_text(model, jnp.ones(IMAGES)))


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
    assert planned["block/bn1"] == planned["block/bn2"] == "batch-minor: between sparse layers"
    assert moved(step_text(sparse, x), x.size) == 0
    sparse.block.conv1.layouts = ROW_MAJOR
    assert moved(step_text(sparse, x), CHANNELS * x.size) > 0


class Bottled(nnx.Module):
    """Batch norms between a dense and a sparse convolution, on both sides of the latter."""

    def __init__(self, rngs: nnx.Rngs):
        self.enter, self.leave = (nnx.Conv(CHANNELS, CHANNELS, (1, 1), rngs=rngs) for _ in range(2))
        self.before, self.after = (nnx.BatchNorm(CHANNELS, rngs=rngs) for _ in range(2))
        self.conv = nnx.Conv(CHANNELS, CHANNELS, (3, 3), rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.conv(norm_act(self.before, self.enter(x)))
        return self.leave(norm_act(self.after, x))


@pytest.mark.parametrize("evaluates", [False, True])
def test_batch_norms_beside_dense_convolutions_are_row_major(evaluates: bool) -> None:
    """Also planned from a model that uses its running statistics, and then trains."""
    model, x = Bottled(nnx.Rngs(0)), jnp.ones(IMAGES)
    if evaluates:
        model.eval()
    sparse, report = sparsify(
        model, {"conv": mask(model.conv)}, min_sparsity=0.5, policy="always", sample_input=x, skip=("enter", "leave")
    )
    planned = {row.path: row.layout for row in report.rows if row.layout}
    assert planned == dict.fromkeys(("conv", "before", "after"), "row-major: beside a dense convolution")
    sparse.train()
    assert not has_batch_minor(step_text(sparse, x))
    sparse.before.layout = Layout.BATCH_MINOR
    assert has_batch_minor(step_text(sparse, x))
