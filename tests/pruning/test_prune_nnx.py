"""The wrapper inside nnx.Optimizer and with the functional NNX interface."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx

from sparsejax import pruning as sp
from sparsejax.pruning import fixed, get_mask, init, mask_from_zeros, metrics, one_shot, pruned, sparsity_of


class Net(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(1, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.layers = nnx.List([nnx.Linear(64, 8, rngs=rngs), nnx.Linear(8, 3, rngs=rngs)])

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.relu(self.norm(self.conv(x))).reshape(x.shape[0], -1)
        return self.layers[1](nnx.relu(self.layers[0](x)))


SIZE = 9 * 4 + 64 * 8 + 8 * 3


@nnx.jit
def train_step(model: Net, optimizer: nnx.Optimizer, x: jax.Array) -> dict[str, jax.Array]:
    grads = nnx.grad(lambda model: jnp.mean((model(x) - 1.0) ** 2))(model)
    optimizer.update(model, grads)
    return metrics(optimizer.opt_state)


def batch(i: int) -> jax.Array:
    return jax.random.normal(jax.random.key(i), (2, 4, 4, 1))


def assert_zeros_match(model: Net, optimizer: nnx.Optimizer) -> None:
    masks = jax.tree.leaves(get_mask(optimizer.opt_state))
    kernels = [model.conv.kernel, model.layers[0].kernel, model.layers[1].kernel]
    shapes = {kernel.shape: kernel[...] for kernel in kernels}
    assert len(masks) == len(shapes) == 3
    for mask in masks:
        assert not jnp.any(shapes[mask.shape][~mask])


@pytest.mark.parametrize("multi", [False, True])
def test_gradual_pruning_through_nnx_optimizer(gradual, multi) -> None:
    model, tx = Net(nnx.Rngs(0)), pruned(optax.adam(1e-2), gradual)
    tx = optax.MultiSteps(tx, 2).gradient_transformation() if multi else tx
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    for i in range(22 if multi else 11):
        got = train_step(model, optimizer, batch(i))
        assert_zeros_match(model, optimizer)
    assert int(got["nnz"]) == SIZE - round(0.9 * SIZE)
    assert float(sparsity_of(nnx.state(model, nnx.Param))) == pytest.approx(0.9, abs=1e-3)


def test_a_mask_moves_between_boxed_and_pure_trees() -> None:
    model = Net(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, pruned(optax.adam(1e-2), one_shot(0.5, at=1)), wrt=nnx.Param)
    train_step(model, optimizer, batch(0))
    boxed, pure = get_mask(optimizer.opt_state), nnx.as_pure(get_mask(optimizer.opt_state))
    from_zeros = mask_from_zeros(nnx.state(model, nnx.Param))
    for mask in (boxed, pure, from_zeros):
        tuned = nnx.Optimizer(model, pruned(optax.sgd(0.1), fixed(mask)), wrt=nnx.Param)
        train_step(model, tuned, batch(1))
        assert_zeros_match(model, tuned)
        assert int(metrics(tuned.opt_state)["nnz"]) == SIZE // 2


def test_functional_nnx_with_variables_as_parameters() -> None:
    graph, params, rest = nnx.split(Net(nnx.Rngs(0)), nnx.Param, ...)
    tx = pruned(optax.adamw(1e-2), one_shot(0.75))
    params, state = init(tx, params)

    @jax.jit
    def step(params, state, x):
        def loss(params):
            model = nnx.merge(graph, params, rest)
            # Running statistics may not be written at this trace level.
            model.eval()
            return jnp.mean(model(x) ** 2)

        updates, state = tx.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    for i in range(3):
        params, state = step(params, state, batch(i))
    assert float(sparsity_of(params)) == float(metrics(state)["sparsity"]) == 0.75


@pytest.fixture
def pruned_model() -> tuple[Net, nnx.Optimizer]:
    model = Net(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, pruned(optax.adam(1e-2), one_shot(0.5, at=1)), wrt=nnx.Param)
    train_step(model, optimizer, batch(0))
    return model, optimizer


def trees(model: Net) -> list[nnx.State]:
    """What a loop has of a model: all of its variables, those that train, and these as plain arrays."""
    return [nnx.state(model), nnx.state(model, nnx.Param), nnx.as_pure(nnx.state(model, nnx.Param))]


def test_entry_points_take_the_variables_of_a_loop(pruned_model) -> None:
    model, optimizer = pruned_model
    pruned_away = sum(int((~mask).sum()) for mask in jax.tree.leaves(get_mask(optimizer.opt_state)))
    for opt_state in (optimizer.opt_state, nnx.as_pure(optimizer.opt_state)):
        for params in trees(model):
            sp.check(params, opt_state)
            ones = jax.tree.map(lambda leaf: jnp.ones_like(leaf), params)
            used = sp.forward_params(ones, opt_state)
            assert jax.tree.structure(used) == jax.tree.structure(params)
            assert sum(int((leaf == 0).sum()) for leaf in jax.tree.leaves(used)) == pruned_away
            with pytest.raises(ValueError, match=r"check: leaf '.*/kernel' has \d+ weights outside the mask"):
                sp.check(ones, opt_state)


def test_forward_params_of_variables_has_the_gradient_of_the_masked_point(pruned_model) -> None:
    model, optimizer = pruned_model
    ones = jax.tree.map(jnp.ones_like, nnx.state(model, nnx.Param))

    def loss(params: nnx.State) -> jax.Array:
        return jnp.sum(sp.forward_params(params, optimizer.opt_state).layers[0].kernel[...] ** 2)

    grads = jax.grad(loss)(ones)
    assert jnp.array_equal(grads.layers[0].kernel[...], 2.0 * get_mask(optimizer.opt_state).layers[0].kernel[...])


def test_prune_gives_back_the_variables_it_took(pruned_model) -> None:
    model, optimizer = pruned_model
    sizes = jax.tree.map(lambda mask: jnp.arange(float(mask.size)).reshape(mask.shape), get_mask(optimizer.opt_state))
    mask = sp.mask_from_scores(sizes, 0.75)
    for params in trees(model):
        got, opt_state = sp.prune(optimizer.tx, params, optimizer.opt_state, mask)
        assert jax.tree.structure(got) == jax.tree.structure(params)
        assert jax.tree.structure(opt_state) == jax.tree.structure(optimizer.opt_state)
        sp.check(got, opt_state)
        assert int(metrics(opt_state)["nnz"]) == SIZE // 4
    nnx.update(model, got)
    optimizer.opt_state = opt_state
    train_step(model, optimizer, batch(1))
    sp.check(nnx.state(model, nnx.Param), optimizer.opt_state)


def test_prune_restarts_moments_of_variables() -> None:
    model = Net(nnx.Rngs(0))
    phases = sp.acdc_phases(total=5, warmup=1, sparse=1, dense=1, last_dense=1, final_sparse=2)
    optimizer = nnx.Optimizer(model, pruned(optax.adam(1e-2), sp.acdc(0.5, phases)), wrt=nnx.Param)
    for i in range(2):
        train_step(model, optimizer, batch(i))
    mask = get_mask(optimizer.opt_state)
    _, opt_state = sp.prune(optimizer.tx, nnx.state(model), optimizer.opt_state, mask)
    assert not any(jnp.any(leaf) for leaf in jax.tree.leaves(opt_state.inner[0].mu))  # a dense phase starts at step 2
    assert int(opt_state.inner[0].count[...]) == 2


def test_values_only_storage_of_variables(pruned_model) -> None:
    model, optimizer = pruned_model
    for params in trees(model)[1:]:
        values, state = sp.compress(params, optimizer.opt_state)
        assert values.conv.kernel.ndim == 1
        updates, state = sp.stored(optax.adam(1e-2)).update(values, state, values)
        back, opt_state = sp.decompress(optax.apply_updates(values, updates), state)
        sp.check(back, opt_state)
    nnx.update(model, back)
    sp.check(nnx.state(model), optimizer.opt_state)


def test_packed_masks_in_an_nnx_optimizer() -> None:
    model = Net(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, pruned(optax.sgd(0.1), one_shot(0.5), packed=True), wrt=nnx.Param)
    got, _ = sp.prune(optimizer.tx, nnx.state(model), optimizer.opt_state, get_mask(optimizer.opt_state))
    sp.check(got, optimizer.opt_state)
    train_step(model, optimizer, batch(0))  # which leaves a State in place of each PackedMask
    message = r"state.mask has the content of a packed mask .*nnx.Optimizer .*: use packed=False"
    for function in (
        lambda: train_step(model, optimizer, batch(1)),
        lambda: get_mask(optimizer.opt_state),
        lambda: sp.check(nnx.state(model), optimizer.opt_state),
    ):
        with pytest.raises(ValueError, match=message):
            function()


def test_a_state_of_another_model_is_one_line_that_names_as_pure(pruned_model) -> None:
    model, optimizer = pruned_model
    own = nnx.state(model, nnx.Param)
    other = nnx.state(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), nnx.Param)
    for function in (
        lambda: sp.check(other, optimizer.opt_state),
        lambda: sp.forward_params(other, optimizer.opt_state),
        lambda: sp.prune(optimizer.tx, other, optimizer.opt_state, get_mask(optimizer.opt_state)),
        lambda: sp.compress(other, optimizer.opt_state),
        lambda: optimizer.tx.update(other, optimizer.opt_state, other),
        lambda: optimizer.tx.update(own, optimizer.opt_state, own),
    ):
        with pytest.raises(ValueError, match=r"another tree structure .*nnx.as_pure\(tree\)") as raised:
            function()
        assert "\n" not in str(raised.value) and len(str(raised.value)) < 400
