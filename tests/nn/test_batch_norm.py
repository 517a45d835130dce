"""``sparsejax.nn.BatchNorm`` against ``flax.nnx.BatchNorm``: variables, options, results and gradients."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P

from sparsejax.nn import BatchNorm

OPTIONS = [
    {},
    {"use_fast_variance": False},
    {"use_scale": False},
    {"use_bias": False, "momentum": 0.5, "epsilon": 1e-2},
    {"use_running_average": True},
    {"axis": 1},
    {"dtype": jnp.bfloat16},
    {"param_dtype": jnp.bfloat16},
]


def pair(features=5, **options):
    """The two modules with the same random variables."""
    modules = [cls(features, rngs=nnx.Rngs(0), **options) for cls in (nnx.BatchNorm, BatchNorm)]
    rng = np.random.default_rng(3)
    for name in ("mean", "var", "scale", "bias"):
        value = rng.uniform(0.5, 2.0, features)
        for module in modules:
            if getattr(module, name) is not None:
                variable = getattr(module, name)
                variable[...] = jnp.asarray(value, variable.dtype)
    return modules


def assert_same(got, expected, tolerance):
    got, expected = jax.tree.leaves(got), jax.tree.leaves(expected)
    assert len(got) == len(expected)
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        np.testing.assert_allclose(np.asarray(a, np.float64), np.asarray(b, np.float64), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("shape", [(6, 5), (3, 5, 5), (4, 5, 3, 5)])
@pytest.mark.parametrize("masked", [False, True])
def test_output_statistics_and_gradients(options, shape, masked):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal(shape) * 2 + 1, jnp.float32)
    w = jnp.asarray(rng.standard_normal(shape), jnp.float32)
    mask = jnp.asarray(rng.random((*shape[:-1], 1)) < 0.7).at[0].set(True) if masked else None
    theirs, ours = pair(**options)

    def loss(module, x):
        return (module(x, mask=mask).astype(jnp.float32) * w).sum()

    tolerance = 3e-2 if "dtype" in options else 2e-5
    expected = nnx.grad(loss, argnums=(0, 1))(theirs, x)
    got = nnx.grad(loss, argnums=(0, 1))(ours, x)
    assert_same(got, expected, 10 * tolerance)
    assert_same(nnx.state(ours), nnx.state(theirs), tolerance)
    assert_same(ours(x, mask=mask), theirs(x, mask=mask), tolerance)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_input_dtypes(dtype):
    with jax.enable_x64(dtype == "float64"):
        x = jnp.asarray(np.random.default_rng(0).standard_normal((8, 3, 5)), dtype)
        theirs, ours = pair()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # Flax writes float64 statistics into float32 variables
            expected = theirs(x)
        assert_same(ours(x), expected, 2e-3 if dtype == "float16" else 1e-5)


def test_the_call_overrides_the_constructor_and_eval_mode_works():
    theirs, ours = pair()
    x = jnp.asarray(np.random.default_rng(0).standard_normal((8, 5)), jnp.float32)
    assert_same(ours(x, use_running_average=True), theirs(x, use_running_average=True), 1e-6)
    for module in (theirs, ours):
        module.eval()
    before = ours.mean[...]
    assert_same(ours(x), theirs(x), 1e-6)
    np.testing.assert_array_equal(ours.mean[...], before)


def test_statistics_over_devices():
    if jax.device_count() < 2:
        pytest.skip("needs two devices")
    x = jnp.asarray(np.random.default_rng(0).standard_normal((8, 5)), jnp.float32)
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    whole = BatchNorm(5, rngs=nnx.Rngs(0))(x)
    sharded = jax.shard_map(
        lambda x: BatchNorm(5, axis_name="data", rngs=nnx.Rngs(0))(x),
        mesh=mesh,
        in_specs=P("data"),
        out_specs=P("data"),
        check_vma=False,
    )(x)
    np.testing.assert_allclose(sharded, whole, rtol=1e-5, atol=1e-6)


def test_no_mode_is_an_error():
    with pytest.raises(ValueError, match="BatchNorm: use_running_average has no value"):
        BatchNorm(5, use_running_average=None, rngs=nnx.Rngs(0))(jnp.ones((2, 5)))
