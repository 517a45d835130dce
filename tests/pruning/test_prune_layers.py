"""Layers read off a traced network, batch statistics estimated anew, and reports for lists of rules."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

from sparsejax import pruning as sp
from sparsejax.pruning import accounting


class Backwards(linen.Module):
    """Names that sort against the order of the layers; a grouped convolution, a layer under remat, one used twice."""

    @linen.compact
    def __call__(self, x: Any, train: bool = False) -> Any:
        x = linen.Conv(4, (3, 3), strides=2, name="z")(x)
        x = linen.BatchNorm(use_running_average=not train, momentum=0.8, name="norm")(x)
        x = linen.Conv(8, (3, 3), feature_group_count=2, use_bias=False, name="y")(linen.relu(x))
        x = linen.remat(linen.Dense)(6, name="x")(x.mean((1, 2)))
        shared = linen.Dense(6, name="w")
        return linen.Dense(3, name="a")(shared(shared(x)))


@pytest.fixture(scope="module")
def variables() -> Any:
    return Backwards().init(jax.random.key(0), jnp.ones((1, 8, 8, 3)))


def layers_of(variables: Any) -> list[accounting.LayerShape]:
    def forward(params: Any) -> Any:
        return jax.jit(lambda p: Backwards().apply({**variables, "params": p}, jnp.ones((1, 8, 8, 3))))(params)

    return accounting.layer_shapes(forward, variables["params"])


def test_layers_in_the_order_of_the_forward_pass(variables) -> None:
    assert layers_of(variables) == [
        accounting.LayerShape("z/kernel", (3, 3, 3, 4), 16, bias=True),
        accounting.LayerShape("y/kernel", (3, 3, 2, 8), 16),
        accounting.LayerShape("x/kernel", (8, 6), bias=True),
        accounting.LayerShape("w/kernel", (6, 6), 2, bias=True),
        accounting.LayerShape("a/kernel", (6, 3), bias=True),
    ]


def test_first_convolution_and_classifier_stay_dense(variables) -> None:
    layers = layers_of(variables)
    where = sp.is_kernel() & ~accounting.first_conv(layers) & ~accounting.last_dense(layers)
    mask = sp.pruned(optax.sgd(0.1), sp.one_shot(0.5), where=where).init(variables["params"]).mask
    assert {name for name in mask if not isinstance(mask[name].get("kernel"), optax.MaskedNode | None)} == {*"yxw"}
    found = sp.report(variables["params"], sp.static(0.5), where=where, layers=layers)
    assert found.dense_flops == accounting.forward_flops(layers) > (found.sparse_flops or 0) > 0
    assert "~first_conv('z/kernel')" in str(found)


def test_layers_of_an_nnx_network() -> None:
    model = nnx.Sequential(nnx.Conv(1, 2, (3, 3), rngs=nnx.Rngs(0)), nnx.relu, nnx.Linear(2, 4, rngs=nnx.Rngs(1)))
    graph, params = nnx.split(model, nnx.Param)
    layers = accounting.layer_shapes(lambda p: nnx.merge(graph, p)(jnp.ones((1, 4, 4, 1))), params)
    assert [(layer.path, layer.kernel, layer.positions) for layer in layers] == [
        ("layers/0/kernel", (3, 3, 1, 2), 16),
        ("layers/2/kernel", (2, 4), 16),
    ]


def test_networks_without_such_layers() -> None:
    with pytest.raises(ValueError, match="layer_shapes: forward has no product with a leaf of params"):
        accounting.layer_shapes(lambda p: p["kernel"].sum(), {"kernel": jnp.ones((2, 2))})
    dense = [accounting.LayerShape("kernel", (2, 2))]
    with pytest.raises(ValueError, match="first_conv: layers has no convolution"):
        accounting.first_conv(dense)
    with pytest.raises(ValueError, match="last_dense: layers has no dense layer"):
        accounting.last_dense([])


def test_recalibrated_statistics_are_the_mean_over_batches(variables) -> None:
    batches = [np.random.default_rng(i).normal(i, 1 + i, (4, 8, 8, 3)).astype(np.float32) for i in range(3)]

    def update(statistics: Any, x: Any) -> Any:
        inputs = {"params": variables["params"], "batch_stats": statistics}
        return Backwards().apply(inputs, x, train=True, mutable=["batch_stats"])[1]["batch_stats"]

    got = sp.recalibrate(update, variables["batch_stats"], batches)["norm"]
    kernel, bias = variables["params"]["z"]["kernel"], variables["params"]["z"]["bias"]
    dims = ("NHWC", "HWIO", "NHWC")
    outputs = [jax.lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=dims) + bias for x in batches]
    np.testing.assert_allclose(got["mean"], np.mean([y.mean((0, 1, 2)) for y in outputs], 0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(got["var"], np.mean([y.var((0, 1, 2)) for y in outputs], 0), rtol=1e-4)


def test_recalibrate_leaves_counts_alone_and_refuses_what_it_cannot_do() -> None:
    statistics = {"mean": jnp.float32(3.0), "count": jnp.int32(7)}

    def update(s: Any, x: Any) -> Any:
        return {"mean": 0.5 * s["mean"] + 0.5 * x, "count": s["count"] + 1}

    assert sp.recalibrate(update, statistics, [1.0, 5.0]) == {"mean": 3.0, "count": 7}
    with pytest.raises(ValueError, match="recalibrate: batches has no element"):
        sp.recalibrate(update, statistics, [])
    with pytest.raises(ValueError, match="recalibrate: update has a running statistic that it leaves alone"):
        sp.recalibrate(lambda s, x: s, statistics, [1.0])


def test_a_report_for_a_list_of_rules(tools) -> None:
    rules = [
        (sp.path("a/kernel"), sp.static(0.5), sp.n_of_m(1, 2)),
        (sp.is_kernel(), sp.one_shot(0.75), sp.block(4, 2)),
    ]
    found = sp.report(tools.make_params(), rules)
    plan = {row.path: row.capacity for row in found.rows}
    assert plan["a/kernel"] == ("fixed", 24) and plan["b/kernel"] == ("scores", 8)
    assert plan["a/bias"] is None
