"""What single methods do beyond the invariant: against formulas written out in NumPy."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sparsejax import pruning as sp
from sparsejax.pruning import schedules, scores


def once(method: Any, weights: Any, grads: Any, inner: Any = None) -> tuple[Any, Any, Any]:
    """One step on one kernel: parameters before and after, and the state."""
    tx = sp.pruned(optax.sgd(1.0) if inner is None else inner, method)
    params, state = {"kernel": jnp.asarray(weights)}, None
    state = tx.init(params)
    updates, new = tx.update({"kernel": jnp.asarray(grads)}, state, params)
    return state, optax.apply_updates(params, updates), new


def test_straight_through_trains_what_it_does_not_use() -> None:
    weights, grads = np.array([[4.0, -3.0, 2.0, 1.0]]), np.ones((1, 4))
    _, params, state = once(sp.straight_through(0.5, decay=0.5), weights, grads)
    # Pruned weights 2 and 1 also decay: w - (g + 0.5 w).
    np.testing.assert_allclose(params["kernel"], [[3.0, -4.0, 0.0, -0.5]])
    assert sp.get_mask(state)["kernel"].tolist() == [[True, True, False, False]]

    def loss(p: Any) -> Any:
        return jnp.sum(sp.forward_params(p, state)["kernel"] * jnp.arange(4.0))

    np.testing.assert_array_equal(jax.grad(loss)({"kernel": jnp.ones((1, 4))})["kernel"], [[0, 1, 2, 3]])
    assert float(loss({"kernel": jnp.ones((1, 4))})) == 1.0


def test_top_kast_trains_the_backward_set_and_pulls_it_towards_zero() -> None:
    weights, grads = np.array([[4.0, 3.0, 2.0, 1.0]]), np.zeros((1, 4))
    _, params, state = once(sp.top_kast(0.75, 0.5, penalty=0.01), weights, grads, optax.sgd(1.0, momentum=0.9))
    # Forward {4}: 2 * 0.01 * 4; backward only {3}: 2 * 0.01 * 3 / (1 / 4); the rest keeps its value.
    np.testing.assert_allclose(params["kernel"], [[4 - 0.08, 3 - 0.24, 2.0, 1.0]], rtol=1e-6)
    assert state.aux[0].tolist() == [[True, True, False, False]]
    assert not jnp.any(state.inner[0].trace["kernel"][0, 2:])


def test_movement_scores_add_up_and_masked_weights_wait() -> None:
    method = sp.movement(schedules.one_shot(0.5, 1), start=1, scores_tx=optax.sgd(0.5))
    weights, grads = np.array([[1.0, -1.0, 2.0, 3.0]]), np.array([[1.0, 1.0, -1.0, 0.0]])
    _, params, state = once(method, weights, grads)
    np.testing.assert_allclose(state.aux.scores[0], -0.5 * weights * grads)
    assert sp.get_mask(state)["kernel"].tolist() == [[False, True, True, False]]
    tx = sp.pruned(optax.sgd(1.0), method)
    updates, later = tx.update({"kernel": jnp.ones((1, 4))}, state, params)
    np.testing.assert_array_equal(updates["kernel"] != 0, [[False, True, True, False]])
    # The third score has fallen to -0.5 * (3 - ... ): masks go on following the scores after the schedule's end.
    expected = -0.5 * (weights * grads + np.asarray(params["kernel"]))
    np.testing.assert_allclose(later.aux.scores[0], expected)
    best = np.isin(np.arange(4), np.argsort(-expected[0], kind="stable")[:2])
    assert sp.get_mask(later)["kernel"].tolist() == [best.tolist()]


def test_soft_movement_follows_threshold_and_penalty() -> None:
    method = sp.soft_movement(threshold=0.4, penalty=4.0, scores_tx=optax.sgd(1.0))
    _, _, state = once(method, [[1.0, -1.0]], [[1.0, 0.0]])
    # -(g w + 4 / 2 * sigmoid'(0)) = -(1 + 0.5), -(0 + 0.5)
    np.testing.assert_allclose(state.aux.scores[0], [[-1.5, -0.5]])
    assert sp.get_mask(state)["kernel"].tolist() == [[False, False]]
    assert int(sp.metrics(state)["nnz"]) == 0


def test_hard_threshold_is_projected_gradient_descent() -> None:
    weights = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    target = np.random.default_rng(1).normal(size=(4, 5)).astype(np.float32)
    tx = sp.pruned(optax.sgd(0.5), sp.hard_threshold(0.75))
    params, state = sp.init(tx, {"kernel": jnp.asarray(weights)})
    expected = np.where(np.abs(weights) >= np.sort(np.abs(weights).ravel())[-5], weights, 0)
    for _ in range(5):
        np.testing.assert_allclose(params["kernel"], expected, rtol=1e-5)
        updates, state = tx.update({"kernel": params["kernel"] - target}, state, params)
        params = optax.apply_updates(params, updates)
        stepped = expected - 0.5 * (expected - target)
        expected = np.where(np.abs(stepped) >= np.sort(np.abs(stepped).ravel())[-5], stepped, 0)
    projected = sp.project({"kernel": jnp.asarray(weights)}, 0.75)["kernel"]
    assert int((projected != 0).sum()) == 5


@pytest.mark.parametrize(
    ("kind", "formula"),
    [
        ("first_order", lambda w, g: np.abs(np.mean(g, 0) * w)),
        ("mean_absolute", lambda w, g: np.mean(np.abs(g * w), 0)),
        ("squared", lambda w, g: np.mean((g * w) ** 2, 0)),
        ("fisher", lambda w, g: 0.5 * np.mean(g**2, 0) * w**2),
    ],
)
def test_saliencies(kind, formula) -> None:
    rng = np.random.default_rng(0)
    weights, grads = rng.normal(size=(3, 4)).astype(np.float32), rng.normal(size=(2, 3, 4)).astype(np.float32)
    method = sp.saliency(schedules.one_shot(0.5, 2), update_every=1, start=2, stop=2, kind=kind, average=0.5)
    tx, params = sp.pruned(optax.sgd(0.0), method), {"kernel": jnp.asarray(weights)}
    state = tx.init(params)
    for grad in grads:
        _, state = tx.update({"kernel": jnp.asarray(grad)}, state, params)
    # With decay 0.5 the two gradients weigh 1 : 2; a common factor does not matter to the ranking.
    weighted = formula(weights, np.stack([grads[0], grads[1], grads[1]]))
    expected = np.isin(np.arange(12), np.argsort(-weighted.ravel(), kind="stable")[:6]).reshape(3, 4)
    np.testing.assert_array_equal(sp.get_mask(state)["kernel"], expected)


def two_layers() -> tuple[Any, Any]:
    keys = jax.random.split(jax.random.key(0), 3)
    params = {
        "a": {"kernel": jax.random.normal(keys[0], (8, 8)), "bias": jnp.zeros(8)},
        "b": {"kernel": jax.random.normal(keys[1], (8, 4)), "bias": jnp.zeros(4)},
    }
    return params, jax.random.normal(keys[2], (16, 8))


def network(params: Any, x: Any) -> Any:
    return jnp.tanh(x @ params["a"]["kernel"] + params["a"]["bias"]) @ params["b"]["kernel"] + params["b"]["bias"]


def test_snip_and_grasp_against_finite_differences(x64) -> None:
    params, x = two_layers()
    params, x = jax.tree.map(lambda p: p.astype(jnp.float64), params), x.astype(jnp.float64)

    def loss(p: Any) -> Any:
        return jnp.mean(network(p, x) ** 2)

    grads = jax.grad(loss)(params)
    got = scores.snip(loss, params)
    np.testing.assert_allclose(got["a"]["kernel"], np.abs(grads["a"]["kernel"] * params["a"]["kernel"]))
    assert isinstance(got["a"]["bias"], optax.MaskedNode)
    step = 1e-6
    kernel_grads = {
        layer: {"kernel": grads[layer]["kernel"], "bias": jnp.zeros_like(grads[layer]["bias"])} for layer in "ab"
    }
    ahead = jax.grad(loss)(jax.tree.map(lambda p, g: p + step * g, params, kernel_grads))
    behind = jax.grad(loss)(jax.tree.map(lambda p, g: p - step * g, params, kernel_grads))
    product = (ahead["b"]["kernel"] - behind["b"]["kernel"]) / (2 * step)
    got = scores.grasp(loss, params)["b"]["kernel"]
    np.testing.assert_allclose(got, params["b"]["kernel"] * product, rtol=1e-5, atol=1e-7)


def test_synflow_conserves_flow_and_loses_no_layer() -> None:
    params, _ = two_layers()
    ones = jnp.ones((1, 8))

    def outputs(p: Any) -> Any:
        return jax.nn.relu(ones @ p["a"]["kernel"]) @ p["b"]["kernel"]

    flow = jax.tree.map(jnp.abs, params)
    grads = jax.grad(lambda p: outputs(p).sum())(flow)
    totals = [float((grads[layer]["kernel"] * flow[layer]["kernel"]).sum()) for layer in "ab"]
    assert totals[0] == pytest.approx(totals[1], rel=1e-5)
    mask = scores.synflow(outputs, params, 0.9, rounds=20)
    counts = [int(mask[layer]["kernel"].sum()) for layer in "ab"]
    assert sum(counts) == 96 - round(0.9 * 96) and min(counts) > 0
    shuffled = sp.shuffle_within_layers(mask, seed=3)
    assert [int(shuffled[layer]["kernel"].sum()) for layer in "ab"] == counts
    assert not jnp.array_equal(shuffled["a"]["kernel"], mask["a"]["kernel"])


def test_a_floor_prevents_layer_collapse() -> None:
    found = {"a": {"kernel": jnp.full((4, 4), 9.0)}, "b": {"kernel": jnp.ones((2, 2))}}
    plain = sp.mask_from_scores(found, 0.5)
    assert [int(plain[layer]["kernel"].sum()) for layer in "ab"] == [10, 0]
    kept = sp.mask_from_scores(found, 0.5, scope=sp.across(min_per_layer=2))
    assert [int(kept[layer]["kernel"].sum()) for layer in "ab"] == [8, 2]
    fed = sp.mask_from_scores(found, 0.5, scope=sp.across(min_per_output=1))
    assert int(fed["b"]["kernel"].sum()) == 2 and sp.dead_units(fed) == {"a/kernel": 0, "b/kernel": 0}
    assert sum(int(fed[layer]["kernel"].sum()) for layer in "ab") == 10
    for floors, message in (
        ({"min_per_layer": 5}, "across: min_per_layer has value 5; expected at most 4, all of 'b/kernel'"),
        ({"min_per_output": 3}, "across: min_per_output has value 3; expected at most 2, all of 'b/kernel'"),
        ({"min_per_output": 2}, "floors of 12 units; expected at most 10, the budget"),
    ):
        with pytest.raises(ValueError, match=message):
            sp.mask_from_scores(found, 0.5, scope=sp.across(**floors))


def test_wanda_compares_within_each_output() -> None:
    rng = np.random.default_rng(0)
    kernel, inputs = rng.normal(size=(6, 3)), rng.normal(size=(20, 6))
    got = scores.wanda(jnp.asarray(kernel), jnp.asarray(inputs))
    np.testing.assert_allclose(got, np.abs(kernel) * np.linalg.norm(inputs, axis=0)[:, None], rtol=1e-5)
    mask = sp.mask_from_scores({"kernel": got}, 0.5, scope="layer", structure=sp.row_balanced())
    assert mask["kernel"].sum(0).tolist() == [3, 3, 3]
    with pytest.raises(ValueError, match="wanda: inputs has last axis 5; expected 6"):
        scores.wanda(jnp.ones((6, 3)), jnp.ones((2, 5)))


def test_inputs_of_a_convolution_are_what_its_kernel_multiplies() -> None:
    images, kernel = (
        jax.random.normal(jax.random.key(0), (2, 6, 6, 3)),
        jax.random.normal(jax.random.key(1), (3, 3, 3, 5)),
    )
    rows = scores.conv_inputs(images, kernel.shape, strides=(2, 2))
    expected = jax.lax.conv_general_dilated(images, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    np.testing.assert_allclose(rows @ kernel.reshape(-1, 5), expected, atol=1e-4)


def test_snfs_moves_weights_to_the_layer_with_momentum() -> None:
    params = {"a": {"kernel": jnp.ones((6, 6))}, "b": {"kernel": jnp.ones((6, 6))}}
    tx = sp.pruned(optax.sgd(0.0), sp.snfs(0.5, update_every=2, stop=4, scope="layer", drop=0.5))
    params, state = sp.init(tx, params)
    grads = {"a": {"kernel": jnp.full((6, 6), 3.0)}, "b": {"kernel": jnp.ones((6, 6))}}
    update = jax.jit(tx.update)
    for _ in range(2):
        _, state = update(grads, state, params)
    # 9 + 9 dropped; shares 3 : 1 of 18 are 13 and 4, and the one left over goes to the first layer.
    assert [int(state.nnz[layer]["kernel"]) for layer in "ab"] == [9 + 14, 9 + 4]


def test_granet_prunes_globally_and_then_exchanges() -> None:
    rng = np.random.default_rng(0)
    weights, grads = rng.normal(size=(4, 5)), rng.normal(size=(4, 5))
    schedule = schedules.one_shot(0.5, 1)
    method = sp.granet(schedule, update_every=1, start=1, stop=2, drop=0.25)
    state, _, new = once(method, weights, grads, optax.sgd(0.0))
    kept = np.argsort(-np.abs(weights).ravel(), kind="stable")[:10]
    held = kept[:8]  # floor(10 / 4) = 2 are exchanged
    rest = np.where(np.isin(np.arange(20), held), -1, np.abs(grads).ravel())
    expected = np.isin(np.arange(20), [*held, *np.argsort(-rest, kind="stable")[:2]]).reshape(4, 5)
    np.testing.assert_array_equal(sp.get_mask(new)["kernel"], expected)
    assert int(state.nnz["kernel"]) == 20


def test_mest_keeps_within_its_bound_and_ends_at_its_target() -> None:
    tx = sp.pruned(optax.sgd(0.1), sp.mest(0.75, update_every=2, stop=6, grad_weight=1.0, bound=0.5))
    params, state = sp.init(tx, {"kernel": jnp.arange(1.0, 21.0).reshape(4, 5)})
    update, counts = jax.jit(tx.update), []
    for i in range(8):
        grads = {"kernel": jax.random.normal(jax.random.key(i), (4, 5))}
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
        counts.append(int(sp.metrics(state)["nnz"]))
    assert counts == [10, 10, 10, 10, 10, 5, 5, 5]


def test_gradual_random_masks_nest_and_depend_on_the_seed(tools) -> None:
    ramp = schedules.linear(0.2, 0.8, begin=0, end=3)
    masks = []
    for seed in (0, 0, 1):
        tx = sp.pruned(optax.sgd(0.1), sp.random_pruning(ramp, update_every=1, stop=3, seed=seed))
        (params, state), step = sp.init(tx, tools.make_params()), jax.jit(tools.make_step(tx))
        first = sp.get_mask(state)["a"]["kernel"]
        for i in range(3):
            params, state = step(params, state, i)
        assert not jnp.any(sp.get_mask(state)["a"]["kernel"] & ~first)
        masks.append(sp.get_mask(state)["a"]["kernel"])
    assert jnp.array_equal(masks[0], masks[1]) and not jnp.array_equal(masks[0], masks[2])


def test_a_list_of_rules(tools) -> None:
    ramp = sp.magnitude(schedules.cubic(0.0, 0.75, begin=1, end=5), update_every=2, start=1, stop=5, scope="layer")
    rules = [(sp.path("a/kernel"), sp.static(0.5), sp.n_of_m(1, 2)), (sp.is_kernel(), ramp, sp.unstructured())]
    tx = sp.pruned(optax.adam(1e-2), rules)
    params, state = sp.init(tx, tools.make_params())
    step = jax.jit(tools.make_step(tx))
    counts = []
    for i in range(6):
        params, state = step(params, state, i)
        sp.check(params, state)
        counts.append([int(state.nnz[layer]["kernel"]) for layer in "ab"])
    assert {first for first, _ in counts} == {24} and counts[-1][1] == 8 and counts[0][1] == 32
    with pytest.raises(ValueError, match="pruned: leaf 'b/kernel' has no rule that matches"):
        sp.pruned(optax.sgd(0.1), rules[:1], where=sp.path("*/kernel")).init(params)
    with pytest.raises(ValueError, match="pruned: method has the method RigL in a list of rules"):
        sp.pruned(optax.sgd(0.1), [(sp.is_kernel(), sp.rigl(0.5, stop=400), sp.unstructured())])
    with pytest.raises(TypeError, match="pruned: method has the rule"):
        sp.pruned(optax.sgd(0.1), [(sp.is_kernel(), sp.static(0.5))])  # type: ignore[list-item]


def test_prune_puts_mask_and_compensation_in_force(tools) -> None:
    tx = sp.pruned(optax.sgd(0.1, momentum=0.9), sp.external())
    params, state = tools.make_params(), None
    state = tx.init(params)
    params, state = tools.make_step(tx)(params, state, 0)
    sizes = {k: {"kernel": jnp.abs(params[k]["kernel"]), "bias": optax.MaskedNode()} for k in "ab"}
    mask = sp.mask_from_scores(sizes, 0.75)
    change = jax.tree.map(lambda p: jnp.full_like(p, 0.5), params)
    pruned, new = sp.prune(tx, params, state, mask, change)
    for layer in "ab":
        keep = mask[layer]["kernel"]
        np.testing.assert_array_equal(pruned[layer]["kernel"], jnp.where(keep, params[layer]["kernel"] + 0.5, 0))
        np.testing.assert_array_equal(pruned[layer]["bias"], params[layer]["bias"])
        assert not jnp.any(new.inner[0].trace[layer]["kernel"][~keep])
    assert int(new.step) == 1 and int(sp.metrics(new)["nnz"]) == 20
    after, later = tools.make_step(tx)(pruned, new, 1)
    sp.check(after, later)


def test_lottery_tickets_rewind_or_not() -> None:
    start = {"kernel": jnp.arange(1.0, 21.0).reshape(4, 5)}

    def train(params: Any, mask: Any, i: int) -> Any:
        # The order of magnitudes turns around; pruned weights must stay 0.
        return {"kernel": jnp.where(mask["kernel"], 100.0 - start["kernel"], 0)}

    for rewind in ("weights", "learning_rate", "none"):
        tickets = list(sp.lottery_tickets(train, start, 0.9, rewind=rewind))  # type: ignore[arg-type]
        assert len(tickets) == 11 and tickets[-1].sparsity == 0.9
        mask = tickets[-1].mask["kernel"]
        assert np.flatnonzero(mask).tolist() == [0, 1]
        expected = start["kernel"] if rewind == "weights" else 100.0 - start["kernel"]
        np.testing.assert_array_equal(tickets[-1].params["kernel"], jnp.where(mask, expected, 0))
        assert not jnp.any(tickets[4].mask["kernel"] & ~tickets[3].mask["kernel"])


def test_overlap_and_the_figure_of_the_authors() -> None:
    rng = np.random.default_rng(0)
    first = {"a": jnp.asarray(rng.random((10, 10)) < 0.2), "b": jnp.asarray(rng.random((5, 4)) < 0.5)}
    second = {"a": jnp.asarray(rng.random((10, 10)) < 0.2), "b": jnp.asarray(rng.random((5, 4)) < 0.5)}
    total, layers = sp.overlap(first, second)
    flat = [np.concatenate([np.ravel(tree[k]) for k in "ab"]) for tree in (first, second)]
    assert float(total.shared) == pytest.approx((flat[0] & flat[1]).sum() / flat[0].sum())
    assert int(total.hamming) == (flat[0] ^ flat[1]).sum() == sum(int(x.hamming) for x in layers.values())
    more_zeros = (~flat[1]).sum() - (~flat[0]).sum()
    assert float(total.difference) == pytest.approx(((flat[0] ^ flat[1]).sum() - more_zeros) / 120)
    assert float(sp.overlap(first, first)[0].lost) == 0.0


def test_a_report_before_training(tools) -> None:
    params = tools.make_params()
    layers = [sp.accounting.LayerShape("a/kernel", (6, 8)), sp.accounting.LayerShape("b/kernel", (8, 4))]
    found = sp.report(params, sp.rigl(0.75, stop=900), layers=layers, moments=2)
    tx = sp.pruned(optax.adam(1e-2), sp.rigl(0.75, stop=900))
    masked, state = sp.init(tx, params)
    promised = {row.path: row.capacity for row in found.rows if row.capacity is not None}
    assert {path: capacity.kind for path, capacity in promised.items()} == {"a/kernel": "fixed", "b/kernel": "fixed"}
    for layer in "ab":
        assert promised[f"{layer}/kernel"].entries == int(state.nnz[layer]["kernel"])
    assert found.sparsity == 0.75 and found.sparsity_of_all == pytest.approx(60 / 92)
    assert (found.dense_flops, found.sparse_flops) == (160, 40)
    values, stored = sp.compress(masked, state)
    kept = sum(leaf.nbytes for leaf in jax.tree.leaves([values, stored.inner, stored.indices]))
    # Biases with their moments and Adam's counter are not part of the figure.
    assert found.bytes("values") == kept - 3 * 4 * 12 - 4
    text = str(found)
    assert "not in is_kernel()" in text and "Masks save no time" in text and "(0.250)" in text
    by_scores = sp.report(params, sp.acdc(0.75, [sp.Phase("dense", 0, 2), sp.Phase("sparse", 2, 4)]))
    assert by_scores.rows[1].capacity == sp.allocation.Capacity("scores", 12)
    assert sp.report(params, sp.straight_through(0.5)).rows[1].capacity == sp.allocation.Capacity("dense", 48)
    assert sp.report(params, sp.fixed(sp.get_mask(state))).rows[1].capacity == promised["a/kernel"]
    abstract = jax.eval_shape(lambda: params)
    assert sp.report(abstract, sp.one_shot(0.75, scope="layer")).rows[1].capacity == sp.allocation.Capacity(
        "sparse phases", 12
    )
