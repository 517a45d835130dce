"""Structures, sharding, kinds of trees, and clear errors."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.core
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from jax.sharding import NamedSharding, PartitionSpec

from sparsejax import pruning as sp
from sparsejax.pruning import schedules

CONV = (3, 3, 8, 4)
DENSE = (8, 6)
STRUCTURES = {
    "row_balanced": (sp.row_balanced(), 0.75),
    "n_of_m": (sp.n_of_m(2, 4), 0.5),
    "block": (sp.block(4, 2), 0.75),
    "channel": (sp.channel(-1), 0.5),
}


def kernels() -> dict[str, Any]:
    first, second = jax.random.split(jax.random.key(0))
    return {
        "conv": {"kernel": jax.random.normal(first, CONV)},
        "dense": {"kernel": jax.random.normal(second, DENSE)},
    }


def oracle(name: str, scores: np.ndarray, sparsity: float) -> np.ndarray:
    """The mask by brute force over the groups."""
    mask = np.zeros(scores.shape, bool)
    if name == "n_of_m":
        for index in np.ndindex(*scores.shape[:-2], scores.shape[-2] // 4, scores.shape[-1]):
            *window, group, out = index
            part = (*window, slice(4 * group, 4 * group + 4), out)
            mask[part] = np.isin(np.arange(4), np.argsort(-scores[part], kind="stable")[:2])
        return mask
    matrix, view = scores.reshape(-1, scores.shape[-1]), mask.reshape(-1, scores.shape[-1])
    if name == "row_balanced":
        for out in range(matrix.shape[1]):
            view[np.argsort(-matrix[:, out], kind="stable")[: round(0.25 * matrix.shape[0])], out] = True
    if name == "block":
        sums = matrix.reshape(matrix.shape[0] // 4, 4, -1, 2).sum((1, 3))
        k = sums.size - round(0.75 * sums.size)
        kept = np.isin(np.arange(sums.size), np.argsort(-sums.ravel(), kind="stable")[:k]).reshape(sums.shape)
        view[:] = kept.repeat(4, 0).repeat(2, 1)
    if name == "channel":
        sums = matrix.sum(0)
        view[:] = np.isin(np.arange(sums.size), np.argsort(-sums, kind="stable")[: sums.size - round(0.5 * sums.size)])
    return mask


@pytest.mark.parametrize("name", STRUCTURES)
def test_structures_along_the_right_axes_of_dense_and_convolution(name) -> None:
    structure, sparsity = STRUCTURES[name]
    params = kernels()
    state = sp.pruned(optax.sgd(0.1), sp.one_shot(sparsity, scope="layer"), structure=structure).init(params)
    for layer in params:
        expected = oracle(name, np.abs(np.asarray(params[layer]["kernel"])), sparsity)
        np.testing.assert_array_equal(sp.get_mask(state)[layer]["kernel"], expected)


@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize("method", ["rigl", "acdc"])
def test_structures_hold_while_masks_change(name, method) -> None:
    structure, sparsity = STRUCTURES[name]
    phases = sp.acdc_phases(total=10, warmup=2, sparse=2, dense=2, last_dense=2, final_sparse=4)
    made = {
        "rigl": lambda: sp.rigl(sparsity, update_every=2, stop=8, scope="layer", drop=0.5),
        "acdc": lambda: sp.acdc(sparsity, phases, scope="layer"),
    }[method]()
    tx = sp.pruned(optax.sgd(0.1, momentum=0.9), made, structure=structure)
    params, state = sp.init(tx, kernels())
    first = sp.get_mask(state)

    @jax.jit
    def step(params: Any, state: Any, i: Any) -> Any:
        key = jax.random.fold_in(jax.random.key(5), i)
        grads = jax.tree.map(lambda x: jax.random.normal(key, x.shape), params)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    for i in range(10):
        params, state = step(params, state, i)
    for layer, shape in (("conv", CONV), ("dense", DENSE)):
        mask = np.asarray(sp.get_mask(state)[layer]["kernel"])
        grid = structure.grid(layer, shape)
        units = np.asarray(structure.to_units(jnp.asarray(mask, jnp.float32)))
        assert set(np.unique(units)) <= {0.0, float(grid.size)}
        kept = structure.fixed or max(1, grid.units - round(sparsity * grid.units))
        assert ((units > 0).sum(1) == kept).all()
        assert not np.any(np.asarray(params[layer]["kernel"])[~mask])
    assert method == "acdc" or not np.array_equal(mask, first["dense"]["kernel"])


def test_shapes_that_do_not_fit_are_named() -> None:
    params = {"stem": {"kernel": jnp.ones((3, 3, 3, 6))}}
    cases = [
        (
            sp.n_of_m(2, 4),
            0.5,
            r"n_of_m: leaf 'stem/kernel' has shape \(3, 3, 3, 6\); expected an input axis .*4 divides",
        ),
        (sp.block(4, 4), 0.5, r"block: leaf 'stem/kernel' has shape .*matrix view \(27, 6\)"),
        (sp.channel(7), 0.5, r"channel: leaf 'stem/kernel' has shape .*an axis 7"),
    ]
    for structure, sparsity, message in cases:
        with pytest.raises(ValueError, match=message):
            sp.pruned(optax.sgd(0.1), sp.one_shot(sparsity, scope="layer"), structure=structure).init(params)
    with pytest.raises(ValueError, match=r"one_shot: sparsity has value 0.9; expected 0 or 0.5 with this structure"):
        sp.pruned(optax.sgd(0.1), sp.one_shot(0.9), structure=sp.n_of_m(2, 4)).init({"kernel": jnp.ones((4, 2))})
    with pytest.raises(ValueError, match=r"one_shot: scope 'global' has structure RowBalanced"):
        sp.pruned(optax.sgd(0.1), sp.one_shot(0.5), structure=sp.row_balanced()).init({"kernel": jnp.ones((4, 2))})
    two = {"a": {"kernel": jnp.ones((4, 2))}, "b": {"kernel": jnp.ones((4, 2))}}
    for share, counts in ((None, [8, 4]), (0.5, [4, 4])):
        tx = sp.pruned(optax.sgd(0.1), sp.one_shot(0.5, scope=sp.per_layer({"a/*": share})), structure=sp.n_of_m(2, 4))
        assert jax.tree.leaves(tx.init(two).nnz) == counts
    with pytest.raises(
        ValueError, match=r"per_layer: the share of 'a/kernel' has 1 units in a group; expected 2 or all"
    ):
        method = sp.one_shot(0.5, scope=sp.per_layer({"a/*": 0.75}))
        sp.pruned(optax.sgd(0.1), method, structure=sp.n_of_m(2, 4)).init(two)
    for call, message in (
        (lambda: sp.n_of_m(5, 4), "n_of_m: n has value 5"),
        (lambda: sp.block(0, 4), "block: rows has value 0"),
        (lambda: sp.n_of_m(1.5, 4), "n_of_m: n has value 1.5"),  # type: ignore[arg-type]
    ):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("name", ["global", "rigl"])
def test_a_sharded_run_equals_that_on_one_device(tools, optimized, name) -> None:
    assert jax.device_count() >= 2
    mesh = jax.make_mesh((2,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    method = {
        "global": lambda: sp.magnitude(schedules.cubic(0.0, 0.75, begin=2, end=6), update_every=2, start=2, stop=6),
        "rigl": lambda: sp.rigl(0.75, update_every=2, stop=6),
    }[name]()
    tx = sp.pruned(optax.sgd(0.1, momentum=0.9), method)
    single = sp.init(tx, tools.make_params())

    def placed(leaf: Any) -> Any:
        spec = PartitionSpec("x") if leaf.ndim == 2 else PartitionSpec()
        return jax.device_put(leaf, NamedSharding(mesh, spec))

    sharded = jax.tree.map(placed, single)
    step = jax.jit(tools.make_step(tx))
    for i in range(8):
        single, sharded = step(*single, i), step(*sharded, i)
    assert len(sharded[0]["a"]["kernel"].sharding.device_set) == 2
    tools.assert_equal_trees(jax.device_get(sharded), jax.device_get(single))


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Layer:
    kernel: Any
    bias: Any


def linen_params() -> Any:
    return linen.Dense(4).init(jax.random.key(0), jnp.ones((1, 8)))["params"]


TREES: dict[str, Any] = {
    "linen dict": lambda: {"a": linen_params()},
    "FrozenDict": lambda: flax.core.freeze({"a": linen_params()}),
    "nnx.State": lambda: nnx.state(nnx.Linear(8, 4, rngs=nnx.Rngs(0)), nnx.Param),
    "tuple and list": lambda: ([{"kernel": linen_params()["kernel"]}], jnp.ones(4)),
    "dataclass": lambda: Layer(**linen_params()),
}


@pytest.mark.parametrize("name", TREES)
def test_any_tree_of_parameters(name) -> None:
    params = TREES[name]()
    phases = sp.acdc_phases(total=6, warmup=1, sparse=1, dense=1, last_dense=2, final_sparse=2)
    tx = sp.pruned(optax.adam(1e-2), sp.acdc(0.75, phases))
    state = tx.init(params)

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        updates, state = tx.update(jax.tree.map(jnp.ones_like, params), state, params)
        return optax.apply_updates(params, updates), state

    counts = []
    for _ in range(6):
        params, state = step(params, state)
        counts.append(int(sp.metrics(state)["nnz"]))
        sp.check(params, state)
    assert counts == [8, 32, 32, 8, 8, 8]
    values, stored = sp.compress(params, state)
    back, _ = sp.decompress(values, stored)
    for x, y in zip(jax.tree.leaves(back), jax.tree.leaves(params), strict=True):
        np.testing.assert_array_equal(x, y)


def test_patterns_without_a_match(tools) -> None:
    params = tools.make_params()
    with pytest.raises(ValueError, match=r"pruned.init: where, in path\('head/\*'\), has no matching leaf"):
        sp.pruned(optax.sgd(0.1), sp.static(0.5), where=sp.path("head/*")).init(params)
    with pytest.raises(ValueError, match=r"per_layer: the glob 'head/\*' has no matching leaf"):
        sp.pruned(optax.sgd(0.1), sp.static(0.5, scope=sp.per_layer({"head/*": None}))).init(params)


Phase = sp.Phase


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ([Phase("dense", 0, 5), Phase("sparse", 4, 9)], "overlapping phases"),
        ([Phase("dense", 0, 5), Phase("sparse", 6, 9)], "a gap"),
        ([Phase("dense", 0, 5), Phase("sparse", 5, 8), Phase("dense", 8, 9)], "expected a sparse phase at the end"),
        ([Phase("sparse", 0, 5)], "expected a dense phase from step 0"),
        ([Phase("dense", 0, 5), Phase("dense", 5, 8), Phase("sparse", 8, 9)], "two dense phases in a row"),
        ([Phase("dense", 5, 5), Phase("sparse", 5, 8)], "0 <= start < stop"),
        ([], "no element"),
    ],
)
def test_phases_that_make_no_sense(phases, message) -> None:
    with pytest.raises(ValueError, match=f"acdc: phases has .*{message}"):
        sp.acdc(0.9, phases)


def test_phase_lengths_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"acdc_phases: total has 6 units between warm-up and last dense phase"):
        sp.acdc_phases(total=20, warmup=4, sparse=3, dense=3, last_dense=5, final_sparse=5)
    with pytest.raises(ValueError, match="acdc_phases: dense has value 0"):
        sp.acdc_phases(total=20, warmup=4, sparse=3, dense=0, last_dense=5, final_sparse=5)


GATE: Any = {"update_every": 1, "start": 1, "stop": 5}
PHASES = [Phase("dense", 0, 5), Phase("sparse", 5, 9)]


@pytest.mark.parametrize("sparsity", [1.0, -0.1, float("nan"), 1.5])
@pytest.mark.parametrize(
    "method",
    [
        lambda s: sp.one_shot(s),
        lambda s: sp.acdc(s, PHASES),
        lambda s: sp.static(s),
        lambda s: sp.sparse_evolutionary_training(s, update_every=1, stop=4),
        lambda s: sp.rigl(s, update_every=1, stop=4),
        lambda s: sp.snfs(s, update_every=1, stop=4),
        lambda s: sp.mest(s, update_every=1, stop=5, grad_weight=0.1),
        lambda s: sp.hard_threshold(s),
        lambda s: sp.straight_through(s),
        lambda s: sp.top_kast(s, 0.5),
        lambda s: sp.mask_from_scores({"kernel": jnp.ones((2, 2))}, s),
        lambda s: sp.lottery_tickets(lambda w, m, i: w, {"kernel": jnp.ones((2, 2))}, s),
    ],
)
def test_sparsities_out_of_range(method, sparsity) -> None:
    with pytest.raises(ValueError, match=r"sparsity has value .*; expected a"):
        method(sparsity)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sp.acdc(0.9, PHASES, reset="some"), "acdc: reset has value 'some'"),
        (lambda: sp.acdc(0.9, PHASES, scope="row"), "acdc: scope has value 'row'"),
        (lambda: sp.static(0.9, scope="global"), "static: scope has value 'global'"),
        (lambda: sp.rigl(0.9, update_every=10, stop=0), "rigl: stop has value 0; expected an integer, at least 1"),
        (lambda: sp.rigl(0.9, update_every=2, stop=8, grow_grad_steps=3), "rigl: grow_grad_steps has value 3"),
        (
            lambda: sp.sparse_evolutionary_training(0.9, update_every=2, stop=8, drop=1.5),
            "sparse_evolutionary_training: drop has value 1.5",
        ),
        (lambda: sp.mest(0.9, update_every=2, stop=9, grad_weight=-1), "mest: grad_weight has value -1"),
        (lambda: sp.mest(0.9, update_every=2, stop=9, grad_weight=0, bound=0.95), "mest: bound has value 0.95"),
        (lambda: sp.top_kast(0.5, 0.9), "top_kast: backward_sparsity has value 0.9; expected at most"),
        (lambda: sp.straight_through(0.5, update_every=0), "straight_through: update_every has value 0"),
        (lambda: sp.saliency(schedules.constant(0.5), update_every=1, stop=5), "saliency: start has value 0"),
        (lambda: sp.saliency(schedules.constant(0.5), **GATE, kind="x"), "saliency: kind has value 'x'"),
        (lambda: sp.granet(schedules.one_shot(0.5, at=6), **GATE), "granet: stop has value 5; expected the end of"),
        (lambda: sp.soft_movement(threshold=0.7, penalty=1.0, scores_tx=optax.sgd(1.0)), "soft_movement: threshold"),
        (lambda: sp.across(min_per_layer=-1), "across: min_per_layer has value -1"),
        (lambda: schedules.cosine_drop(1.0, 10), "cosine_drop: fraction has value 1.0"),
        (lambda: schedules.alternating([(5, 0.1)]), "alternating: pieces has starts"),
        (lambda: sp.pruned(optax.sgd(0.1), []), "pruned: method has an empty list"),
    ],
)
def test_other_values_out_of_range(call, message) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_scores_that_are_nan(tools) -> None:
    with pytest.raises(ValueError, match="mask_from_scores: scores at 'kernel' has NaN"):
        sp.mask_from_scores({"kernel": jnp.array([[1.0, jnp.nan]])}, 0.5)
    params = tools.make_params()
    params["a"]["kernel"] = params["a"]["kernel"].at[0, 0].set(jnp.nan)
    with pytest.raises(ValueError, match=r"pruned.init: leaf 'a/kernel' has NaN among its weights"):
        sp.pruned(optax.sgd(0.1), sp.one_shot(0.5)).init(params)
    # Under jit nothing can be raised: NaN ranks last.
    masks = jax.jit(lambda s: sp.mask_from_scores({"kernel": s}, 0.5))(jnp.array([[jnp.nan, -5.0]]))
    assert masks["kernel"].tolist() == [[False, True]]


def test_a_transform_outside_the_wrapper(tools) -> None:
    outside = optax.chain(sp.pruned(optax.sgd(0.1), sp.static(0.5)), optax.add_noise(1.0, 0.55, jax.random.key(0)))
    params, state = sp.init(outside, tools.make_params())
    params, state = tools.make_step(outside)(params, state, 0)
    with pytest.raises(ValueError, match=r"check: leaf 'a/kernel' has \d+ weights outside.*go inside: pruned"):
        sp.check(params, state)
    sp.check(sp.forward_params(params, state), state)
