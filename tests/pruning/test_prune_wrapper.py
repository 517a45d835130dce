"""The wrapper: exact zeros under every optimizer and transformation, one compilation, honest errors."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from sparsejax import pruning
from sparsejax.pruning import get_mask, init, magnitude, metrics, one_shot, pruned, uniform

INNERS = {
    "sgd": lambda: optax.sgd(0.1),
    "momentum": lambda: optax.sgd(0.1, momentum=0.9, nesterov=True),
    "adam": lambda: optax.adam(1e-2),
    "adamw": lambda: optax.adamw(1e-2, weight_decay=0.1),
    "coupled decay": lambda: optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.1, momentum=0.9)),
    "inject": lambda: optax.inject_hyperparams(optax.sgd)(learning_rate=0.1, momentum=0.9),
    "adafactor": lambda: optax.adafactor(1e-2, min_dim_size_to_factor=4),
    "partition": lambda: optax.partition(
        {"x": optax.adam(1e-2), "y": optax.sgd(0.1, momentum=0.9)},
        {"a": "x", "b": {"kernel": "y", "bias": "x"}},
    ),
}
OUTERS = {
    "plain": lambda tx: tx,
    "MultiSteps": lambda tx: optax.MultiSteps(tx, 2).gradient_transformation(),
    "apply_if_finite": lambda tx: optax.apply_if_finite(tx, 3),
}


@pytest.mark.parametrize(
    ("name", "dtype"),
    [(name, jnp.float32) for name in INNERS] + [(name, jnp.bfloat16) for name in ("momentum", "adam", "adamw")],
)
def test_zeros_are_exact_at_every_step_and_one_compilation_serves_all(tools, gradual, name, dtype) -> None:
    tx = pruned(INNERS[name](), gradual)
    params = tools.make_params(dtype)
    state = tx.init(params)
    traces = []

    @jax.jit
    def step(params, state, i):
        traces.append(i)
        return tools.make_step(tx)(params, state, i)

    for i in range(14):
        params, state = step(params, state, i)
        mask = get_mask(state)
        assert all(not jnp.any(weights) for weights in tools.outside(params, mask))
        kept = sum(int(mask[layer]["kernel"].sum()) for layer in "ab")
        expected = {2: 80, 6: round(80 - 72 * (1 - (5 / 9) ** 3)), 10: 8 + round(72 * (1 / 9) ** 3), 11: 8}
        latest = max((t for t in expected if t <= i + 1), default=None)
        assert kept == int(metrics(state)["nnz"]) == (80 if latest is None else expected[latest])
    assert len(traces) == 1
    assert all(x.dtype == dtype for x in jax.tree.leaves(params))
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(params))


@pytest.mark.parametrize("outer", OUTERS)
def test_the_same_inside_other_wrappers(tools, gradual, outer) -> None:
    tx = OUTERS[outer](pruned(optax.adam(1e-2), gradual))
    params = tools.make_params()
    state, step = tx.init(params), jax.jit(tools.make_step(tx))
    for i in range(24):
        params, state = step(params, state, i)
        assert all(not jnp.any(weights) for weights in tools.outside(params, get_mask(state)))
    assert int(metrics(state)["nnz"]) == 8


def test_a_skipped_non_finite_step_changes_neither_weights_nor_mask(tools) -> None:
    tx = optax.apply_if_finite(pruned(optax.sgd(0.1), one_shot(0.5, at=1)), 3)
    params = tools.make_params()
    state = tx.init(params)
    updates, state = tx.update(jax.tree.map(lambda x: x * jnp.nan, params), state, params)
    tools.assert_equal_trees(optax.apply_updates(params, updates), params)
    assert int(metrics(state)["nnz"]) == 80


def test_scan_equals_loop_to_the_bit(tools, optimized, gradual) -> None:
    tx = pruned(optax.sgd(0.1, momentum=0.9), gradual)
    start = (tools.make_params(), tx.init(tools.make_params()))
    step = tools.make_step(tx)
    carry, compiled = start, jax.jit(step)
    for i in range(14):
        carry = compiled(*carry, i)
    scanned, _ = jax.jit(lambda c: lax.scan(lambda c, i: (step(*c, i), None), c, jnp.arange(14)))(start)
    tools.assert_equal_trees(scanned, carry)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_zeros_are_exact_when_steps_are_fused_into_one_program(tools, optimized, dtype) -> None:
    tx = pruned(optax.sgd(0.1, momentum=0.9), one_shot(0.5, at=2))
    step = tools.make_step(tx)

    @jax.jit
    def four(params, state):
        for i in range(4):
            params, state = step(params, state, i)
        return params, state

    params = tools.make_params(dtype)
    params, state = four(params, tx.init(params))
    assert all(not jnp.any(weights) for weights in tools.outside(params, get_mask(state)))
    assert sum(int((params[layer]["kernel"] != 0).sum()) for layer in "ab") == 40


def test_runs_under_vmap_over_seeds(tools, gradual) -> None:
    tx = pruned(optax.adam(1e-2), gradual)
    seeds = jax.vmap(lambda i: jax.tree.map(lambda x: x * (1.0 + i), tools.make_params()))(jnp.arange(2.0))
    state, step = jax.vmap(tx.init)(seeds), jax.jit(jax.vmap(tools.make_step(tx), in_axes=(0, 0, None)))
    for i in range(12):
        seeds, state = step(seeds, state, i)
    assert [int((seeds["a"]["kernel"][n] != 0).sum() + (seeds["b"]["kernel"][n] != 0).sum()) for n in (0, 1)] == [8, 8]


def test_moments_of_dropped_weights_are_zeroed_and_others_kept(tools) -> None:
    params = tools.make_params()
    plain, tx = optax.adam(1e-2), pruned(optax.adam(1e-2), one_shot(0.75, at=3, scope="layer"))
    plain_params: Any = params
    plain_state: Any = plain.init(params)
    state: Any = tx.init(params)
    for i in range(3):
        plain_params, plain_state = tools.make_step(plain)(plain_params, plain_state, i)
        params, state = tools.make_step(tx)(params, state, i)
    mask = get_mask(state)
    for moment, reference in ((state.inner[0].mu, plain_state[0].mu), (state.inner[0].nu, plain_state[0].nu)):
        for layer in "ab":
            keep = mask[layer]["kernel"]
            np.testing.assert_array_equal(moment[layer]["kernel"], jnp.where(keep, reference[layer]["kernel"], 0.0))
            np.testing.assert_array_equal(moment[layer]["bias"], reference[layer]["bias"])
    assert int(state.inner[0].count) == 3


def test_optimizers_whose_state_is_no_copy_of_the_parameters(tools) -> None:
    tx = pruned(optax.sm3(0.1), one_shot(0.5, at=2))
    params = tools.make_params()
    state, step = tx.init(params), jax.jit(tools.make_step(tx))
    for i in range(4):
        params, state = step(params, state, i)
    assert all(not jnp.any(weights) for weights in tools.outside(params, get_mask(state)))


def test_grown_weights_enter_at_exactly_zero(tools) -> None:
    # A schedule that falls back to 0 frees all weights, while inner proposes a move for each of them.
    def falling(step):
        return 0.5 if 2 <= step < 4 else 0.0

    inner = optax.chain(optax.sgd(0.1, momentum=0.9), optax.add_noise(1e-2, 0.55, jax.random.key(2)))
    tx = pruned(inner, magnitude(falling, update_every=1, start=2, stop=4))
    params = tools.make_params()
    state, step = tx.init(params), jax.jit(tools.make_step(tx))
    for i in range(3):
        params, state = step(params, state, i)
    before = get_mask(state)
    params, state = step(params, state, 3)
    assert int(metrics(state)["nnz"]) == 80
    assert int(metrics(state)["grown"]) == 40
    assert all(not jnp.any(weights) for weights in tools.outside(params, before))
    params, _ = step(params, state, 4)
    assert all(bool(jnp.all(weights != 0)) for weights in tools.outside(params, before))


def test_leaves_that_are_not_pruned_train_as_without_the_wrapper(tools, gradual) -> None:
    results = []
    for tx in (optax.adamw(1e-2), pruned(optax.adamw(1e-2), gradual)):
        params = tools.make_params()
        state = tx.init(params)
        for i in range(6):
            params, state = tools.make_step(tx)(params, state, i)
        results.append(params["a"]["bias"])
    np.testing.assert_array_equal(*results)


def test_two_methods_in_one_partition(tools) -> None:
    labels = {"a": {"kernel": "x", "bias": "x"}, "b": {"kernel": "y", "bias": "y"}}
    tx = optax.partition(
        {"x": pruned(optax.adam(1e-2), one_shot(0.5)), "y": pruned(optax.sgd(0.1), one_shot(0.75, at=2))},
        labels,
    )
    (params, state), step = init(tx, tools.make_params()), jax.jit(tools.make_step(tx))
    for i in range(3):
        params, state = step(params, state, i)
    mask = get_mask(state)
    assert [int(mask[layer]["kernel"].sum()) for layer in "ab"] == [24, 8]
    assert all(not jnp.any(weights) for weights in tools.outside(params, mask))
    assert float(metrics(state)["sparsity"]) == pytest.approx(1 - 32 / 80)


def test_hyperparameters_injected_around_the_wrapper(tools) -> None:
    def make(learning_rate):
        return pruned(optax.sgd(learning_rate), one_shot(0.5, at=1))

    tx = optax.inject_hyperparams(make)(learning_rate=0.1)
    params = tools.make_params()
    params, state = jax.jit(tools.make_step(tx))(params, tx.init(params), 0)
    assert int(metrics(state)["nnz"]) == 40
    assert all(not jnp.any(weights) for weights in tools.outside(params, get_mask(state)))


def test_init_masks_the_parameters_before_the_first_step(tools) -> None:
    params, state = init(pruned(optax.adam(1e-2), one_shot(0.9, scope="layer")), tools.make_params())
    kept = [int((params[layer]["kernel"] != 0).sum()) for layer in "ab"]
    assert kept == uniform(0.9, tools.sizes)
    assert all(not jnp.any(weights) for weights in tools.outside(params, get_mask(state)))
    assert bool(jnp.all(params["a"]["bias"] == 1))


def test_without_init_the_first_step_masks(tools) -> None:
    tx = pruned(optax.adam(1e-2), one_shot(0.9))
    params = tools.make_params()
    params, state = tools.make_step(tx)(params, tx.init(params), 0)
    assert all(not jnp.any(weights) for weights in tools.outside(params, get_mask(state)))


def test_extra_arguments_reach_the_inner_optimizer(tools) -> None:
    seen = []

    def update(updates, state, params=None, *, value, **extra):
        seen.append(value)
        return updates, state

    # An optax update function may ask for more keywords than the protocol names.
    inner: Any = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)  # type: ignore[arg-type]
    tx, params = pruned(inner, one_shot(0.5)), tools.make_params()
    tx.update(params, tx.init(params), params, value=7)
    assert seen == [7]


def test_metrics_after_a_change(tools) -> None:
    tx = pruned(optax.sgd(0.1), one_shot(0.75, at=1))
    params = tools.make_params()
    state: Any
    _, state = tools.make_step(tx)(params, tx.init(params), 0)
    got = {name: value.item() for name, value in jax.jit(metrics)(state).items()}
    assert got == {"sparsity": 0.75, "nnz": 20, "phase": 1, "dropped": 60, "grown": 0, "churn": 0.75}
    assert int(state.change.step) == 1


def test_update_without_parameters(tools) -> None:
    tx = pruned(optax.sgd(0.1), one_shot(0.5))
    params = tools.make_params()
    with pytest.raises(ValueError, match=r"pruned.update: params has value None; expected the parameters"):
        tx.update(params, tx.init(params))


def test_state_and_parameters_of_different_models(tools) -> None:
    tx = pruned(optax.sgd(0.1), one_shot(0.5))
    params = tools.make_params()
    state = tx.init(params)
    with pytest.raises(ValueError, match=r"pruned.update: state.mask has another tree structure"):
        tx.update(params["a"], state, params["a"])
    with pytest.raises(ValueError, match=r"pruned.update: updates has another tree structure"):
        tx.update({"a": params["a"]}, state, params)
    params["a"]["kernel"] = jnp.ones((8, 6))
    with pytest.raises(ValueError, match=r"shape \(6, 8\); expected the shape of its parameter, \(8, 6\)"):
        tx.update(params, state, params)


@pytest.mark.parametrize(
    ("arguments", "keywords", "operand"),
    [
        ((optax.sgd, one_shot(0.5)), {}, "inner"),
        ((optax.sgd(0.1), 0.9), {}, "method"),
        ((optax.sgd(0.1), pruning.one_shot), {}, "method"),
        ((optax.sgd(0.1), one_shot(0.5)), {"where": "head/*"}, "where"),
        ((optax.sgd(0.1), one_shot(0.5)), {"structure": pruning.unstructured}, "structure"),
    ],
)
def test_wrong_arguments_are_named(arguments, keywords, operand) -> None:
    with pytest.raises(TypeError, match=f"pruned: {operand} has type .*; expected a"):
        pruned(*arguments, **keywords)


def test_states_without_or_with_two_masks(tools) -> None:
    params = tools.make_params()
    for function in (get_mask, metrics):
        with pytest.raises(ValueError, match=rf"{function.__name__}: opt_state has no state of pruned"):
            function(optax.adam(0.1).init(params))
    with pytest.raises(ValueError, match="get_mask: opt_state has no state"):
        init(optax.adam(0.1), params)
    twice = optax.chain(pruned(optax.sgd(0.1), one_shot(0.5)), pruned(optax.sgd(0.1), one_shot(0.5)))
    with pytest.raises(ValueError, match="two masks for one leaf"):
        get_mask(twice.init(params))


def test_a_schedule_out_of_range_is_found_when_the_state_is_made(tools) -> None:
    tx = pruned(optax.sgd(0.1), magnitude(lambda step: step / 10, update_every=5, stop=10))
    with pytest.raises(ValueError, match=r"magnitude: the schedule at step 10 has value 1"):
        tx.init(tools.make_params())
