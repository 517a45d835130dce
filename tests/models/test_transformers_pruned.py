"""The transformers of the zoo pruned by every method, and sparse: their bodies are, the rest stays dense."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
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
from sparsejax.pruning import methods, schedules

from .test_transformers import CASES


def model_of(name: str, depth: int = 2) -> tuple[Any, tuple[jax.Array, ...]]:
    make, _, _, inputs = CASES[name]
    return make(nnx.Rngs(0), depth), tuple(map(jnp.asarray, inputs))


def heads(name: str) -> set[str]:
    return {"vit": {"patch_embed", "head"}, "gpt": set(), "bert": {"pooler", "classifier"}}[name]


NAMES = ["vit", *(pytest.param(name, marks=pytest.mark.slow) for name in ("gpt", "bert"))]


@pytest.mark.parametrize("name", NAMES)
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


RAMP = schedules.cubic(0.0, 0.75, begin=0, end=2)
CADENCE: dict[str, Any] = {"update_every": 1, "stop": 2}
PHASES = [pruning.Phase(kind, start, start + 1) for start, kind in enumerate(("dense", "sparse", "dense", "sparse"))]
METHODS: dict[str, Callable[[Any], Any]] = {  # each of the masks of a fixed pattern
    "acdc": lambda _: pruning.acdc(0.75, PHASES),
    "external": lambda _: pruning.external(),
    "fixed": pruning.fixed,
    "granet": lambda _: pruning.granet(RAMP, **CADENCE),
    "hard_threshold": lambda _: pruning.hard_threshold(0.75),
    "magnitude": lambda _: pruning.magnitude(RAMP, **CADENCE),
    "mest": lambda _: pruning.mest(0.75, grad_weight=0.1, **CADENCE),
    "movement": lambda _: pruning.movement(RAMP, scores_tx=optax.sgd(1.0)),
    "one_shot": lambda _: pruning.one_shot(0.75, at=1),
    "random_pruning": lambda _: pruning.random_pruning(RAMP, **CADENCE),
    "rigl": lambda _: pruning.rigl(0.75, **CADENCE),
    "saliency": lambda _: pruning.saliency(RAMP, **CADENCE),
    "snfs": lambda _: pruning.snfs(0.75, **CADENCE),
    "soft_movement": lambda _: pruning.soft_movement(threshold=0.49, penalty=1.0, scores_tx=optax.sgd(1.0)),
    "sparse_evolutionary_training": lambda _: pruning.sparse_evolutionary_training(0.75, **CADENCE),
    "static": lambda _: pruning.static(0.75),
    "straight_through": lambda _: pruning.straight_through(0.75),
    "top_kast": lambda _: pruning.top_kast(0.75, 0.5),
}
# soft_threshold reparametrizes the weights; lottery_tickets is a loop around training; the others make no masks.
NO_WRAPPER = {"soft_threshold", "lottery_tickets", "acdc_phases", "dense_partner"}


def test_the_table_has_every_method():
    assert {name for name in methods.__all__ if name[0].islower()} - NO_WRAPPER == set(METHODS)


@cache
def gradients_of(name: str) -> tuple[Any, Any, Callable[[Any], Any]]:
    """Model, parameters, and the compiled loss with its gradient, which all methods share."""
    model, arrays = model_of(name, depth=1)
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    def loss(params: Any) -> jax.Array:
        return jnp.square(nnx.merge(graph, params, rest)(*arrays)).mean()

    return model, nnx.as_pure(params), jax.jit(jax.value_and_grad(loss))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_prunes_the_body_and_nothing_else(name, method):
    model, params, gradients = gradients_of(name)
    where = body_kernels(model)
    masks = pruning.mask_from_zeros(pruning.project(params, 0.75, where=where), where) if method == "fixed" else None
    tx = pruning.pruned(optax.sgd(0.1), METHODS[method](masks), where=where)
    state, update = tx.init(params), jax.jit(tx.update)
    for _ in range(3):
        loss, grads = gradients(pruning.forward_params(params, state))
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
        assert np.isfinite(loss)
    assert update._cache_size() == 1
    masks = {
        path: mask for path, mask in nnx.to_flat_state(nnx.State(pruning.get_mask(state))) if hasattr(mask, "size")
    }
    weights = dict(nnx.to_flat_state(nnx.State(pruning.forward_params(params, state))))
    assert set(masks) == {path for path, leaf in weights.items() if where("/".join(map(str, path)), leaf)}
    assert not any(np.any(weights[path][~mask]) for path, mask in masks.items())
    kept, total = (sum(int(f(mask)) for mask in masks.values()) for f in (np.sum, np.size))
    if method == "soft_movement":  # how many weights stay follows from their scores
        assert 0 < kept < total
    else:
        assert kept == (total if method == "external" else total - round(0.75 * total))
