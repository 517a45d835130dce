"""Sparse networks train in bfloat16 as in float32: parameters and optimizer state stay float32, as in Flax."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from sparsejax import models, pruning, sparsify
from sparsejax.data import digits

STEPS, WINDOW, BATCH = 200, 25, 32


def pictures() -> tuple[np.ndarray, np.ndarray]:
    """The bundled digits at twice their size, and their labels."""
    data = digits()
    return data.train_images.repeat(2, 1).repeat(2, 2), data.train_labels


def sparse_model(name: str, dtype: Any) -> nnx.Module:
    """A network with 90 % of the weights of its body pruned, that computes in a dtype."""
    if name == "resnet18":
        model = models.build(name, 10, 1, (16, 16), nnx.Rngs(0))
    else:
        sizes = {"width": 64, "depth": 3, "heads": 4, "image_size": (16, 16), "patch": 4}
        model = models.ViT(10, **sizes, in_features=1, rngs=nnx.Rngs(0))
    tx = pruning.pruned(optax.sgd(0.0), pruning.one_shot(0.9, at=0), where=models.body_kernels(model))
    params = nnx.as_pure(nnx.state(model, nnx.Param))
    updates, _ = tx.update(jax.tree.map(np.zeros_like, params), tx.init(params), params)
    nnx.update(model, optax.apply_updates(params, updates))
    sparse, _ = sparsify(model, policy="always")
    for _, module in nnx.iter_modules(sparse):
        if hasattr(module, "dtype"):
            module.dtype = dtype
    return sparse


def losses(name: str, dtype: Any, seed: int) -> np.ndarray:
    """Mean loss of each window of steps."""
    images, labels = pictures()
    model = sparse_model(name, dtype)
    optimizer = nnx.Optimizer(model, optax.adamw(1e-3), wrt=nnx.Param)

    @nnx.jit
    def step(model: Any, optimizer: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        def loss(model: Any) -> jax.Array:
            logits = model(x).astype(jnp.float32)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        value, grads = nnx.value_and_grad(loss)(model)
        optimizer.update(model, grads)
        return value

    rng = np.random.default_rng(seed)
    batches = (rng.integers(0, len(labels), BATCH) for _ in range(STEPS))
    values = [float(step(model, optimizer, images[i], labels[i])) for i in batches]
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    return np.reshape(values, (-1, WINDOW)).mean(1)


@pytest.mark.slow
@pytest.mark.usefixtures("optimized")
@pytest.mark.parametrize("name", ["resnet18", "vit"])
def test_bfloat16_trains_as_float32_does(name: str) -> None:
    """Over 200 steps the losses differ from those in float32 by less than those of another order of the batches do."""
    single, other = losses(name, jnp.float32, 0), losses(name, jnp.float32, 1)
    half = losses(name, jnp.bfloat16, 0)
    assert half[-1] < 0.5 * half[0]
    assert np.abs(half - single).max() <= np.abs(other - single).max(), (single, half, other)
