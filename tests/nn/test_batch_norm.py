"""``sparsejax.nn.BatchNorm`` against ``flax.nnx.BatchNorm``: variables, options, results and gradients."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P

from sparsejax.kernels import Layout
from sparsejax.nn import BatchNorm, norm_act

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
@pytest.mark.parametrize(
    ("shape", "layout"),
    [((6, 5), Layout.BATCH_MINOR), ((3, 5, 5), Layout.ROW_MAJOR), ((4, 5, 3, 5), Layout.BATCH_MINOR)],
)
@pytest.mark.parametrize("masked", [False, True])
def test_output_statistics_and_gradients(options, shape, layout, masked):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal(shape) * 2 + 1, jnp.float32)
    w = jnp.asarray(rng.standard_normal(shape), jnp.float32)
    mask = jnp.asarray(rng.random((*shape[:-1], 1)) < 0.7).at[0].set(True) if masked else None
    theirs, ours = pair(**options)
    ours.layout = layout

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


def composed(norm, x, residual=None, activation="relu"):
    """What ``norm_act`` means, in Flax."""
    y = norm(x) if residual is None else norm(x) + residual
    return nnx.relu(y) if activation == "relu" else y


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("activation", ["relu", "none"])
@pytest.mark.parametrize("options", [{}, {"use_scale": False, "use_bias": False}, {"dtype": jnp.bfloat16}], ids=str)
@pytest.mark.parametrize(("added", "layout"), [(False, Layout.ROW_MAJOR), *((True, layout) for layout in Layout)])
def test_norm_act_is_the_sum_of_its_parts(options, added, layout, activation, mode):
    rng = np.random.default_rng(1)
    dtype = options.get("dtype", jnp.float32)
    x, residual, w = (jnp.asarray(rng.standard_normal((6, 7, 3, 5)), dtype) for _ in range(3))
    theirs, ours = pair(**options)
    ours.layout = layout
    for module in (theirs, ours):
        getattr(module, mode)()
    # Nothing that the rounding of one of them alone moves across 0.
    before = composed(nnx.clone(theirs), x, residual if added else None, "none")
    w = jnp.where(jnp.abs(before) > 0.05, w, 0)

    def loss(module, x, residual, f):
        return (f(module, x, residual if added else None, activation) * w).astype(jnp.float32).sum()

    tolerance = 3e-2 if "dtype" in options else 2e-5
    expected = nnx.grad(loss, argnums=(0, 1, 2))(theirs, x, residual, composed)
    got = nnx.grad(loss, argnums=(0, 1, 2))(ours, x, residual, norm_act)
    assert_same(got, expected, 10 * tolerance)
    assert_same(nnx.state(ours), nnx.state(theirs), tolerance)
    args = (x, residual if added else None, activation)
    assert_same(norm_act(ours, *args), composed(theirs, *args), tolerance)
    assert_same(norm_act(theirs, *args), composed(theirs, *args), tolerance)


def calls(norm, x, residual=None):
    """The activations of the batch norm kernels that ``norm_act`` runs."""
    text = str(jax.make_jaxpr(lambda norm, x: norm_act(nnx.merge(*norm, copy=True), x, residual))(nnx.split(norm), x))
    return [line.split("activation=")[1].split()[0].strip("]") for line in text.split("sparsejax_batch_norm[")[1:]]


def test_what_is_fused():
    x, norm = jnp.ones((4, 3, 5)), BatchNorm(5, rngs=nnx.Rngs(0))
    assert calls(norm, x) == calls(norm, x, 2 * x) == ["relu"]
    assert calls(norm, x, x.astype(jnp.bfloat16)) == calls(norm, x, x[:1]) == ["none"]  # added afterwards
    assert calls(nnx.BatchNorm(5, rngs=nnx.Rngs(0)), x) == calls(BatchNorm(3, axis=1, rngs=nnx.Rngs(0)), x) == []
    norm.eval()
    assert calls(norm, x) == []


@pytest.mark.parametrize(
    "residual", [jnp.full((1, 5), 2.0), jnp.full((8, 3, 5), 0.5, jnp.bfloat16)], ids=["row", "bf16"]
)
def test_a_residual_of_another_shape_or_dtype(residual):
    theirs, ours = pair()
    x = jnp.asarray(np.random.default_rng(0).standard_normal((8, 3, 5)), jnp.float32)
    assert_same(norm_act(ours, x, residual), composed(theirs, x, residual), 2e-5)
    assert_same(nnx.state(ours), nnx.state(theirs), 2e-5)


def test_an_unknown_activation():
    with pytest.raises(ValueError, match="norm_act: activation has value 'gelu'; expected one of 'relu', 'none'"):
        norm_act(nnx.BatchNorm(5, rngs=nnx.Rngs(0)), jnp.ones((2, 5)), activation="gelu")
