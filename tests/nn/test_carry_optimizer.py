"""``carry_optimizer``: moments, counters and hyperparameters across ``sparsify`` and ``densify``."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from sparsejax import SparsityPattern, densify, sparsify
from sparsejax.nn import SparseLinear, carry_optimizer, pattern_masks


class Model(nnx.Module):
    """A classifier whose layer names also occur as the end of a longer path."""

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.conv = nnx.Conv(2, 4, (3, 3), rngs=rngs)
        self.inner = nnx.Dict(conv=nnx.Conv(4, 4, (3, 3), use_bias=False, rngs=rngs), norm=nnx.BatchNorm(4, rngs=rngs))
        self.fc = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.inner["norm"](self.inner["conv"](nnx.relu(self.conv(x)))))
        return self.fc(x.mean((1, 2)))


def by_name(params: Any) -> Any:
    return jax.tree.map_with_path(lambda path, _: "adam" if "conv" in str(path) else "sgd", params)


OPTIMIZERS = {
    "adamw": lambda: optax.adamw(1e-2),
    "momentum": lambda: optax.sgd(1e-2, momentum=0.9),
    "inject": lambda: optax.inject_hyperparams(optax.adam)(optax.linear_schedule(1e-2, 1e-3, 10)),
    "multisteps": lambda: optax.MultiSteps(optax.chain(optax.clip(1.0), optax.adam(1e-2)), 2),
    "partition": lambda: optax.partition({"adam": optax.adam(1e-2), "sgd": optax.sgd(0.1, 0.5)}, by_name),
}


@pytest.fixture(scope="module")
def images():
    return jnp.asarray(np.random.default_rng(0).normal(size=(6, 5, 5, 2)), jnp.float32)


@nnx.jit
def step(model, optimizer, x):
    loss, grads = nnx.value_and_grad(lambda m: (m(x) ** 2).mean())(model)
    optimizer.update(model, grads)
    return loss


def masks_of(model):
    rng = np.random.default_rng(1)
    return {
        "conv": rng.random(model.conv.kernel.shape) < 0.3,
        "inner/conv": rng.random(model.inner["conv"].kernel.shape) < 0.2,
    }


def apply_masks(model, masks):
    for layer, mask in ((model.conv, masks["conv"]), (model.inner["conv"], masks["inner/conv"])):
        layer.kernel[...] = layer.kernel[...] * mask


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_goes_on_as_if_nothing_had_happened(name, images):
    dense = Model()
    masks = masks_of(dense)
    apply_masks(dense, masks)
    optimizer = nnx.Optimizer(dense, OPTIMIZERS[name](), wrt=nnx.Param)
    for _ in range(3):  # odd, so that MultiSteps stands in the middle of an accumulation
        step(dense, optimizer, images)
        apply_masks(dense, masks)
    frozen = [np.array(leaf) for leaf in jax.tree.leaves(nnx.state(optimizer))]

    sparse, _ = sparsify(dense, masks, min_sparsity=0.5, policy="always")
    carried = carry_optimizer(optimizer, dense, sparse)
    assert int(carried.step[...]) == 3
    for now, then in zip(jax.tree.leaves(nnx.state(optimizer)), frozen, strict=True):
        np.testing.assert_array_equal(now, then)
    largest = max(leaf.size for leaf in jax.tree.leaves(nnx.state(carried)))
    assert largest < dense.inner["conv"].kernel.size

    step(dense, optimizer, images)
    step(sparse, carried, images)
    apply_masks(dense, masks)
    back = densify(sparse)
    np.testing.assert_allclose(back.fc.bias[...], dense.fc.bias[...], rtol=1e-3, atol=1e-5)
    for a, b in ((back.conv, dense.conv), (back.inner["conv"], dense.inner["conv"]), (back.fc, dense.fc)):
        np.testing.assert_allclose(a.kernel[...], b.kernel[...], rtol=1e-3, atol=1e-5)

    again = carry_optimizer(carried, sparse, back)
    shapes = [jax.tree.map(jnp.shape, nnx.to_pure_dict(nnx.state(o))) for o in (again, optimizer)]
    assert shapes[0] == shapes[1]
    step(back, again, images)  # and it trains


def test_moments_are_gathered_and_scattered(images):
    dense = Model()
    optimizer = nnx.Optimizer(dense, optax.adam(1e-2), wrt=nnx.Param)
    step(dense, optimizer, images)
    masks = masks_of(dense)
    sparse, _ = sparsify(dense, masks, min_sparsity=0.5, policy="always")
    carried = carry_optimizer(optimizer, dense, sparse)
    back = carry_optimizer(carried, sparse, densify(sparse))
    for moment in ("mu", "nu"):
        full, few, restored = (getattr(o.opt_state[0], moment) for o in (optimizer, carried, back))
        expected = full["inner"]["conv"]["kernel"][...]
        pattern = sparse.inner["conv"].pattern
        np.testing.assert_array_equal(few["inner"]["conv"]["kernel"][...], pattern.gather(expected))
        np.testing.assert_array_equal(
            restored["inner"]["conv"]["kernel"][...], np.where(masks["inner/conv"], expected, 0)
        )
        np.testing.assert_array_equal(few["fc"]["kernel"][...], full["fc"]["kernel"][...])
        np.testing.assert_array_equal(few["inner"]["norm"]["scale"][...], full["inner"]["norm"]["scale"][...])
    assert int(carried.opt_state[0].count[...]) == 1


def test_from_one_pattern_to_another():
    def layer(mask):
        pattern = SparsityPattern.from_mask(np.array(mask, bool).reshape(2, 2))
        return SparseLinear(2, 2, pattern=pattern, use_bias=False, rngs=nnx.Rngs(0))

    old, new = layer([1, 1, 1, 0]), layer([1, 0, 1, 1])
    optimizer = nnx.Optimizer(old, optax.sgd(0.1, momentum=0.9), wrt=nnx.Param)
    moments = old.pattern.gather(jnp.array([[1.0, 2.0], [3.0, 4.0]]))
    optimizer.opt_state[0].trace["kernel"][...] = moments
    carried = carry_optimizer(optimizer, old, new)
    values = new.pattern.scatter(carried.opt_state[0].trace["kernel"][...])
    assert values.tolist() == [[1.0, 0.0], [3.0, 0.0]]


def test_pruning_masks_become_all_true(images):
    from sparsejax.pruning import get_mask, one_shot, pruned

    dense = Model()
    optimizer = nnx.Optimizer(dense, pruned(optax.adam(1e-2), one_shot(0.8)), wrt=nnx.Param)
    step(dense, optimizer, images)
    sparse, _ = sparsify(dense, get_mask(optimizer.opt_state), min_sparsity=0.5, policy="always")
    assert "inner/conv" in pattern_masks(sparse)
    carried = carry_optimizer(optimizer, dense, sparse)
    assert bool(get_mask(carried.opt_state)["inner"]["conv"]["kernel"].get_value().all())
    before = sparse.inner["conv"].kernel[...]
    step(sparse, carried, images)
    assert not np.array_equal(sparse.inner["conv"].kernel[...], before)


def test_a_single_layer_as_the_model():
    dense = nnx.Linear(4, 4, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(dense, optax.adam(1e-2), wrt=nnx.Param)
    sparse, _ = sparsify(dense, {"": np.eye(4, dtype=bool)}, min_sparsity=0.5, policy="always")
    assert carry_optimizer(optimizer, dense, sparse).opt_state[0].mu["kernel"].shape == (4,)


def test_placeholders_of_unfactored_adafactor_are_kept():
    dense = nnx.Linear(4, 4, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(dense, optax.adafactor(1e-2), wrt=nnx.Param)
    sparse, _ = sparsify(dense, min_sparsity=0.0, policy="always")
    carried = carry_optimizer(optimizer, dense, sparse)
    fresh = nnx.Optimizer(sparse, optax.adafactor(1e-2), wrt=nnx.Param)
    shapes = [jax.tree.map(jnp.shape, nnx.to_pure_dict(nnx.state(o))) for o in (carried, fresh)]
    assert shapes[0] == shapes[1]


def test_errors_name_what_is_wrong():
    dense = nnx.Linear(4, 4, rngs=nnx.Rngs(0))
    sparse, _ = sparsify(dense, min_sparsity=0.0, policy="always")
    factored = nnx.Optimizer(dense, optax.adafactor(1e-2, min_dim_size_to_factor=2), wrt=nnx.Param)
    with pytest.raises(ValueError, match=r"state '.*kernel' has shape \(4,\); expected shape \(4, 4\)"):
        carry_optimizer(factored, dense, sparse)
    muon = nnx.Optimizer(dense, optax.contrib.muon(1e-2), wrt=nnx.Param)
    with pytest.raises(ValueError, match=r"carry_optimizer: state '.*kernel' has .*dense_view\(tx, model\)"):
        carry_optimizer(muon, dense, sparse)
    plain = nnx.Optimizer(dense, optax.sgd(1e-2), wrt=nnx.Param)
    with pytest.raises(ValueError, match="new_model has other layers than old_model"):
        carry_optimizer(plain, dense, nnx.List([sparse]))
    with pytest.raises(TypeError, match=r"optimizer has type ModelAndOptimizer; expected an nnx\.Optimizer"):
        carry_optimizer(nnx.ModelAndOptimizer(dense, optax.sgd(1e-2)), dense, sparse)
