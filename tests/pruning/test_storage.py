"""Values-only storage gives the bits of masks; checkpoints go on to the same bits."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sparsejax import pruning as sp

STEPS = 100
PHASES = sp.acdc_phases(total=STEPS, warmup=10, sparse=15, dense=15, last_dense=15, final_sparse=30)
METHODS: dict[str, Any] = {
    "static": lambda: sp.static(0.75),
    "set": lambda: sp.sparse_evolutionary_training(0.75, update_every=7, stop=77),
    "rigl": lambda: sp.rigl(0.75, update_every=7, stop=77),
    "acdc": lambda: sp.acdc(0.75, PHASES, scope="layer"),
}
INNERS: dict[str, Any] = {
    "momentum": lambda: optax.chain(optax.add_decayed_weights(1e-3), optax.sgd(0.05, momentum=0.9)),
    "adam": lambda: optax.adam(1e-2),
}


def loss(params: Any, i: Any) -> Any:
    x = jax.random.normal(jax.random.fold_in(jax.random.key(3), i), (16, 6))
    hidden = jnp.tanh(x @ params["a"]["kernel"] + params["a"]["bias"])
    return jnp.mean((hidden @ params["b"]["kernel"] + params["b"]["bias"] - x[:, :4]) ** 2)


def masked_run(inner: Any, method: Any, params: Any) -> tuple[Any, Any]:
    tx = sp.pruned(inner, method)

    @jax.jit
    def step(params: Any, state: Any, i: Any) -> Any:
        updates, state = tx.update(jax.grad(loss)(params, i), state, params)
        return optax.apply_updates(params, updates), state

    params, state = sp.init(tx, params)
    for i in range(STEPS):
        params, state = step(params, state, i)
    return params, state


def values_only_run(inner: Any, method: Any, params: Any) -> tuple[Any, Any, list[str]]:
    """Store values only, except in dense phases and in steps that change the mask; return what was compiled, too."""
    tx, tx_stored, compiled = sp.pruned(inner, method), sp.stored(inner), []

    @jax.jit
    def dense_step(params: Any, state: Any, i: Any) -> Any:
        compiled.append("dense")
        updates, state = tx.update(jax.grad(loss)(params, i), state, params)
        return optax.apply_updates(params, updates), state

    @jax.jit
    def stored_step(values: Any, state: Any, i: Any) -> Any:
        compiled.append("stored")
        grads = jax.grad(lambda v: loss(sp.expand(v, state), i))(values)
        updates, state = tx_stored.update(grads, state, values)
        return optax.apply_updates(values, updates), state

    params, state = sp.init(tx, params)
    for i in range(STEPS):
        is_stored = isinstance(state, sp.CompressedState)
        sparse = bool(sp.metrics(state)["phase"]) if not is_stored else True
        wants_dense = bool(method.refresh(i + 1)) or not sparse
        if is_stored and wants_dense:
            params, state = sp.decompress(params, state)
        elif not is_stored and not wants_dense:
            params, state = sp.compress(params, state)
        params, state = (dense_step if wants_dense else stored_step)(params, state, i)
    if isinstance(state, sp.CompressedState):
        assert {x.size for x in jax.tree.leaves(state.inner)} <= {1, *(x.size for x in jax.tree.leaves(params))}
        params, state = sp.decompress(params, state)
    return params, state, compiled


# Adam rounds differently in two programs, whatever the method: one of its cases is enough for every run.
CASES = [("momentum", name) for name in METHODS] + [("adam", "set")]
SLOW_CASES = [pytest.param("adam", name, marks=pytest.mark.slow) for name in METHODS if name != "set"]


@pytest.mark.parametrize(("inner", "name"), [*CASES, *SLOW_CASES])
def test_values_only_storage_gives_the_bits_of_masks_in_two_programs(tools, optimized, name, inner) -> None:
    params = tools.make_params()
    expected, masked = masked_run(INNERS[inner](), METHODS[name](), params)
    got, state, compiled = values_only_run(INNERS[inner](), METHODS[name](), params)
    tools.assert_equal_trees(sp.get_mask(state), sp.get_mask(masked))
    if inner == "momentum":
        tools.assert_equal_trees(got, expected)
        tools.assert_equal_trees(state.inner, masked.inner)
    else:  # a moment of Adam adds two products; the compiler may contract either, and not the same in both programs
        for x, y in zip(jax.tree.leaves((got, state.inner)), jax.tree.leaves((expected, masked.inner)), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)
    assert int(state.step) == STEPS
    assert sorted(compiled) == (["stored"] if name == "static" else ["dense", "stored"])


def test_state_is_as_small_as_the_values(tools) -> None:
    tx = sp.pruned(optax.adam(1e-2), sp.static(0.75))
    values, state = sp.compress(*sp.init(tx, tools.make_params()))
    assert sum(x.size for x in jax.tree.leaves(values)) == 20 + 12
    assert sum(x.size for x in jax.tree.leaves(state.inner)) == 2 * (20 + 12) + 1


@pytest.mark.parametrize(
    "inner",
    [
        optax.lion(1e-2),
        optax.inject_hyperparams(optax.sgd)(learning_rate=0.1, momentum=0.9),
        optax.partition({"x": optax.adam(1e-2), "y": optax.sgd(0.1, momentum=0.9)}, {"a": "x", "b": "y"}),
        optax.masked(optax.trace(0.9), {"a": True, "b": False}),
        optax.chain(optax.adam(1e-2), optax.ema(0.9)),
    ],
)
def test_any_optimizer_state_there_and_back(tools, inner) -> None:
    tx = sp.pruned(inner, sp.static(0.75), packed=True)
    (params, state), step = sp.init(tx, tools.make_params()), jax.jit(tools.make_step(tx))
    for i in range(2):
        params, state = step(params, state, i)
    capacity = {"a/kernel": 40}
    values, stored = sp.compress(params, state, capacity=capacity)
    assert values["a"]["kernel"].shape == (40,)
    back, back_state = sp.decompress(values, stored)
    tools.assert_equal_trees(back, params)
    tools.assert_equal_trees(back_state.mask, state.mask)
    updates, _ = sp.stored(inner).update(values, stored, values)
    assert jax.tree.map(jnp.shape, updates) == jax.tree.map(jnp.shape, values)
    # Moments of pruned weights are zero under masked gradients, so nothing is lost.
    tools.assert_equal_trees(back_state, state)


def test_bad_input_to_values_only_storage(tools) -> None:
    tx = sp.pruned(optax.adafactor(1e-2, min_dim_size_to_factor=4), sp.static(0.75))
    params, state = sp.init(tx, tools.make_params())
    values, stored = sp.compress(params, state)
    with pytest.raises(ValueError, match=r"stored.update: the inner state has parts of other shapes"):
        sp.stored(optax.adafactor(1e-2, min_dim_size_to_factor=4)).update(values, stored, values)
    with pytest.raises(ValueError, match=r"compress: capacity of 'a/kernel' has value 1; expected at least"):
        sp.compress(params, state, capacity={"a/kernel": 1})
    with pytest.raises(ValueError, match=r"compress: capacity has an entry for 'a'"):
        sp.compress(params, state, capacity={"a": 1})
    with pytest.raises(ValueError, match=r"compress: leaf 'a/kernel' has \d+ weights outside the mask"):
        sp.compress(tools.make_params(), state)
    with pytest.raises(ValueError, match=r"compress: opt_state has type tuple"):
        sp.compress(params, (state,))
    with pytest.raises(ValueError, match=r"compress: opt_state.mask has another tree structure"):
        sp.compress(params["a"], state)
    for function in (sp.decompress, sp.expand):
        with pytest.raises(ValueError, match=rf"{function.__name__}: state.indices has another tree structure"):
            function(values["a"], stored)
    with pytest.raises(ValueError, match=r"expand: leaf 'a/kernel' has shape \(6, 8\); expected shape \(\d+,\)"):
        sp.expand(params, stored)
    with pytest.raises(ValueError, match=r"stored.init: params has no mask"):
        sp.stored(optax.sgd(0.1)).init(values)
    with pytest.raises(ValueError, match=r"stored.update: values has value None"):
        sp.stored(optax.sgd(0.1)).update(values, stored)


def through_a_file(tree: Any, like: Any, folder: Any) -> Any:
    leaves, treedef = jax.tree.flatten(tree)
    assert jax.tree.structure(like) == treedef
    np.savez(folder / "checkpoint.npz", *[np.asarray(leaf) for leaf in leaves])
    with np.load(folder / "checkpoint.npz") as stored:
        return jax.tree.unflatten(treedef, [jnp.asarray(stored[key]) for key in stored.files])


def test_a_checkpoint_of_stored_values_goes_on_to_the_same_bits(tools, tmp_path) -> None:
    inner = optax.adam(1e-2)
    first = sp.compress(*sp.init(sp.pruned(inner, sp.static(0.75)), tools.make_params()))
    step = jax.jit(tools.make_step(sp.stored(inner)))
    history = [first]
    for i in range(6):
        history.append(step(*history[-1], i))
    carry = through_a_file(history[3], first, tmp_path)
    for i in range(3, 6):
        carry = step(*carry, i)
    tools.assert_equal_trees(carry, history[6])
    tools.assert_equal_trees(sp.decompress(*carry), sp.decompress(*history[6]))


@pytest.mark.parametrize("name", ["acdc", "rigl", "movement"])
def test_a_checkpoint_in_the_middle_of_every_phase_goes_on_to_the_same_bits(tools, tmp_path, name) -> None:
    ramp = sp.schedules.cubic(0.0, 0.75, begin=2, end=6)
    short = sp.acdc_phases(total=10, warmup=2, sparse=2, dense=2, last_dense=2, final_sparse=4)
    method = {
        "acdc": lambda: sp.acdc(0.75, short),
        "rigl": lambda: sp.rigl(0.75, update_every=3, stop=6, grow_grad_steps=2),
        "movement": lambda: sp.movement(ramp, update_every=2, start=2, scores_tx=optax.sgd(1.0, momentum=0.5)),
    }[name]
    tx = sp.pruned(optax.adam(1e-2), method(), packed=name == "acdc")
    step = jax.jit(tools.make_step(tx))
    history = [sp.init(tx, tools.make_params())]
    for i in range(10):
        history.append(step(*history[-1], i))
    # A fresh transform and a fresh structure, as in a new process.
    fresh = sp.init(sp.pruned(optax.adam(1e-2), method(), packed=name == "acdc"), tools.make_params())
    for at in (1, 3, 5, 7):
        carry = through_a_file(history[at], fresh, tmp_path)
        for i in range(at, 10):
            carry = step(*carry, i)
        tools.assert_equal_trees(carry, history[10])
