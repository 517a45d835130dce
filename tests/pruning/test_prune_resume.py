"""A run that stops in the middle of its schedule and goes on ends with the same bits."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import serialization

from sparsejax import pruning as sp
from sparsejax.pruning import PrunedState, fixed, mask_from_zeros, one_shot, pruned


def run(step: Any, state: Any, first: int, last: int) -> Any:
    for i in range(first, last):
        state = step(*state, i)
    return state


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_state_restored_from_host_arrays_at_any_step(tools, gradual, dtype) -> None:
    tx = pruned(optax.adamw(1e-2), gradual)
    params = tools.make_params(dtype)
    start, step = (params, tx.init(params)), jax.jit(tools.make_step(tx))
    whole = run(step, start, 0, 14)
    for stop in range(1, 14):
        half = run(step, start, 0, stop)
        leaves = [np.asarray(leaf).copy() for leaf in jax.tree.leaves(half)]
        # The receiving structure comes from a fresh start, as after a restart of the process.
        restored = jax.tree.unflatten(jax.tree.structure(start), [jnp.asarray(leaf) for leaf in leaves])
        tools.assert_equal_trees(run(step, restored, stop, 14), whole)


def test_state_restored_from_an_orbax_checkpoint(tools, gradual, tmp_path) -> None:
    checkpoint = pytest.importorskip("orbax.checkpoint")
    tx = optax.MultiSteps(pruned(optax.sgd(0.1, momentum=0.9), gradual), 2).gradient_transformation()
    params = tools.make_params()
    start, step = (params, tx.init(params)), jax.jit(tools.make_step(tx))
    whole = run(step, start, 0, 24)
    half = run(step, start, 0, 11)
    with checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", half)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "state", jax.tree.map(jnp.zeros_like, start))
    tools.assert_equal_trees(restored, half)
    tools.assert_equal_trees(run(step, restored, 11, 24), whole)


def test_the_state_keeps_its_structure_and_types(tools, gradual) -> None:
    params = tools.make_params()
    for method in (gradual, one_shot(0.5), one_shot(0.5, at=3), fixed(mask_from_zeros(params))):
        tx = pruned(optax.adam(1e-2), method)
        state = tx.init(params)
        assert isinstance(state, PrunedState)
        after = jax.eval_shape(tools.make_step(tx), params, state, 0)[1]
        before = jax.eval_shape(lambda x: x, state)
        assert jax.tree.structure(before) == jax.tree.structure(after)
        assert jax.tree.leaves(before) == jax.tree.leaves(after)


@pytest.mark.parametrize("form", ["masks", "packed", "stored", "stored packed", "MultiSteps"])
def test_state_through_flax_serialization(tools, form) -> None:
    tx: Any = pruned(optax.adam(1e-2), one_shot(0.5, at=1), packed="packed" in form)
    tx = optax.MultiSteps(tx, 2) if form == "MultiSteps" else tx
    params = tools.make_params()
    carry: Any = (params, tx.init(params))
    for i in range(3):
        carry = tools.make_step(tx)(*carry, i)
    if "stored" in form:
        carry = sp.compress(*carry, capacity={"a/kernel": 40, "b/kernel": 30})
    fresh = jax.tree.map(jnp.zeros_like, carry)
    encoded = serialization.to_bytes(carry)
    restored = jax.tree.map(jnp.asarray, serialization.from_bytes(fresh, encoded))
    tools.assert_equal_trees(restored, carry)
    tools.assert_equal_trees(serialization.from_state_dict(fresh, serialization.to_state_dict(carry)), carry)
    tx = sp.stored(optax.adam(1e-2)) if "stored" in form else tx
    tools.assert_equal_trees(tools.make_step(tx)(*restored, 3), tools.make_step(tx)(*carry, 3))


def test_a_packed_mask_and_its_state_dict(tools) -> None:
    state: Any = pruned(optax.sgd(0.1), one_shot(0.5), packed=True).init(tools.make_params())
    stored = serialization.to_state_dict(state.mask)
    assert stored["a"]["kernel"].keys() == {"bits"} and stored["a"]["bias"] == {}
    with pytest.raises(KeyError, match="bits"):
        serialization.from_state_dict(state.mask["a"]["kernel"], {})
