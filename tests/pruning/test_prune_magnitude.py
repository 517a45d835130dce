"""Gradual and one-shot magnitude, and fixed masks: which weights stay, and how many."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sparsejax.pruning import (
    fixed,
    get_mask,
    init,
    is_kernel,
    magnitude,
    mask_from_zeros,
    metrics,
    one_shot,
    path,
    pruned,
    schedules,
    sparsity_of,
    uniform,
)
from sparsejax.pruning.allocation import global_count


def kept_counts(mask) -> list[int]:
    return [int(mask[layer]["kernel"].sum()) for layer in "ab"]


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("delta", [1, 3, 100])
def test_counts_are_exact_at_every_update_and_the_end_is_reached(tools, scope, delta) -> None:
    schedule, last = schedules.cubic(0.1, 0.95, begin=1, end=9), 9
    tx = pruned(optax.sgd(0.05, momentum=0.9), magnitude(schedule, update_every=delta, start=1, stop=last, scope=scope))
    params = tools.make_params()
    state, step = tx.init(params), jax.jit(tools.make_step(tx))
    for i in range(11):
        params, state = step(params, state, i)
        updates = [t for t in (*range(1, last, delta), last) if t <= i + 1]
        sparsity = schedule(updates[-1])
        counts = kept_counts(get_mask(state))
        if scope == "layer":
            assert counts == uniform(sparsity, tools.sizes)
        else:
            assert sum(counts) == global_count(sparsity, tools.sizes)
        assert [int(n) for n in jax.tree.leaves(state.nnz)] == counts
    assert float(metrics(state)["sparsity"]) == pytest.approx(0.95)


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_masks_nest_also_when_kept_weights_are_zero(tools, scope) -> None:
    schedule = schedules.linear(0.0, 0.9, begin=0, end=9)
    tx = pruned(optax.sgd(0.0), magnitude(schedule, update_every=1, stop=9, scope=scope))
    params = tools.make_params()
    state, step = tx.init(params), jax.jit(tools.make_step(tx))
    masks = [get_mask(state)]
    for i in range(9):
        if i == 4:
            # From here on kept and pruned weights are all zero: their scores must still differ.
            params = jax.tree.map(jnp.zeros_like, params)
        params, state = step(params, state, i)
        masks.append(get_mask(state))
    for before, after in itertools.pairwise(masks):
        assert sum(kept_counts(after)) < sum(kept_counts(before))
        for layer in "ab":
            assert not jnp.any(after[layer]["kernel"] & ~before[layer]["kernel"])


def test_the_largest_of_the_next_weights_are_kept(tools) -> None:
    # The mask of the forward pass after one step is chosen from the weights after that step.
    params = tools.make_params()
    plain = optax.sgd(1.0)
    after, _ = tools.make_step(plain)(params, plain.init(params), 0)
    tx = pruned(plain, one_shot(0.75, at=1))
    got, _ = tools.make_step(tx)(params, tx.init(params), 0)
    flat = np.concatenate([np.ravel(after[layer]["kernel"]) for layer in "ab"])
    expected = np.where(np.abs(flat) >= np.sort(np.abs(flat))[-20], flat, 0.0)
    np.testing.assert_array_equal(np.concatenate([np.ravel(got[layer]["kernel"]) for layer in "ab"]), expected)


def test_ties_go_to_the_lower_index() -> None:
    params = {"a": {"kernel": jnp.ones((2, 3))}, "b": {"kernel": -jnp.ones((2, 2))}}
    state = pruned(optax.sgd(0.1), one_shot(0.3)).init(params)
    assert get_mask(state)["a"]["kernel"].all()
    assert get_mask(state)["b"]["kernel"].tolist() == [[True, False], [False, False]]


def test_scope_global_shares_by_size_and_layer_does_not() -> None:
    params = {"a": {"kernel": jnp.full((2, 2), 9.0)}, "b": {"kernel": jnp.ones((2, 2))}}
    for scope, expected in (("global", [4, 0]), ("layer", [2, 2])):
        state = pruned(optax.sgd(0.1), one_shot(0.5, scope=scope)).init(params)  # type: ignore[arg-type]
        assert kept_counts(get_mask(state)) == expected


def test_one_shot_waits_for_its_step_and_fires_once(tools) -> None:
    tx = pruned(optax.sgd(0.1), one_shot(0.5, at=2))
    params = tools.make_params()
    state, step = tx.init(params), jax.jit(tools.make_step(tx))
    history = []
    for i in range(4):
        params, state = step(params, state, i)
        history.append((int(metrics(state)["nnz"]), get_mask(state)))
    assert [nnz for nnz, _ in history] == [80, 40, 40, 40]
    tools.assert_equal_trees(history[1][1], history[3][1])
    with pytest.raises(ValueError, match="one_shot: scope has value 'row'"):
        one_shot(0.5, scope="row")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="one_shot: sparsity has value 1"):
        one_shot(1.0)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_fixed_mask_stays_and_only_kept_weights_train(tools, dtype) -> None:
    dense = tools.make_params(dtype)
    sparse, _ = init(pruned(optax.sgd(0.1), one_shot(0.8)), dense)
    mask = mask_from_zeros(sparse)
    tx = pruned(optax.adamw(1e-2), fixed(mask))
    params, state = init(tx, dense)
    tools.assert_equal_trees(params, sparse)
    step = jax.jit(tools.make_step(tx))
    for i in range(4):
        params, state = step(params, state, i)
    tools.assert_equal_trees(get_mask(state), mask)
    assert all(not jnp.any(weights) for weights in tools.outside(params, mask))
    kernel, keep = params["a"]["kernel"], mask["a"]["kernel"]
    assert bool(jnp.all((kernel != sparse["a"]["kernel"])[keep]))
    assert float(sparsity_of(params)) == float(sparsity_of(mask)) == pytest.approx(0.8)


def test_a_mask_follows_where(tools) -> None:
    where = is_kernel() & ~path("b/*")
    params = tools.make_params()
    mask = mask_from_zeros(params, where=where)
    assert mask["b"]["kernel"] == optax.MaskedNode()
    state = pruned(optax.sgd(0.1), fixed(mask), where=where).init(params)
    assert get_mask(state)["b"]["kernel"] == optax.MaskedNode()
    with pytest.raises(ValueError, match=r"fixed: mask has no entry for 'b/kernel'.*same where"):
        pruned(optax.sgd(0.1), fixed(mask)).init(params)
    with pytest.raises(ValueError, match=r"fixed: mask has an entry for 'b/kernel'; expected entries only for"):
        pruned(optax.sgd(0.1), fixed(mask_from_zeros(params)), where=where).init(params)


def test_bad_masks_are_refused(tools) -> None:
    params = tools.make_params()
    mask = mask_from_zeros(params)
    mask["a"]["kernel"] = jnp.ones((8, 6), bool)
    with pytest.raises(ValueError, match=r"mask\['a/kernel'\] has shape \(8, 6\); expected the weight's, \(6, 8\)"):
        pruned(optax.sgd(0.1), fixed(mask)).init(params)
    mask["a"]["kernel"] = jnp.ones((6, 8))
    with pytest.raises(ValueError, match=r"mask\['a/kernel'\] has dtype float32; expected bool"):
        pruned(optax.sgd(0.1), fixed(mask)).init(params)
    del mask["a"]
    with pytest.raises(ValueError, match="fixed: mask has no entry for 'a/kernel'"):
        pruned(optax.sgd(0.1), fixed(mask)).init(params)


def test_sparsity_of_counts_kernels_or_masks() -> None:
    params = {"kernel": jnp.array([[0.0, -0.0], [0.0, 1.0]]), "bias": jnp.zeros(100)}
    assert float(jax.jit(sparsity_of)(params)) == 0.75
    assert float(sparsity_of(params, where=path("bias"))) == 1.0
    assert float(sparsity_of({"x": jnp.array([True, False]), "y": jnp.array([True, True])})) == 0.25
    with pytest.raises(ValueError, match="sparsity_of: params_or_masks has no leaves"):
        sparsity_of({})


def test_fixed_needs_no_mask_of_the_same_containers(tools) -> None:
    params = tools.make_params()
    mask = {"b": {"kernel": jnp.ones((8, 4), bool)}, "a": {"kernel": np.zeros((6, 8), bool)}}
    new, _ = init(pruned(optax.sgd(0.1), fixed(mask)), params)
    assert not jnp.any(new["a"]["kernel"])
    tools.assert_equal_trees(new["b"], params["b"])
