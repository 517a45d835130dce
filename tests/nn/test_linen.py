"""``sparsejax.nn.linen`` against linen's own layers under the mask."""

from __future__ import annotations

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from sparsejax import SparsityPattern
from sparsejax.nn.linen import SparseConv, SparseDense

KEY = 0


def mask_of(shape, seed=0):
    return np.random.default_rng(seed).random(shape) < 0.3


def normal(shape, seed=1):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def check_against_dense(dense, sparse_type, x, tolerance=1e-5):
    """Convert, compare outputs and gradients, convert back."""
    params = dense.init(jax.random.key(KEY), x)["params"]
    mask = mask_of(params["kernel"].shape)
    params = {**params, "kernel": params["kernel"] * mask}
    sparse, variables = sparse_type.from_dense(dense, params, mask)
    pattern = sparse.pattern

    def loss(module, rest):
        def run(params, x):
            y = module.apply({"params": params, **rest}, x)
            return jnp.sum(y * normal(y.shape, 5))

        return run

    rest = {"pattern": variables["pattern"]}
    np.testing.assert_allclose(
        jax.jit(sparse.apply)(variables, x),
        dense.apply({"params": params}, x),
        rtol=tolerance,
        atol=tolerance,
    )
    expected, dx_expected = jax.jit(jax.grad(loss(dense, {}), argnums=(0, 1)))(params, x)
    got, dx = jax.jit(jax.grad(loss(sparse, rest), argnums=(0, 1)))(variables["params"], x)
    np.testing.assert_allclose(dx, dx_expected, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(got["kernel"], pattern.gather(expected["kernel"]), rtol=1e-4, atol=1e-4)
    if dense.use_bias:
        np.testing.assert_allclose(got["bias"], expected["bias"], rtol=1e-4, atol=1e-4)
    module, back = sparse.to_dense(variables)
    assert module == dense
    jax.tree.map(np.testing.assert_array_equal, back["params"], params)


@pytest.mark.parametrize("shape", [(5, 6), (2, 3, 6), (6,)])
def test_dense(shape):
    check_against_dense(nn.Dense(4, bias_init=nn.initializers.normal()), SparseDense, normal(shape))


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({"kernel_size": (3, 3)}, (2, 6, 5, 4)),
        ({"kernel_size": (3, 3), "strides": 2, "padding": ((1, 0), (0, 1)), "use_bias": False}, (2, 6, 5, 4)),
        ({"kernel_size": 3, "padding": "CAUSAL", "kernel_dilation": 2}, (2, 9, 4)),
        ({"kernel_size": (3, 3), "feature_group_count": 2, "padding": "CIRCULAR"}, (6, 5, 4)),
    ],
)
def test_conv(options, shape):
    check_against_dense(nn.Conv(6, **options), SparseConv, normal(shape))


def test_initial_numbers_are_those_of_the_dense_modules():
    x = normal((2, 6, 5, 4))
    mask = mask_of((3, 3, 4, 6))
    options = {"bias_init": nn.initializers.normal(), "name": "layer"}
    pattern = SparsityPattern.from_mask(mask)

    def init(module, x):
        class Outer(nn.Module):
            @nn.compact
            def __call__(self, x):
                return module()(x)

        return Outer().init(jax.random.key(KEY), x)["params"]["layer"]

    dense = init(lambda: nn.Conv(6, (3, 3), **options), x)
    sparse = init(lambda: SparseConv(6, (3, 3), pattern=pattern, **options), x)
    np.testing.assert_array_equal(sparse["kernel"], pattern.gather(dense["kernel"]))
    np.testing.assert_array_equal(sparse["bias"], dense["bias"])
    pattern = SparsityPattern.from_mask(mask_of((4, 3)))
    dense = init(lambda: nn.Dense(3, **options), x)
    sparse = init(lambda: SparseDense(3, pattern=pattern, **options), x)
    np.testing.assert_array_equal(sparse["kernel"], pattern.gather(dense["kernel"]))


class Net(nn.Module):
    conv: SparsityPattern
    dense: SparsityPattern

    @nn.compact
    def __call__(self, x):
        x = nn.relu(SparseConv(4, (3, 3), pattern=self.conv, name="conv")(x))
        return SparseDense(3, pattern=self.dense, dtype=jnp.bfloat16, name="dense")(x.mean((1, 2)))


def net(seed=0, nse=(40, 12)):
    conv = SparsityPattern.from_mask(mask_of((3, 3, 2, 4), seed), nse=nse[0])
    return Net(conv, SparsityPattern.from_mask(mask_of((4, 3), seed), nse=nse[1]))


def test_init_apply_and_a_training_step_under_jit():
    model, x = net(), normal((4, 5, 5, 2))
    variables = jax.jit(model.init)(jax.random.key(KEY), x)
    assert set(variables) == {"params", "pattern"}
    assert jax.tree.map(jnp.shape, variables["params"]["conv"]) == {"bias": (4,), "kernel": (40,)}
    assert model.apply(variables, x).dtype == jnp.bfloat16
    tx = optax.adam(1e-2)
    params, pattern = variables["params"], variables["pattern"]
    state = tx.init(params)

    @jax.jit
    def step(params, state, x):
        def loss(params):
            return jnp.mean(model.apply({"params": params, "pattern": pattern}, x) ** 2, dtype=jnp.float32)

        value, grads = jax.value_and_grad(loss)(params)
        updates, state = tx.update(grads, state)
        return optax.apply_updates(params, updates), state, value

    losses = []
    for _ in range(5):
        params, state, value = step(params, state, x)
        losses.append(float(value))
    assert losses[-1] < losses[0]


def test_apply_reads_the_collection_before_the_field():
    x = normal((4, 5, 5, 2))
    model, other = net(0), net(1)
    variables = model.init(jax.random.key(KEY), x)
    expected = model.apply(variables, x)
    np.testing.assert_array_equal(model.apply({"params": variables["params"]}, x), expected)
    np.testing.assert_array_equal(other.apply(variables, x), expected)
    assert not np.array_equal(other.apply({"params": variables["params"]}, x), expected)


def test_serialization_keeps_the_pattern():
    x = normal((4, 5, 5, 2))
    model, other = net(0), net(1)
    variables = model.init(jax.random.key(KEY), x)
    template = other.init(jax.random.key(1), x)
    restored = flax.serialization.from_bytes(template, flax.serialization.to_bytes(variables))
    np.testing.assert_array_equal(other.apply(restored, x), model.apply(variables, x))


def test_lifted_transformations():
    pattern = SparsityPattern.from_mask(mask_of((4, 4)))

    class Deep(nn.Module):
        @nn.compact
        def __call__(self, x):
            layer = nn.remat(SparseDense)(4, pattern=pattern, name="remat")
            return layer(x)

    x = normal((3, 4))
    variables = Deep().init(jax.random.key(KEY), x)
    grads = jax.grad(lambda v: Deep().apply(v, x).sum(), allow_int=True)(variables)
    assert grads["params"]["remat"]["kernel"].shape == (pattern.nse,)


def test_errors_name_what_is_wrong():
    x = normal((2, 6))
    pattern = SparsityPattern.from_mask(np.ones((5, 3), bool))
    with pytest.raises(ValueError, match=r"SparseDense: pattern has shape \(5, 3\); expected shape \(6, 3\)"):
        SparseDense(3, pattern=pattern).init(jax.random.key(KEY), x)
    with pytest.raises(ValueError, match="dot_general has value"):
        SparseDense.from_dense(nn.Dense(3, dot_general=jax.lax.dot_general), {"kernel": jnp.ones((6, 3))})
    with pytest.raises(TypeError, match=r"dense has type Conv; expected linen\.Dense"):
        SparseDense.from_dense(nn.Conv(3, (3,)), {"kernel": jnp.ones((6, 3))})  # pyright: ignore
    with pytest.raises(ValueError, match=r"mask has shape \(3, 6\); expected shape \(6, 3\)"):
        SparseDense.from_dense(nn.Dense(3), {"kernel": jnp.ones((6, 3))}, np.ones((3, 6), bool))
    partitioned = nn.with_partitioning(nn.initializers.lecun_normal(), (None, "x"))
    pattern = SparsityPattern.from_mask(np.ones((6, 3), bool))
    with pytest.raises(ValueError, match="kernel_init has an initializer with axis metadata"):
        SparseDense(3, pattern=pattern, kernel_init=partitioned).init(jax.random.key(KEY), x)


def test_a_masked_convolution_stays_masked():
    allowed = np.tril(np.ones((3, 4, 6), np.float32))
    dense = nn.Conv(6, (3,), mask=allowed)
    x = normal((2, 8, 4))
    params = dense.init(jax.random.key(KEY), x)["params"]
    sparse, variables = SparseConv.from_dense(dense, params)
    np.testing.assert_array_equal(sparse.pattern.mask(), allowed != 0)
    expected = dense.apply({"params": params}, x)
    np.testing.assert_allclose(jax.jit(sparse.apply)(variables, x), expected, rtol=1e-5, atol=1e-5)
    assert sparse.to_dense(variables)[0].mask is allowed
    outside = SparsityPattern.from_mask(np.ones(allowed.shape, bool))
    with pytest.raises(ValueError, match="entries outside the mask"):
        SparseConv(6, (3,), pattern=outside, mask=allowed).init(jax.random.key(KEY), x)
    with pytest.raises(ValueError, match="kernel_size has 3 axes"):
        SparseConv(6, (3, 3, 3), pattern=outside).init(jax.random.key(KEY), normal((2, 3, 3, 3, 4)))
