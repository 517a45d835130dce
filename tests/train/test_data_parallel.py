"""``data_parallel``: two devices, and two processes, train as one does and end with the same masks."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import AxisType

import sparsejax as sx
from sparsejax import pruning
from sparsejax.train import data_parallel

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "data_parallel.py"
AXES = pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=["auto", "explicit"])


def make_mesh(devices: int, kind: AxisType = AxisType.Auto) -> jax.sharding.Mesh:
    return jax.make_mesh((devices,), ("data",), axis_types=(kind,), devices=jax.devices()[:devices])


def batch(i: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(i)
    return rng.normal(size=(8, 12)).astype(np.float32), rng.integers(0, 4, 8)


def sparse_run(mesh: jax.sharding.Mesh) -> tuple[list[float], Any]:
    """RigL in an ``nnx.Optimizer`` on a network with a sparse layer and batch norm."""
    rngs = nnx.Rngs(0)
    layers = [nnx.Linear(12, 16, rngs=rngs), nnx.BatchNorm(16, rngs=rngs), nnx.relu, nnx.Linear(16, 4, rngs=rngs)]
    mask = np.random.default_rng(0).random((12, 16)) < 0.3
    model, _ = sx.sparsify(nnx.Sequential(*layers), {"layers/0": mask}, policy="always", min_sparsity=0.1)
    tx = pruning.pruned(optax.sgd(0.1, momentum=0.9), pruning.rigl(0.5, update_every=2, start=0, stop=6))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

    def step(model: Any, optimizer: Any, batch: Any) -> Any:
        def loss(model: Any) -> Any:
            return optax.softmax_cross_entropy_with_integer_labels(model(batch[0]), batch[1]).mean()

        value, grads = nnx.value_and_grad(loss)(model)
        optimizer.update(model, grads)
        return value

    run = data_parallel(step, mesh)
    losses = [float(run(model, optimizer, batch(i))) for i in range(6)]
    return losses, pruning.get_mask(optimizer.opt_state)


@pytest.fixture(scope="module")
def one_device() -> tuple[list[float], Any]:
    return sparse_run(make_mesh(1))


def test_two_devices_train_as_one(one_device: tuple[list[float], Any]) -> None:
    losses, masks = sparse_run(make_mesh(2))
    np.testing.assert_allclose(losses, one_device[0], rtol=1e-5)
    assert all(np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (masks, one_device[1])), strict=True))


@AXES
def test_plain_optax(kind: AxisType) -> None:
    tx = pruning.pruned(optax.sgd(0.1), pruning.one_shot(0.5, at=2))
    params = {"kernel": jax.random.normal(jax.random.key(0), (12, 4))}

    def step(params: Any, state: Any, batch: Any) -> tuple[Any, Any]:
        def loss(params: Any) -> Any:
            return jnp.mean((batch[0] @ params["kernel"]) ** 2)

        updates, state = tx.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    ends = []
    for mesh in (make_mesh(1, kind), make_mesh(2, kind)):
        run, now, state = data_parallel(step, mesh), params, tx.init(params)
        for i in range(3):
            now, state = run(now, state, batch(i))
        ends.append(np.asarray(now["kernel"]))
    np.testing.assert_allclose(*ends, rtol=1e-5, atol=1e-7)
    assert np.mean(ends[1] == 0) == 0.5


def test_a_batch_that_does_not_divide_is_refused() -> None:
    run = data_parallel(lambda total, batch: total, make_mesh(2))
    with pytest.raises(ValueError, match="batch has 7 rows in this process; expected a multiple of 2"):
        run(jnp.zeros(()), np.zeros((7, 3)))
    with pytest.raises(ValueError, match=r"batch has leaves of \[6, 8\] rows"):
        run(jnp.zeros(()), (np.zeros((6, 3)), np.zeros(8)))


@pytest.mark.slow
def test_two_processes_end_with_the_masks_of_one() -> None:
    """The example, run in one process and in two that meet on this machine."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    joined = ["--coordinator", address, "--process-count", "2", "--process-id"]
    commands = [[], [*joined, "0"], [*joined, "1"]]
    started = [subprocess.Popen([sys.executable, EXAMPLE, *c], stdout=subprocess.PIPE, text=True) for c in commands]
    lines = [process.communicate(timeout=300)[0].strip().splitlines()[-1] for process in started]
    results = [line.split(": ")[1] for line in lines]
    assert results == [results[0]] * 3
