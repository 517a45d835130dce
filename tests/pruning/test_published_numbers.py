"""Numbers of the papers: ends of schedules, ERK and its FLOPs, second-order identities, the cost of AC/DC."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax import pruning as sp
from sparsejax.pruning import accounting, schedules, scores


def resnet50() -> list[accounting.LayerShape]:
    """Convolutions and classifier of ResNet-50 at 224 x 224, written out from the architecture."""
    layers = [accounting.LayerShape("stem", (7, 7, 3, 64), 112 * 112)]
    width_in = 64
    for stage, (blocks, width, side) in enumerate([(3, 64, 56), (4, 128, 28), (6, 256, 14), (3, 512, 7)]):
        for i in range(blocks):
            name = f"{stage}/{i}"
            # The stride sits in the 3x3 convolution, so the first 1x1 runs at the resolution of the stage before.
            first = side if i or not stage else 2 * side
            layers += [
                accounting.LayerShape(f"{name}/1", (1, 1, width_in, width), first**2),
                accounting.LayerShape(f"{name}/2", (3, 3, width, width), side**2),
                accounting.LayerShape(f"{name}/3", (1, 1, width, 4 * width), side**2),
            ]
            if not i:
                layers.append(accounting.LayerShape(f"{name}/shortcut", (1, 1, width_in, 4 * width), side**2))
            width_in = 4 * width
    return [*layers, accounting.LayerShape("fc", (2048, 1000))]


RAMPS: dict[str, Any] = {
    "cubic": lambda t0, t1: schedules.cubic(0.1, 0.9, begin=t0, end=t1),
    "linear": lambda t0, t1: schedules.linear(0.0, 0.9, begin=t0, end=t1),
    "cosine": lambda t0, t1: schedules.cosine(0.0, 0.9, begin=t0, end=t1),
    "exponential": lambda t0, t1: schedules.exponential(0.9, begin=t0, end=t1),
    "accelerated": lambda t0, t1: schedules.accelerated_cubic(0.0, 0.5, 0.9, begin=t0, end=t1),
}


@pytest.mark.parametrize("name", RAMPS)
def test_schedules_reach_the_end_for_every_period_and_never_fall(name) -> None:
    for period in (1, 3, 7, 300, 1000, 5000):
        schedule = RAMPS[name](10, 1010)
        levels = [schedule(t) for t in (*range(10, 1010, period), 1010)]
        assert levels[-1] == 0.9 and levels == sorted(levels)
    compiled = jax.jit(schedule)
    for t in (0, 10, 400, 1010, 2000):
        assert float(compiled(jnp.int32(t))) == pytest.approx(schedule(t), abs=1e-6)


def test_the_count_is_never_zero_and_ties_are_rounded_to_even() -> None:
    assert sp.uniform(0.999, [3, 10, 1000]) == [1, 1, 1]
    assert sp.uniform(0.5, [1, 3, 5]) == [1, 1, 3]
    masks = sp.mask_from_scores({"kernel": jnp.ones((2, 2))}, 0.999)
    assert int(masks["kernel"].sum()) == 1


def test_piecewise_schedules() -> None:
    pieces = schedules.alternating([(0, 0.0), (3, 0.9), (5, 0.0)])
    assert [pieces(t) for t in range(6)] == [0, 0, 0, 0.9, 0.9, 0]
    np.testing.assert_allclose(jax.jit(jax.vmap(pieces))(jnp.arange(6)), [0, 0, 0, 0.9, 0.9, 0], rtol=1e-6)
    drop = schedules.cosine_drop(0.3, 100)
    assert drop(0) == 0.3 and drop(100) == drop(500) == 0 and drop(50) == pytest.approx(0.15)
    # Rounds that lottery tickets need for 90, 95 and 98 %.
    density = schedules.geometric_rounds(0.2, every=1)
    assert [next(i for i in range(30) if density(i) >= s) for s in (0.9, 0.95, 0.98)] == [11, 14, 18]


def test_erk_by_hand() -> None:
    # eps = k / sum of all dims, no layer saturates: shares 8, 12 of sum 20 for k = 20.
    assert sp.erk(0.75, [(4, 4), (8, 8)]) == [7, 13]  # eps = 20 / 24: 6.67, 13.33
    # k = 60, eps = 60 / 24: the small layer would have 20 of 16, is dense, and the large one takes 44.
    assert sp.erk(0.25, [(4, 4), (8, 8)]) == [16, 44]
    # A window counts with its own dimensions: (3 + 3 + 2 + 4) / 72.
    assert sp.erk(0.75, [(3, 3, 2, 4), (2, 2)]) == [15, 4]
    assert sp.erk(0.0, [(4, 4), (8, 8)]) == [16, 64]


@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.8, 0.9, 0.95, 0.98])
@pytest.mark.parametrize("rule", [sp.erk, sp.allocation.er])
def test_totals_are_exact(rule, sparsity) -> None:
    shapes = [layer.kernel for layer in resnet50()]
    sizes = [math.prod(shape) for shape in shapes]
    counts = rule(sparsity, shapes)
    assert sum(counts) == sum(sizes) - round(Fraction(str(sparsity)) * sum(sizes))
    assert all(1 <= count <= size for count, size in zip(counts, sizes, strict=True))


@pytest.mark.parametrize(("sparsity", "erk", "uniform"), [(0.8, 0.42, 0.23), (0.9, 0.24, 0.13), (0.95, 0.12, 0.08)])
def test_flops_of_resnet50_as_published_for_rigl(sparsity, erk, uniform) -> None:
    layers = resnet50()
    dense = accounting.forward_flops(layers)
    counts = sp.erk(sparsity, [layer.kernel for layer in layers])
    got = accounting.forward_flops(layers, {layer.path: count for layer, count in zip(layers, counts, strict=True)})
    assert got / dense == pytest.approx(erk, abs=0.01)
    inner = layers[1:]  # published uniform: first convolution dense
    flat = sp.uniform(sparsity, [layer.size for layer in inner])
    got = accounting.forward_flops(layers, {layer.path: count for layer, count in zip(inner, flat, strict=True)})
    assert got / dense == pytest.approx(uniform, abs=0.01)


@pytest.fixture(scope="module")
def gradients() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(50, 30))


def test_woodfisher_equals_the_explicit_inverse_and_mfac_equals_woodfisher(gradients, x64) -> None:
    weights = np.random.default_rng(1).normal(size=(5, 6))
    fisher = 0.01 * np.eye(30) + gradients.T @ gradients / 50
    inverse = np.linalg.inv(fisher)
    grads, params = {"kernel": jnp.asarray(gradients.reshape(50, 5, 6))}, {"kernel": jnp.asarray(weights)}
    mask = {"kernel": jnp.asarray(np.arange(30).reshape(5, 6) % 3 != 0)}
    removed = ~np.asarray(mask["kernel"]).ravel()
    flat = weights.ravel()
    change = -inverse @ np.where(removed, flat / np.diag(inverse), 0)
    for found in (scores.woodfisher(grads, params, block=30, damping=0.01), scores.mfac(grads, params, damping=0.01)):
        np.testing.assert_allclose(found.scores["kernel"].ravel(), flat**2 / (2 * np.diag(inverse)), rtol=1e-9)
        np.testing.assert_allclose(found.compensation(mask)["kernel"].ravel(), change, rtol=1e-8, atol=1e-10)


def test_woodfisher_in_blocks_is_the_inverse_of_each_block(gradients, x64) -> None:
    weights = np.random.default_rng(1).normal(size=(5, 6))
    grads, params = {"kernel": jnp.asarray(gradients.reshape(50, 5, 6))}, {"kernel": jnp.asarray(weights)}
    found = scores.woodfisher(grads, params, block=7, damping=0.01).scores["kernel"].ravel()
    fisher = 0.01 * np.eye(30) + gradients.T @ gradients / 50
    for start in range(0, 30, 7):
        part = slice(start, min(start + 7, 30))
        diagonal = np.diag(np.linalg.inv(fisher[part, part]))
        np.testing.assert_allclose(found[part], weights.ravel()[part] ** 2 / (2 * diagonal), rtol=1e-9)


def test_the_surgeon_reaches_the_constrained_minimum_of_a_quadratic(gradients, x64) -> None:
    fisher = 0.01 * np.eye(30) + gradients.T @ gradients / 50
    weights = np.random.default_rng(2).normal(size=30)
    grads, params = {"kernel": jnp.asarray(gradients[:, None, :])}, {"kernel": jnp.asarray(weights[None])}
    found = scores.woodfisher(grads, params, block=30, damping=0.01)
    q = int(jnp.argmin(found.scores["kernel"]))
    mask = {"kernel": jnp.arange(30)[None] != q}
    after = weights + np.asarray(found.compensation(mask)["kernel"][0])
    # Minimise (v - w)^T F (v - w) / 2 subject to v_q = 0.
    others = np.arange(30) != q
    best = np.zeros(30)
    best[others] = weights[others] + np.linalg.solve(fisher[np.ix_(others, others)], fisher[others, q] * weights[q])
    np.testing.assert_allclose(after, best, rtol=1e-8, atol=1e-9)
    increase = (after - weights) @ fisher @ (after - weights) / 2
    assert increase == pytest.approx(float(found.scores["kernel"][0, q]), rel=1e-8)


def test_gradients_of_pruned_weights_count_as_zero(gradients, x64) -> None:
    params = {"kernel": jnp.ones((1, 30))}
    mask = {"kernel": (jnp.arange(30) < 20)[None]}
    grads = {"kernel": jnp.asarray(gradients[:, None, :])}
    cut = scores.woodfisher(grads, params, block=30, damping=0.5, mask=mask).scores["kernel"]
    np.testing.assert_allclose(cut[0, 20:], 0.25)  # 1 / (2 / 0.5)
    alone = scores.woodfisher({"kernel": grads["kernel"][..., :20]}, {"kernel": jnp.ones((1, 20))}, damping=0.5)
    np.testing.assert_allclose(cut[0, :20], alone.scores["kernel"][0], rtol=1e-9)


def test_the_gradient_of_a_soft_threshold(x64) -> None:
    method = sp.soft_threshold(initial=-1.0)
    weights = jnp.asarray(np.random.default_rng(3).normal(size=(4, 5)))
    g = jnp.asarray(np.random.default_rng(4).normal(size=(4, 5)))
    trained = method.init({"kernel": weights})
    grad = jax.grad(lambda t: jnp.sum(g * method.forward(t)["kernel"]))(trained)
    level = 1 / (1 + math.exp(1.0))
    above = np.abs(weights) > level
    expected = -level * (1 - level) * float(np.sum(np.where(above, np.sign(weights) * g, 0)))
    assert float(grad.thresholds["kernel"]) == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(grad.weights["kernel"], np.where(above, g, 0))
    params, mask = method.export(trained)
    np.testing.assert_array_equal(mask["kernel"], above)
    np.testing.assert_array_equal(params["kernel"] != 0, above)


def test_weights_and_flops_of_resnet50() -> None:
    layers = resnet50()
    assert len(layers) == 54
    assert sum(layer.size for layer in layers) == 25_502_912
    assert accounting.forward_flops(layers) / 2 == pytest.approx(4.089e9, rel=2e-4)
    epochs = accounting.training_flops([(accounting.forward_flops(layers), 1_281_167)] * 100)
    assert epochs == pytest.approx(3.14e18, rel=2e-3)


@pytest.mark.parametrize(
    ("sparsity", "f", "costs"),
    [
        (0.8, 0.223, (0.61, 0.92, 1.22)),
        (0.9, 0.126, (0.56, 0.85, 1.13)),
        (0.95, 0.078, (0.54, 0.81, 1.08)),
        (0.98, 0.049, (0.52, 0.79, 1.05)),
    ],
)
def test_the_published_cost_of_acdc(sparsity, f, costs) -> None:
    layers = resnet50()
    inner = layers[1:-1]  # first and last layer dense
    counts = sp.uniform(sparsity, [layer.size for layer in inner])
    nnz = {layer.path: count for layer, count in zip(inner, counts, strict=True)}
    relative = accounting.forward_flops(layers, nnz) / accounting.forward_flops(layers)
    assert relative == pytest.approx(f, abs=0.001)
    for epochs, cost in zip((100, 150, 200), costs, strict=True):
        phases = sp.acdc_phases(total=epochs, warmup=10, sparse=5, dense=5, last_dense=10, final_sparse=15)
        got = accounting.alternation_cost(
            relative, dense=phases.steps("dense"), sparse=phases.steps("sparse"), baseline=100
        )
        # 0.75 + 0.75 * 0.126 is 0.8445, tabulated as 0.85: rounded up.
        assert got == pytest.approx(cost, abs=0.006)


def test_flops_of_biases_and_other_operations() -> None:
    layers = [
        accounting.LayerShape("conv", (3, 3, 1, 8), 64, bias=True),
        accounting.LayerShape("fc", (8, 2), bias=True),
    ]
    other = accounting.OtherOps(batch_norm=512, relu=512, pooling=4 * 128)
    assert accounting.forward_flops(layers, {"conv": 10}, other) == (20 + 8) * 64 + (32 + 2) + 1024 + 512 + 512
    with pytest.raises(ValueError, match="forward_flops: nnz of 'fc' has value 17; expected 0 to 16"):
        accounting.forward_flops(layers, {"fc": 17})
    with pytest.raises(ValueError, match="forward_flops: nnz has an entry for 'head'"):
        accounting.forward_flops(layers, {"head": 1})
