"""The transformers of the zoo under every pruning method, and sparse: their bodies are pruned, the rest stays dense."""

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
from sparsejax.pruning import schedules

from .test_transformers import CASES

PHASES = pruning.acdc_phases(total=10, warmup=2, sparse=2, dense=2, last_dense=2, final_sparse=4)
AT_ONE = schedules.one_shot(0.75, 1)
METHODS: dict[str, Any] = {
    "one_shot": lambda: pruning.one_shot(0.75, at=1),
    "magnitude": lambda: pruning.magnitude(AT_ONE),
    "acdc": lambda: pruning.acdc(0.75, PHASES),
    "random": lambda: pruning.random_pruning(AT_ONE),
    "saliency": lambda: pruning.saliency(AT_ONE),
    "static": lambda: pruning.static(0.75),
    "set": lambda: pruning.sparse_evolutionary_training(0.75, update_every=2, stop=8),
    "rigl": lambda: pruning.rigl(0.75, update_every=2, stop=8),
    "snfs": lambda: pruning.snfs(0.75, update_every=2, stop=8),
    "granet": lambda: pruning.granet(AT_ONE),
    "mest": lambda: pruning.mest(0.75, update_every=2, stop=8),
    "hard_threshold": lambda: pruning.hard_threshold(0.75),
    "straight_through": lambda: pruning.straight_through(0.75),
    "top_kast": lambda: pruning.top_kast(0.75, 0.5),
    "movement": lambda: pruning.movement(AT_ONE, scores_tx=optax.sgd(1.0)),
}


def model_of(name: str) -> tuple[Any, tuple[jax.Array, ...]]:
    make, _, _, inputs = CASES[name]
    return make(nnx.Rngs(0)), tuple(map(jnp.asarray, inputs))


def heads(name: str) -> set[str]:
    return {"vit": {"patch_embed", "head"}, "gpt": set(), "bert": {"pooler", "classifier"}}[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_every_method_prunes_the_body_and_nothing_else(name):
    model, _ = model_of(name)
    start = nnx.as_pure(nnx.state(model, nnx.Param))
    grads = jax.tree.map(lambda leaf: jax.random.normal(jax.random.key(leaf.size), leaf.shape), start)
    for method, make in METHODS.items():
        tx = pruning.pruned(optax.sgd(1e-2), make(), where=body_kernels(model))
        params, state = start, tx.init(start)
        update = jax.jit(tx.update)
        for _ in range(4):
            updates, state = update(grads, state, params)
            params = optax.apply_updates(params, updates)
        zeros = total = 0
        for path, leaf in jax.tree_util.tree_flatten_with_path(pruning.forward_params(params, state))[0]:
            is_body = jax.tree_util.keystr(path[:1], simple=True) in ("blocks", "h", "encoder") and leaf.ndim > 1
            assert is_body or bool((leaf != 0).all()), (method, path)
            zeros, total = zeros + is_body * int((leaf == 0).sum()), total + is_body * leaf.size
        assert zeros == total - pruning.metrics(state)["nnz"] and zeros > 0.74 * total, method


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
