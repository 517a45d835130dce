"""Sparse layers under NNX's machinery: split, merge, clone, jit, grad, scan, optimizers, checkpoints."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx

from helpers import restore_worker
from helpers.processes import run_python, tail
from sparsejax import SparsityPattern
from sparsejax.nn import Pattern, SparseConv, SparseLinear


def mask_of(shape, seed=0):
    return np.random.default_rng(seed).random(shape) < 0.4


class Pair(nnx.Module):
    def __init__(self, seed: int, pattern_seed: int = 0):
        rngs = nnx.Rngs(seed)
        conv = SparsityPattern.from_mask(mask_of((3, 3, 2, 4), pattern_seed), nse=48)
        linear = SparsityPattern.from_mask(mask_of((4, 3), pattern_seed), nse=12)
        self.conv = SparseConv(2, 4, (3, 3), pattern=conv, rngs=rngs)
        self.linear = SparseLinear(4, 3, pattern=linear, rngs=rngs)

    def __call__(self, x):
        return self.linear(nnx.relu(self.conv(x)).mean((1, 2)))


@pytest.fixture(scope="module")
def images():
    return jnp.asarray(np.random.default_rng(3).normal(size=(4, 6, 6, 2)), jnp.float32)


def leaves_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, nnx.to_pure_dict(a), nnx.to_pure_dict(b))


def test_split_merge_clone_and_jit(images):
    model = Pair(0)
    graphdef, parameters, patterns = nnx.split(model, nnx.Param, Pattern)
    assert set(nnx.to_pure_dict(parameters)["conv"]) == {"kernel", "bias"}
    assert set(nnx.to_pure_dict(patterns)["conv"]) == {"topology"}
    expected = model(images)
    merged = nnx.merge(graphdef, parameters, patterns)
    assert isinstance(merged.conv.pattern, SparsityPattern)
    for other in (merged, nnx.clone(model)):
        np.testing.assert_array_equal(other(images), expected)
        leaves_equal(nnx.state(other), nnx.state(model))
    np.testing.assert_allclose(nnx.jit(lambda m, x: m(x))(model, images), expected, rtol=1e-5, atol=1e-6)


def test_gradients_leave_the_pattern_alone(images):
    grads = nnx.grad(lambda m: m(images).sum())(Pair(0))
    assert set(grads["conv"]) == {"kernel", "bias"}
    assert grads["conv"]["kernel"].shape == (48,)


@pytest.mark.parametrize("tx", [optax.adamw(1e-2), optax.sgd(1e-2, momentum=0.9, nesterov=True)], ids=["adamw", "sgd"])
def test_a_step_equals_that_of_the_masked_dense_layers(tx, images):
    model = Pair(0)
    stored = {name: getattr(model, name).pattern for name in ("conv", "linear")}

    class Dense(nnx.Module):
        def __init__(self):
            self.conv, self.linear = model.conv.to_dense(), model.linear.to_dense()

        __call__ = Pair.__call__

    dense = Dense()
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    dense_optimizer = nnx.Optimizer(dense, tx, wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, x):
        loss, grads = nnx.value_and_grad(lambda m: (m(x) ** 2).mean())(model)
        optimizer.update(model, grads)
        return loss

    for _ in range(3):
        loss = step(model, optimizer, images)
        dense_loss = step(dense, dense_optimizer, images)
        for name, pattern in stored.items():  # the mask by hand
            kernel = getattr(dense, name).kernel
            kernel[...] = kernel[...] * pattern.mask()
        np.testing.assert_allclose(loss, dense_loss, rtol=1e-5)
    for name, pattern in stored.items():
        layer, reference = getattr(model, name), getattr(dense, name)
        np.testing.assert_allclose(layer.to_dense().kernel[...], reference.kernel[...], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(layer.bias[...], reference.bias[...], rtol=1e-4, atol=1e-6)
        jax.tree.map(np.testing.assert_array_equal, layer.pattern, pattern)
    sizes = [leaf.size for leaf in jax.tree.leaves(nnx.state(optimizer))]
    assert max(sizes) == 48


def test_scan_over_stacked_layers_and_over_steps():
    pattern = SparsityPattern.from_mask(mask_of((4, 4)))
    keys = jax.random.split(jax.random.key(0), 3)
    make = nnx.vmap(lambda key: SparseLinear(4, 4, pattern=pattern, rngs=nnx.Rngs(key)))
    stacked = make(keys)
    x = jnp.ones((2, 4))

    @nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
    def through(layer, x):
        return jnp.tanh(layer(x))

    expected = x
    for key in keys:
        expected = jnp.tanh(SparseLinear(4, 4, pattern=pattern, rngs=nnx.Rngs(key))(expected))
    np.testing.assert_allclose(through(stacked, x), expected, rtol=1e-5, atol=1e-6)


def test_the_topology_changes_without_recompiling(images):
    model = Pair(0)
    traces = []

    @nnx.jit
    def run(model, x):
        traces.append(1)
        return model(x)

    before = run(model, images)
    pattern = SparsityPattern.from_mask(mask_of((4, 3), 9), nse=12)
    model.linear.topology.set_value(pattern)
    after = run(model, images)
    assert len(traces) == 1
    assert not np.allclose(before, after)
    np.testing.assert_allclose(after, model(images), rtol=1e-5, atol=1e-6)


def test_orbax_round_trip(tmp_path, images):
    model, other = Pair(0, pattern_seed=0), Pair(1, pattern_seed=5)
    assert not np.allclose(model(images), other(images))
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "step", nnx.state(model))
        checkpointer.wait_until_finished()
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, nnx.state(other))
        restored = checkpointer.restore(tmp_path / "step", abstract)
    nnx.update(other, restored)
    assert isinstance(other.conv.pattern, SparsityPattern)
    other.conv.pattern.validate()
    leaves_equal(nnx.state(other), nnx.state(model))
    np.testing.assert_array_equal(other(images), model(images))


def test_a_fresh_process_restores_into_an_abstract_model_with_its_layouts(tmp_path):
    """It knows neither dense kernels nor the masks that were saved; planned layouts follow the structure."""
    model = restore_worker.sparse_network(0)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "step", nnx.state(model))
    process = run_python(restore_worker.__file__, str(tmp_path / "step"), timeout=120)
    assert process.returncode == 0, tail(process)
    found = json.loads(process.stdout)
    assert found["layouts"] == restore_worker.layouts(model) and "BATCH_MINOR" in str(found["layouts"])
    assert found["largest"] < 3 * 3 * 16 * 16
    np.testing.assert_array_equal(np.float32(found["outputs"]), restore_worker.outputs(model))
