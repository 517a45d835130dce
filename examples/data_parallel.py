"""Gradual pruning with the batch divided over devices and processes, on scikit-learn's digits.

In one process, over all its devices:

    python examples/data_parallel.py

In two processes, which may run on two machines; each sees its share of the batch:

    python examples/data_parallel.py --coordinator localhost:12345 --process-count 2 --process-id 0 &
    python examples/data_parallel.py --coordinator localhost:12345 --process-count 2 --process-id 1
"""

from __future__ import annotations

import argparse
import hashlib

import jax
import numpy as np
import optax
from flax import nnx

from sparsejax import data, pruning
from sparsejax.train import data_parallel

BATCH, STEPS = 64, 60


def train() -> tuple[list[float], str]:
    """Train, and return the losses and a digest of the final masks."""
    model = nnx.Sequential(
        nnx.Linear(64, 128, rngs=nnx.Rngs(0)),
        nnx.BatchNorm(128, rngs=nnx.Rngs(1)),
        nnx.relu,
        nnx.Linear(128, 10, rngs=nnx.Rngs(2)),
    )
    schedule = pruning.schedules.cubic(0.0, 0.9, begin=10, end=50)
    method = pruning.magnitude(schedule, update_every=10, start=10, stop=50)
    optimizer = nnx.Optimizer(model, pruning.pruned(optax.adam(1e-2), method), wrt=nnx.Param)

    def step(model: nnx.Module, optimizer: nnx.Optimizer, batch: tuple[jax.Array, jax.Array]) -> jax.Array:
        def loss(model: nnx.Module) -> jax.Array:
            return optax.softmax_cross_entropy_with_integer_labels(model(batch[0]), batch[1]).mean()

        value, grads = nnx.value_and_grad(loss)(model)
        optimizer.update(model, grads)
        return value

    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    step = data_parallel(step, mesh)

    digits, losses = data.digits(), []
    share = BATCH // jax.process_count()
    for i in range(STEPS):
        rows = np.random.default_rng(i).permutation(len(digits.train_images))[:BATCH]  # alike in every process
        mine = rows[jax.process_index() * share : (jax.process_index() + 1) * share]
        images = digits.train_images[mine].reshape(share, -1)
        losses.append(float(step(model, optimizer, (images, digits.train_labels[mine]))))
    masks = jax.tree.leaves(pruning.get_mask(optimizer.opt_state))
    return losses, hashlib.sha256(b"".join(np.asarray(mask).tobytes() for mask in masks)).hexdigest()[:16]


def main() -> None:
    """Join the other processes, train, and print what every process must agree on."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--coordinator", help="HOST:PORT of process 0")
    parser.add_argument("--process-count", type=int, default=1)
    parser.add_argument("--process-id", type=int, default=0)
    args = parser.parse_args()
    if args.coordinator:
        jax.distributed.initialize(args.coordinator, args.process_count, args.process_id)
    losses, digest = train()
    kept = f"process {jax.process_index()} of {jax.process_count()}, {jax.device_count()} devices"
    print(f"{kept}: loss {losses[0]:.4f} to {losses[-1]:.4f}, masks {digest}")


if __name__ == "__main__":
    main()
