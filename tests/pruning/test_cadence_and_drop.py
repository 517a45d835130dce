"""What all methods have in common: one cadence, drop fractions as numbers or schedules, zeros that stay."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sparsejax import pruning as sp
from sparsejax.pruning import schedules

RAMP = schedules.linear(0.0, 0.8, begin=0, end=10)
FLAT = schedules.constant(0.5)
DROPS: dict[str, Any] = {
    "sparse_evolutionary_training": lambda **k: sp.sparse_evolutionary_training(0.75, **k),
    "rigl": lambda **k: sp.rigl(0.75, **k),
    "snfs": lambda **k: sp.snfs(0.75, **k),
    "mest": lambda **k: sp.mest(0.75, grad_weight=0.1, **k),
    "granet": lambda **k: sp.granet(FLAT, **k),
}
METHODS: dict[str, Any] = {
    **DROPS,
    "magnitude": lambda **k: sp.magnitude(RAMP, **k),
    "random_pruning": lambda **k: sp.random_pruning(RAMP, **k),
    "saliency": lambda **k: sp.saliency(RAMP, **k),
    "movement": lambda **k: sp.movement(RAMP, scores_tx=optax.sgd(1.0), **k),
    "soft_movement": lambda **k: sp.soft_movement(threshold=0.1, penalty=1.0, scores_tx=optax.sgd(1.0), **k),
    "straight_through": lambda **k: sp.straight_through(0.75, **k),
    "top_kast": lambda **k: sp.top_kast(0.75, 0.5, **k),
}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_updates_from_start_to_stop_inclusive(name) -> None:
    method = METHODS[name](update_every=4, start=2, stop=13)
    assert [t for t in range(40) if method.refresh(t)] == [2, 6, 10, 13]
    assert jax.jit(jax.vmap(method.refresh))(jnp.arange(40)).sum() == 4
    from_zero = METHODS[name](update_every=5, stop=10)
    assert [t for t in range(40) if from_zero.refresh(t)] == [0, 5, 10]


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    ("cadence", "operand"),
    [
        ({"update_every": 0, "stop": 20}, "update_every has value 0; expected an integer, at least 1"),
        ({"update_every": True, "stop": 20}, "update_every has value True"),
        ({"update_every": 2, "start": -1, "stop": 20}, "start has value -1"),
        ({"update_every": 2, "start": 21, "stop": 20}, "stop has value 20; expected an integer, at least 21"),
        ({"update_every": 2, "stop": 20.0}, "stop has value 20.0"),
    ],
)
def test_a_cadence_out_of_range_is_refused(name, cadence, operand) -> None:
    with pytest.raises(ValueError, match=f"{name}: {operand}"):
        METHODS[name](**cadence)


@pytest.mark.parametrize("name", DROPS)
def test_drop_is_a_number_or_a_schedule(tools, name) -> None:
    counts = []
    for drop in (0.5, np.float32(0.5), jnp.float32(0.5), 1, schedules.constant(0.5), optax.constant_schedule(0.5)):
        tx = sp.pruned(optax.sgd(0.0), DROPS[name](update_every=1, stop=3, drop=drop))
        params, state = sp.init(tx, tools.make_params())
        _, state = tx.update(tools.random_grads(params, 0), state, params)
        counts.append((int(state.change.dropped), int(state.change.grown)))
        assert int(sp.metrics(state)["nnz"]) == (40 if name == "granet" else 20)
    assert len({counts[i] for i in (0, 1, 2, 4, 5)}) == 1 and counts[0][1] > 0
    for bad in (0.0, -0.5, 1.5, float("nan"), "0.3", True, None if name not in ("rigl", "snfs", "granet") else 2):
        with pytest.raises(ValueError, match=rf"{name}: drop has value .*; expected a number in \(0, 1\]"):
            DROPS[name](update_every=1, stop=3, drop=bad)
    tx = sp.pruned(optax.sgd(0.0), DROPS[name](update_every=1, stop=3, drop=lambda step: 2.0))
    params, state = sp.init(tx, tools.make_params())
    with pytest.raises(ValueError, match=f"{name}: the schedule drop at step . has value 2.0; expected a fraction"):
        tx.update(params, state, params)


def test_the_published_drop_fractions_end_where_the_next_update_would_be() -> None:
    rigl: Any = sp.rigl(0.9, update_every=100, stop=900)
    snfs: Any = sp.snfs(0.9, update_every=100, stop=900)
    granet: Any = sp.granet(FLAT, update_every=100, stop=900)
    assert [round(rigl.drop(t), 4) for t in (0, 500, 1000)] == [0.3, 0.15, 0.0]
    assert [round(snfs.drop(t), 4) for t in (0, 500, 1000)] == [0.5, 0.25, 0.0]
    assert [granet.drop(t) for t in (0, 900)] == [0.5, 0.005]


def test_gradients_of_the_last_steps_are_added_up_also_before_a_last_update_off_the_grid() -> None:
    tx = sp.pruned(optax.sgd(0.0), sp.rigl(0.5, update_every=4, start=2, stop=7, grow_grad_steps=2))
    params = {"kernel": jnp.ones((2, 2))}
    state: Any = tx.init(params)
    update, sums = jax.jit(tx.update), []
    for i in range(7):
        _, state = update({"kernel": jnp.full((2, 2), 10.0**i)}, state, params)
        sums.append(float(state.aux[0][0, 0]))
    # Updates after steps 2, 6 and 7; the sum of the last counts no step before the update at 6.
    assert [sums[t - 1] for t in (2, 6, 7)] == [11.0, 1.1e5, 1e6]


def test_movement_follows_the_scores_until_stop_and_without_one_for_ever() -> None:
    ramp = schedules.one_shot(0.5, 1)
    assert [t for t in range(6) if sp.movement(ramp, start=1, scores_tx=optax.sgd(1.0)).refresh(t)] == [1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match="movement: stop has value None; expected the step of the last update"):
        sp.movement(lambda step: 0.5, scores_tx=optax.sgd(1.0))
    with pytest.raises(ValueError, match="movement: stop has value 0; expected the end of the schedule, 1,"):
        sp.movement(ramp, stop=0, scores_tx=optax.sgd(1.0))


SPARSE = schedules.linear(0.7, 0.9, begin=2, end=6)
FROM_DENSE = schedules.linear(0.0, 0.9, begin=2, end=6)
KEEPING: dict[str, Any] = {
    "magnitude": lambda s, **k: sp.magnitude(s, **k),
    "magnitude per layer": lambda s, **k: sp.magnitude(s, scope="layer", **k),
    "one_shot": lambda s, **k: sp.one_shot(0.9, at=6, keep_zeros=True),
    "random_pruning": lambda s, **k: sp.random_pruning(s, **k),
    # At step 0 there is no gradient.
    "saliency": lambda s, start, **k: sp.saliency(s, kind="fisher", start=max(start, 1), **k),
}


@pytest.mark.parametrize("name", KEEPING)
@pytest.mark.parametrize("schedule", [SPARSE, FROM_DENSE])
@pytest.mark.parametrize("start", [0, 2])
def test_a_sparse_network_becomes_sparser_without_one_revived_weight(tools, name, schedule, start) -> None:
    dense = tools.make_params()
    sparse = sp.project(dense, 0.7, scope="layer" if name in ("magnitude per layer", "random_pruning") else "global")
    mask = sp.mask_from_zeros(sparse)
    method_of = KEEPING[name]
    tx = sp.pruned(optax.adam(1e-2), method_of(schedule, update_every=2, start=start, stop=6, keep_zeros=True))
    params, state = sp.init(tx, sparse)
    step, counts = jax.jit(tools.make_step(tx)), []
    for i in range(7):
        params, state = step(params, state, i)
        assert not any(np.asarray(params[k]["kernel"])[~np.asarray(mask[k]["kernel"])].any() for k in "ab")
        sp.check(params, state)
        counts.append(int(sp.metrics(state)["nnz"]))
    assert counts[0] == 24 and counts[-1] == 8 and counts == sorted(counts, reverse=True)


def test_without_keeping_zeros_the_network_is_dense_until_the_start(tools) -> None:
    sparse = sp.project(tools.make_params(), 0.7)
    tx = sp.pruned(optax.adam(1e-2), sp.magnitude(SPARSE, update_every=2, start=2, stop=6))
    params, state = tools.make_step(tx)(sparse, tx.init(sparse), 0)
    assert int(sp.metrics(state)["nnz"]) == 80 and float(sp.sparsity_of(params)) == 0


def test_granet_starts_from_the_zeros_and_never_keeps_more(tools) -> None:
    sparse = sp.project(tools.make_params(), 0.7)
    tx = sp.pruned(optax.sgd(0.1), sp.granet(SPARSE, update_every=2, start=2, stop=8, keep_zeros=True))
    params, state = sp.init(tx, sparse)
    tools.assert_equal_trees(params, sparse)
    step, counts = jax.jit(tools.make_step(tx)), []
    for i in range(8):
        params, state = step(params, state, i)
        counts.append(int(sp.metrics(state)["nnz"]))
    assert counts[0] == 24 and counts[-1] == 8 and counts == sorted(counts, reverse=True)


def test_zeros_within_a_kept_channel_stay_and_do_not_decide_which_channel_is_pruned() -> None:
    kernel = jnp.array([[9.0, 1.0, 2.0], [0.0, 1.0, 2.0], [0.0, 1.0, 0.0]])
    method = sp.one_shot(1 / 3, at=1, scope="layer", keep_zeros=True)
    tx = sp.pruned(optax.sgd(0.0), method, structure=sp.channel())
    params = {"kernel": kernel}
    _, state = tx.update(params, tx.init(params), params)
    assert sp.get_mask(state)["kernel"].tolist() == [[True, False, True], [False, False, True], [False, False, False]]
