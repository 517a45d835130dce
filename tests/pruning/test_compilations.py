"""Nothing is traced or compiled twice: steps outside and inside jit, for every method, and what runs between steps."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from helpers.compilations import compilations
from sparsejax import pruning as sp
from sparsejax.pruning import methods, schedules, scores

STEPS = 9
RAMP = schedules.cubic(0.0, 0.75, begin=1, end=6)
CADENCE: dict[str, Any] = {"update_every": 2, "start": 2, "stop": 7}
PHASES = sp.acdc_phases(total=9, warmup=2, sparse=1, dense=1, last_dense=2, final_sparse=4)
SCORES = {"scores_tx": optax.adam(0.1)}
LAYER = sp.magnitude(RAMP, scope="layer", **CADENCE)

METHODS: dict[str, Any] = {
    "acdc": lambda: sp.acdc(0.75, PHASES),
    "external": sp.external,
    "fixed": lambda: sp.fixed({"a": {"kernel": jnp.ones((6, 8), bool)}, "b": {"kernel": jnp.ones((8, 4), bool)}}),
    "granet": lambda: sp.granet(RAMP, **CADENCE),
    "hard_threshold": lambda: sp.hard_threshold(0.75),
    "magnitude": lambda: sp.magnitude(RAMP, **CADENCE),
    "mest": lambda: sp.mest(0.75, grad_weight=0.1, bound=0.5, **CADENCE),
    "movement": lambda: sp.movement(RAMP, **SCORES),
    "one_shot": lambda: sp.one_shot(0.75, at=3),
    "random_pruning": lambda: sp.random_pruning(RAMP, keep_zeros=True, **CADENCE),
    "rigl": lambda: sp.rigl(0.75, grow_grad_steps=2, drop_noise=1e-5, **CADENCE),
    "saliency": lambda: sp.saliency(RAMP, average=0.5, **CADENCE),
    "snfs": lambda: sp.snfs(0.75, **CADENCE),
    "soft_movement": lambda: sp.soft_movement(threshold=0.49, penalty=1.0, **SCORES),
    "sparse_evolutionary_training": lambda: sp.sparse_evolutionary_training(0.75, **CADENCE),
    "static": lambda: sp.static(0.75),
    "straight_through": lambda: sp.straight_through(0.75, decay=1e-3),
    "top_kast": lambda: sp.top_kast(0.75, 0.5, penalty=1e-3),
}
NO_WRAPPER = {"soft_threshold", "lottery_tickets", "acdc_phases", "dense_partner"}
STRUCTURES: dict[str, Any] = {
    "rules": lambda: sp.pruned(
        optax.adam(1e-2),
        [(sp.path("a/kernel"), sp.static(0.5), sp.n_of_m(1, 2)), (sp.is_kernel(), LAYER, sp.unstructured())],
    ),
    "packed": lambda: sp.pruned(optax.adam(1e-2), METHODS["acdc"](), packed=True),
    "row_balanced": lambda: sp.pruned(optax.adam(1e-2), LAYER, structure=sp.row_balanced()),
    "floors": lambda: sp.pruned(
        optax.adam(1e-2), sp.magnitude(RAMP, scope=sp.across(min_per_layer=1, min_per_output=1), **CADENCE)
    ),
    "inject": lambda: sp.pruned(optax.inject_hyperparams(optax.sgd)(learning_rate=0.1), METHODS["rigl"]()),
    "inject_outside": lambda: optax.inject_hyperparams(
        lambda learning_rate: sp.pruned(optax.sgd(learning_rate), LAYER)
    )(learning_rate=0.1),
    "inject_outside_acdc": lambda: optax.inject_hyperparams(
        lambda learning_rate: sp.pruned(optax.adam(learning_rate), sp.acdc(0.5, PHASES))
    )(learning_rate=0.1),
    "chain": lambda: optax.chain(optax.clip(1.0), sp.pruned(optax.sgd(0.1, momentum=0.9), METHODS["rigl"]())),
    "partition": lambda: optax.partition(
        {"x": sp.pruned(optax.adam(1e-2), METHODS["acdc"]()), "y": optax.sgd(0.1)}, {"a": "x", "b": "y"}
    ),
}


def make(name: str) -> Any:
    return STRUCTURES[name]() if name in STRUCTURES else sp.pruned(optax.adam(0.5), METHODS[name]())


def test_the_table_has_every_method() -> None:
    functions = {name for name in methods.__all__ if name[0].islower()} - NO_WRAPPER
    assert functions == set(METHODS)


@pytest.mark.parametrize("name", [*METHODS, *STRUCTURES])
def test_an_eager_step_after_the_first_neither_traces_nor_compiles(tools, name) -> None:
    tx = make(name)
    params = tools.make_params()
    state = tx.init(params)
    grads = [tools.random_grads(params, i) for i in range(STEPS)]
    masks = []
    for i in range(STEPS):
        with compilations() as counter:
            updates, state = tx.update(grads[i], state, params)
        assert not counter or i == 0, (i, counter)
        assert bool(counter) or i > 0  # the counter counts
        masks.append(np.concatenate([np.ravel(mask) for mask in jax.tree.leaves(sp.get_mask(state))]))
        params = optax.apply_updates(params, updates)
    changes = sum(not np.array_equal(*pair) for pair in itertools.pairwise(masks))
    assert changes or name in ("external", "fixed", "static")


@pytest.mark.parametrize("name", [*METHODS, *STRUCTURES])
def test_a_compiled_step_is_compiled_once(tools, name) -> None:
    tx = make(name)
    params = tools.make_params()
    state, step = tx.init(params), jax.jit(tx.update)
    grads = [tools.random_grads(params, i) for i in range(STEPS)]
    for i in range(STEPS):
        with compilations() as counter:
            updates, state = step(grads[i], state, params)
        assert counter["compiled"] == (1 if i == 0 else 0), (i, counter)
        params = optax.apply_updates(params, updates)


def test_eager_and_compiled_steps_choose_the_same_masks(tools, optimized) -> None:
    for name in ("rigl", "acdc", "magnitude"):
        tx = make(name)
        runs = [(tools.make_params(), tx.init(tools.make_params()))] * 2
        for i in range(STEPS):
            results = []
            for (params, state), update in zip(runs, (tx.update, jax.jit(tx.update)), strict=True):
                updates, state = update(tools.random_grads(params, i), state, params)
                results.append((optax.apply_updates(params, updates), state))
            runs = results
            tools.assert_equal_trees(sp.get_mask(runs[0][1]), sp.get_mask(runs[1][1]))
            for x, y in zip(jax.tree.leaves(runs[0]), jax.tree.leaves(runs[1]), strict=True):
                np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("flag", [True, False, np.bool_(True), jnp.array(False)])
def test_refresh_by_hand_outside_jit(tools, flag) -> None:
    tx: Any = make("magnitude")
    params = tools.make_params()
    state = tx.init(params)
    for i in range(3):
        with compilations() as counter:
            _, state = tx.update(params, state, params, refresh=flag)
        assert not counter or i == 0
    assert int(state.change.step) == (3 if flag else 0)


def test_wrappers_are_copied_and_collected() -> None:
    tx = make("magnitude")
    params = {"a": {"kernel": jnp.ones((6, 8))}, "b": {"kernel": jnp.ones((8, 4))}}
    state = tx.init(params)
    tx.update(params, state, params)
    copied = copy.deepcopy(tx)
    _, new = copied.update(params, state, params)
    assert int(new.step) == 1


def test_making_masks_by_hand_compiles_once(tools) -> None:
    params = tools.make_params()
    tx = make("external")
    grads = jax.tree.map(lambda p: jnp.stack([p, 2 * p, -p]), params)

    def outputs(p: Any) -> Any:
        return jax.nn.relu(jnp.ones((1, 6)) @ p["a"]["kernel"]) @ p["b"]["kernel"]

    def loss(p: Any) -> Any:
        return jnp.sum(outputs(p) ** 2)

    def everything(params: Any) -> None:
        state = tx.init(params)
        second = scores.woodfisher(grads, params, block=10, damping=0.1)
        for found in (second.scores, scores.mfac(grads, params, damping=0.1).scores, scores.obd(grads, params)):
            mask = sp.mask_from_scores(found, 0.5)
            pruned, new = sp.prune(tx, params, state, mask, second.compensation(mask))
            sp.forward_params(pruned, new), sp.metrics(new), sp.check(pruned, new)
        for found in (scores.snip(loss, params), scores.grasp(loss, params)):
            sp.mask_from_scores(found, 0.5, scope="layer", structure=sp.row_balanced())
        sp.dead_units(scores.synflow(outputs, params, 0.75, rounds=3))
        sp.project(params, 0.5, structure=sp.n_of_m(1, 2), scope="layer")
        values, stored = sp.compress(pruned, new)
        sp.decompress(values, stored)

    everything(params)
    with compilations() as counter:
        everything(params)
    assert counter["compiled"] == 0, counter


@pytest.mark.parametrize("name", METHODS)
def test_a_second_optimizer_of_the_same_kind_starts_without_compiling(tools, name) -> None:
    params = tools.make_params()
    make(name).init(params)
    with compilations() as counter:
        make(name).init(params)
    assert counter["compiled"] == 0, counter
