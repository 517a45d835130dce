"""The transformers of the zoo pruned and sparse: their bodies are, embeddings and heads stay dense."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from sparsejax import pruning
from sparsejax.models import body_kernels
from sparsejax.nn import sparsify

from .test_transformers import CASES


def model_of(name: str) -> tuple[Any, tuple[jax.Array, ...]]:
    make, _, _, inputs = CASES[name]
    return make(nnx.Rngs(0)), tuple(map(jnp.asarray, inputs))


def heads(name: str) -> set[str]:
    return {"vit": {"patch_embed", "head"}, "gpt": set(), "bert": {"pooler", "classifier"}}[name]


SLOW = ("gpt", "bert")


@pytest.mark.parametrize("name", ["vit", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_bodies_prune_sparsify_and_train(name):
    model, arrays = model_of(name)
    params = nnx.as_pure(nnx.state(model, nnx.Param))
    tx = pruning.pruned(optax.sgd(0.1), pruning.one_shot(0.9, at=0), where=body_kernels(model))
    state = tx.init(params)
    updates, _ = jax.jit(tx.update)(jax.tree.map(np.zeros_like, params), state, params)
    nnx.update(model, optax.apply_updates(params, updates))
    sparse, report = sparsify(model, min_sparsity=0.5, policy="always")
    became = {row.path for row in report.rows if row.action == "sparse"}
    linear = {"/".join(map(str, path)) for path, layer in nnx.iter_modules(model) if isinstance(layer, nnx.Linear)}
    bodies = {path for path in linear if path.split("/")[0] not in heads(name)}
    assert became == bodies and len(bodies) == (12 if name == "bert" else 8)
    run = nnx.jit(lambda model: model(*arrays))
    np.testing.assert_allclose(run(sparse), run(model), atol=1e-5)
    optimizer = nnx.Optimizer(sparse, optax.adam(1e-2), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        def loss(model):
            logits = model(*arrays)
            targets = jnp.zeros(logits.shape[:-1], jnp.int32)
            return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()

        value, grads = nnx.value_and_grad(loss)(model)
        optimizer.update(model, grads)
        return value

    losses = [float(step(sparse, optimizer)) for _ in range(8)]
    assert losses[-1] < 0.8 * losses[0]
