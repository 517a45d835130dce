"""Every documented wrapper around ``pruned`` with every entry point: it does what it does without it, or refuses."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

from sparsejax import pruning as sp

KERNELS = {"a": {"kernel": True, "bias": False}, "b": {"kernel": True, "bias": False}}
LABELS = {"a": "x", "b": {"kernel": "y", "bias": "x"}}
LEAF_LABELS = {"a": {"kernel": "x", "bias": "y"}, "b": {"kernel": "y", "bias": "x"}}


def make(learning_rate: Any = 0.1) -> Any:
    return sp.pruned(optax.sgd(learning_rate, momentum=0.9), sp.external())


OUTERS: dict[str, Any] = {
    "plain": make,
    "chain": lambda: optax.chain(optax.clip(1.0), make()),
    "named_chain": lambda: optax.named_chain(("clip", optax.clip(1.0)), ("pruned", make())),
    "MultiSteps": lambda: optax.MultiSteps(make(), 3),
    "MultiSteps transformation": lambda: optax.MultiSteps(make(), 3).gradient_transformation(),
    "skip_not_finite": lambda: optax.MultiSteps(make(), 3, should_skip_update_fn=optax.skip_not_finite),
    "apply_if_finite": lambda: optax.apply_if_finite(make(), 3),
    "inject_hyperparams": lambda: optax.inject_hyperparams(make)(learning_rate=0.1),
    "partition": lambda: optax.partition({"x": make(), "y": make(0.2)}, LABELS),
    "multi_transform": lambda: optax.multi_transform({"x": make(), "y": make(0.2)}, LABELS),
    "partition of leaves": lambda: optax.partition({"x": make(), "y": make(0.2)}, LEAF_LABELS),
    "masked": lambda: optax.masked(make(), KERNELS),
    "conditionally_transform": lambda: optax.conditionally_transform(make(), lambda step: step >= 0),
    "two wrappers": lambda: optax.apply_if_finite(optax.MultiSteps(make(), 3).gradient_transformation(), 2),
}
STEPS = 6  # two updates of MultiSteps


def mask_of(params: Any) -> Any:
    """A third of the weights."""
    scores = jax.tree.map(lambda x, keep: jnp.abs(x) if keep else optax.MaskedNode(), params, KERNELS)
    return sp.mask_from_scores(scores, 2 / 3)


def train(tools: Any, tx: Any, params: Any, state: Any, first: int, last: int) -> tuple[Any, Any]:
    step = jax.jit(tools.make_step(tx))
    for i in range(first, last):
        params, state = step(params, state, i)
    return params, state


def without_wrapper_states(state: Any) -> list[Any]:
    """All of an optimizer state but the states of ``pruned``."""
    is_state = lambda node: isinstance(node, sp.PrunedState)  # noqa: E731
    return [leaf for leaf in jax.tree.leaves(state, is_leaf=is_state) if not is_state(leaf)]


@pytest.mark.parametrize("micro_steps", [0, 2])
@pytest.mark.parametrize("name", OUTERS)
def test_prune_imposes_the_mask_and_takes_no_step(tools, name, micro_steps) -> None:
    tx, start = OUTERS[name](), tools.make_params()
    params, state = train(tools, tx, start, tx.init(start), 0, micro_steps)
    mask = mask_of(start)
    amounts = jax.tree.map(lambda leaf: jnp.full_like(leaf, 0.25), params)
    pruned, new_state = sp.prune(tx, params, state, mask, amounts)
    assert jax.tree.structure(new_state) == jax.tree.structure(state)
    for layer in "ab":
        keep = mask[layer]["kernel"]
        assert jnp.array_equal(pruned[layer]["kernel"], jnp.where(keep, params[layer]["kernel"] + 0.25, 0.0))
        assert jnp.array_equal(pruned[layer]["bias"], params[layer]["bias"])
    tools.assert_equal_trees(jax.tree.map(jnp.asarray, sp.get_mask(new_state)), mask)
    for old, new in zip(without_wrapper_states(state), without_wrapper_states(new_state), strict=True):
        assert jnp.array_equal(old, new)
    sp.check(pruned, new_state)
    got = sp.metrics(new_state)
    assert (int(got["nnz"]), int(got["dropped"]), int(got["grown"])) == (27, 53, 0)
    params, state = train(tools, tx, pruned, new_state, micro_steps, STEPS)
    sp.check(params, state)
    assert int(sp.metrics(state)["nnz"]) == 27
    assert any(jnp.any(params[layer]["kernel"] != pruned[layer]["kernel"]) for layer in "ab")


@pytest.mark.parametrize("name", OUTERS)
def test_other_entry_points(tools, name) -> None:
    tx = OUTERS[name]()
    params, state = sp.init(tx, tools.make_params())
    params, state = sp.prune(tx, params, state, mask_of(params))
    dense = jax.tree.map(lambda leaf: jnp.where(leaf == 0, 1.0, leaf), params)
    tools.assert_equal_trees(sp.forward_params(dense, state), params)
    with pytest.raises(ValueError, match=r"check: leaf 'a/kernel' has \d+ weights outside the mask"):
        sp.check(dense, state)
    for function in (lambda: sp.compress(params, state), lambda: sp.dense_partner(tx.init(params))):
        if name == "plain":
            function()
        else:
            with pytest.raises(ValueError, match=r"opt_state has type \w+; expected the state of pruned\(...\) itself"):
                function()


def test_a_subtree_that_the_wrapper_does_not_see(tools) -> None:
    params = tools.make_params()
    tx = optax.masked(sp.pruned(optax.sgd(0.1), sp.static(0.75)), {"a": True, "b": False})
    start, state = sp.init(tx, params)
    assert sp.get_mask(state)["b"] == optax.MaskedNode()
    tools.assert_equal_trees(start["b"], params["b"])
    sp.check(start, state)
    tools.assert_equal_trees(sp.forward_params(params, state), start)
    mask = {"a": {"kernel": params["a"]["kernel"] > 0, "bias": optax.MaskedNode()}, "b": optax.MaskedNode()}
    got, state = sp.prune(tx, params, state, mask)
    tools.assert_equal_trees(got["a"]["kernel"], jnp.maximum(params["a"]["kernel"], 0) * (start["a"]["kernel"] != 0))
    tools.assert_equal_trees(got["b"], params["b"])


def test_prune_under_jit_and_vmap_equals_prune(tools) -> None:
    tx, params = OUTERS["MultiSteps"](), tools.make_params()
    state, mask = tx.init(params), mask_of(params)
    expected = sp.prune(tx, params, state, mask)
    tools.assert_equal_trees(jax.jit(lambda p, s, m: sp.prune(tx, p, s, m))(params, state, mask), expected)
    many = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), (params, state, mask))
    got = jax.vmap(lambda p, s, m: sp.prune(tx, p, s, m))(*many)
    tools.assert_equal_trees(jax.tree.map(lambda leaf: leaf[1], got), expected)


def test_prune_refuses_masks_that_do_not_fit(tools) -> None:
    tx, params = OUTERS["MultiSteps"](), tools.make_params()
    state, mask = tx.init(params), mask_of(params)
    cases = [
        ({**mask, "a": {"kernel": optax.MaskedNode(), "bias": optax.MaskedNode()}}, "mask has no entry for 'a/kernel'"),
        ({**mask, "a": {**mask["a"], "bias": jnp.ones(8, bool)}}, "mask has an entry for 'a/bias'; expected entries"),
        (
            {**mask, "a": {**mask["a"], "kernel": jnp.ones((8, 6), bool)}},
            r"mask\['a/kernel'\] has dtype bool and shape",
        ),
        ({**mask, "a": {**mask["a"], "kernel": jnp.ones((6, 8))}}, r"mask\['a/kernel'\] has dtype float32"),
        ({"a": mask["a"]}, "mask has another tree structure \\(no leaf 'b/bias'\\)"),
    ]
    for wrong, message in cases:
        with pytest.raises(ValueError, match=f"prune: {message}"):
            sp.prune(tx, params, state, wrong)
    with pytest.raises(ValueError, match=r"prune: opt_state has 1 states of pruned\(...\); expected the 2 of tx"):
        sp.prune(OUTERS["partition"](), params, state, mask)
    with pytest.raises(ValueError, match=r"prune: opt_state has no state of pruned"):
        sp.prune(optax.sgd(0.1), params, optax.sgd(0.1).init(params), mask)
    for function in (lambda: sp.init("sgd", params), lambda: sp.prune("sgd", params, state, mask)):  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"tx has type str; expected an optax.GradientTransformation"):
            function()


def test_lookahead_around_the_wrapper_is_refused_everywhere(tools) -> None:
    params = optax.LookaheadParams.init_synced(tools.make_params())
    tx = optax.lookahead(make(), 2, 0.5)
    state = tx.init(params)
    for function in (
        lambda: sp.init(tx, params),
        lambda: sp.get_mask(state),
        lambda: sp.metrics(state),
        lambda: sp.check(params, state),
        lambda: sp.forward_params(params, state),
        lambda: sp.prune(tx, params.fast, state, mask_of(params.fast)),
    ):
        with pytest.raises(ValueError, match=r"opt_state has a state of optax.lookahead; expected none around pruned"):
            function()
