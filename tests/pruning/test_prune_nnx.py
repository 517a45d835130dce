"""The wrapper inside nnx.Optimizer and with the functional NNX interface."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx

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
