"""``TrainState`` across ``sparsify_train_state``: parameters, optimizer state and loss curves."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax.training.train_state import TrainState

from sparsejax.nn.linen import densify_train_state, sparsify, sparsify_train_state
from sparsejax.pruning import get_mask, one_shot, pruned

from .linen_models import Gpt, ViT, kernel_masks, masked

ALWAYS: dict[str, Any] = {"policy": "always", "min_sparsity": 0.5}
X = jax.random.normal(jax.random.key(1), (8, 6))


class Net(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(nn.Dense(8, name="first")(x)))
        return nn.Dense(6, name="second")(x)


class StateWithStatistics(TrainState):
    batch_stats: Any
    average: Any


def train(state: Any, x: jax.Array, y: jax.Array, masks: Any, steps: int) -> tuple[Any, np.ndarray]:
    """The loop of Flax's documentation; with masks, the dense kernels are masked in every step."""

    @jax.jit
    def step(state: Any, key: jax.Array) -> Any:
        def loss(params: Any) -> jax.Array:
            used = params if masks is None else masked(params, masks)
            logits = state.apply_fn({"params": used}, x, train=True, rngs={"dropout": key})
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        value, grads = jax.value_and_grad(loss)(state.params)
        return state.apply_gradients(grads=grads), value

    losses = []
    for key in jax.random.split(jax.random.key(2), steps):
        state, value = step(state, key)
        losses.append(value)
    return state, np.asarray(losses)


@pytest.mark.parametrize("name", [pytest.param("vit", marks=pytest.mark.slow), "gpt"])
def test_fifty_steps_equal_masked_dense(name: str) -> None:
    if name == "vit":
        module: Any = ViT()
        x, y = jax.random.normal(jax.random.key(1), (4, 8, 8, 3)), jnp.array([0, 1, 2, 0])
    else:
        module, x = Gpt(), jax.random.randint(jax.random.key(1), (4, 6), 0, 11)
        y = jnp.roll(x, -1, 1)
    params = jax.jit(module.init)(jax.random.key(0), x)["params"]
    masks = kernel_masks(params)
    # The gradient of a key's bias is zero but for rounding, which Adam would make a step of with a smaller epsilon.
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(3e-3, eps=1e-5))
    dense = TrainState.create(apply_fn=module.apply, params=masked(params, masks), tx=tx)
    dense, _ = train(dense, x, y, masks, 2)
    sparse, report = sparsify_train_state(dense, masks, sample_input=x, **ALWAYS)
    pruned_kernels = [leaf for leaf in jax.tree.leaves(masks) if leaf is not None]
    assert report.sparse_share == 1
    assert sum(row.action == "sparse" for row in report.rows) == len(pruned_kernels)
    dense, expected = train(dense, x, y, masks, 50)
    sparse, losses = train(sparse, x, y, None, 50)
    np.testing.assert_allclose(losses, expected, atol=1e-4)
    assert losses[-1] < 0.7 * losses[0] and int(sparse.step) == 52
    back = densify_train_state(sparse)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-3), back.params, masked(dense.params, masks))
    assert jax.tree.structure(back.opt_state) == jax.tree.structure(dense.opt_state)
    assert back.apply_fn.__self__ == module


def first_kernel(path: str, _: Any) -> bool:
    return path == "first/kernel"


OPTIMIZERS: dict[str, Any] = {
    "adamw": optax.adamw(0.1),
    "MultiSteps": optax.MultiSteps(optax.sgd(0.1, momentum=0.9), 2),
    "masked": optax.masked(optax.adam(0.1), lambda tree: jax.tree.map(lambda _: True, tree)),
    "partition": optax.partition(
        {"a": optax.adam(0.1), "b": optax.sgd(0.1)}, {"first": "a", "second": "b", "BatchNorm_0": "b"}
    ),
    "injected": optax.inject_hyperparams(optax.adam)(0.1),
    "pruned": pruned(optax.adam(0.1), one_shot(0.7), where=first_kernel),
    "packed": optax.chain(pruned(optax.adam(0.1), one_shot(0.7), where=first_kernel, packed=True)),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_states_go_there_and_back(name: str) -> None:
    tx = OPTIMIZERS[name]
    variables = Net().init(jax.random.key(0), X)
    params, opt_state = variables["params"], tx.init(variables["params"])
    if name in ("pruned", "packed"):
        keep = get_mask(opt_state)
        mask = keep["first"]["kernel"]
    else:
        mask = np.random.default_rng(0).random((6, 8)) < 0.3
        keep = {"first": mask}
    params = {**params, "first": {**params["first"], "kernel": params["first"]["kernel"] * mask}}
    state: Any = StateWithStatistics.create(
        apply_fn=Net().apply,
        params=params,
        tx=tx,
        batch_stats=variables["batch_stats"],
        average=jax.tree.map(lambda leaf: 2 * leaf, params),
    ).replace(opt_state=opt_state)
    ones = jax.tree.map(jnp.ones_like, params)
    grads = {**ones, "first": {**ones["first"], "kernel": 1.0 * mask}}
    state = state.apply_gradients(grads=grads)
    sparse, _ = sparsify_train_state(state, keep, sample_input=X, **ALWAYS)
    stored = (int(mask.sum()),)
    assert sparse.params["first"]["kernel"].shape == sparse.average["first"]["kernel"].shape == stored
    back = densify_train_state(sparse)
    jax.tree.map(np.testing.assert_array_equal, jax.tree.leaves(back), jax.tree.leaves(state))
    step = sparse.apply_gradients(grads=jax.tree.map(jnp.ones_like, sparse.params))
    expected = state.apply_gradients(grads=grads)
    got = densify_train_state(step).params
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), got, expected.params)


def test_adafactor_and_foreign_functions_are_refused_by_name() -> None:
    variables = Net().init(jax.random.key(0), X)
    masks = kernel_masks(variables["params"], 0.2)
    tx = optax.adafactor(0.1, min_dim_size_to_factor=2)
    state: Any = StateWithStatistics.create(
        apply_fn=Net().apply, params=variables["params"], tx=tx, batch_stats=variables["batch_stats"], average=None
    )
    with pytest.raises(ValueError, match=r"v_row/first/kernel' has shape \(6,\); expected shape \(6, 8\)"):
        sparsify_train_state(state, masks, sample_input=X, **ALWAYS)
    state = state.replace(apply_fn=lambda *args: None)
    with pytest.raises(TypeError, match="Pass module="):
        sparsify_train_state(state, masks, sample_input=X, **ALWAYS)
    with pytest.raises(TypeError, match=r"Call sparsejax\.nn\.linen\.sparsify\(module"):
        sparsify_train_state(Net(), sample_input=X)
    with pytest.raises(TypeError, match="expected that of a module that sparsify_train_state made"):
        densify_train_state(state)
    with pytest.raises(TypeError, match=r"sparsify_train_state\(state"):
        sparsify(state, variables, sample_input=X)
