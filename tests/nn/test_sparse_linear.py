"""``SparseLinear`` against ``nnx.Linear`` under the mask."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sparsejax import SparsityPattern
from sparsejax.nn import Pattern, SparseLinear

TOLERANCE = {"float32": 1e-5, "float64": 1e-12, "bfloat16": 2e-2}


def mask_of(shape, density=0.3, seed=0):
    return np.random.default_rng(seed).random(shape) < density


def normal(shape, dtype="float32", seed=1):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def masked_dense(mask, **options):
    dense = nnx.Linear(*mask.shape, bias_init=nnx.initializers.normal(), rngs=nnx.Rngs(3), **options)
    dense.kernel[...] = dense.kernel[...] * mask
    return dense


@pytest.mark.parametrize(
    ("dtype", "use_bias", "lead"),
    [
        ("float32", True, (5,)),
        ("float32", False, (5,)),
        ("float32", True, ()),
        ("float32", True, (0,)),
        ("float32", True, (2, 3)),
        ("float64", True, (5,)),
        ("bfloat16", True, (5,)),
    ],
)
def test_forward_and_gradients_equal_the_dense_layer(dtype, use_bias, lead):
    with jax.enable_x64(dtype == "float64"):
        mask = mask_of((9, 7))
        dense = masked_dense(mask, use_bias=use_bias, dtype=dtype, param_dtype=dtype)
        sparse = SparseLinear.from_dense(dense, mask)
        x = normal((*lead, 9), dtype)
        target = normal((*lead, 7), dtype, 2)

        def run(layer, x):
            def loss(layer, x):
                y = layer(x)
                return jnp.sum(y * target), y

            return nnx.jit(nnx.grad(loss, argnums=(0, 1), has_aux=True))(layer, x)

        (d_dense, dx_dense), y_dense = run(dense, x)
        (d_sparse, dx_sparse), y_sparse = run(sparse, x)
        tolerance = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}

        def close(a, b):
            assert a.dtype == b.dtype == dtype
            assert a.shape == b.shape
            np.testing.assert_allclose(np.asarray(a, np.float64), np.asarray(b, np.float64), **tolerance)

        close(y_sparse, y_dense)
        close(dx_sparse, dx_dense)
        close(d_sparse["kernel"][...], sparse.pattern.gather(d_dense["kernel"][...]))
        assert ("bias" in d_sparse) == use_bias
        if use_bias:
            close(d_sparse["bias"][...], d_dense["bias"][...])


@pytest.mark.parametrize(
    ("dtype", "param_dtype", "x_dtype", "expected"),
    [
        (None, "float32", "bfloat16", "float32"),
        (None, "bfloat16", "bfloat16", "bfloat16"),
        ("bfloat16", "float32", "float32", "bfloat16"),
        (None, "float32", "int32", "float32"),
    ],
)
def test_dtype_promotion_is_that_of_flax(dtype, param_dtype, x_dtype, expected):
    mask = mask_of((4, 5))
    dense = masked_dense(mask, dtype=dtype, param_dtype=param_dtype)
    sparse = SparseLinear.from_dense(dense)
    x = jnp.ones((2, 4), x_dtype)
    assert dense(x).dtype == sparse(x).dtype == expected
    assert sparse.kernel.dtype == param_dtype


def test_initial_numbers_are_those_of_the_dense_layer():
    mask = mask_of((6, 8))
    pattern = SparsityPattern.from_mask(mask)
    options = {"bias_init": nnx.initializers.normal()}
    dense = nnx.Linear(6, 8, rngs=nnx.Rngs(11), **options)
    rngs = nnx.Rngs(11)
    sparse = SparseLinear(6, 8, pattern=pattern, rngs=rngs, **options)
    np.testing.assert_array_equal(sparse.kernel[...], pattern.gather(dense.kernel[...]))
    np.testing.assert_array_equal(sparse.bias[...], dense.bias[...])
    assert rngs.params.count[...] == 2
    assert SparseLinear(6, 8, pattern=pattern, use_bias=False, rngs=rngs).bias is None
    assert rngs.params.count[...] == 3


def test_vmap_over_inputs_and_over_layers():
    mask = mask_of((6, 4))
    sparse = SparseLinear.from_dense(masked_dense(mask), mask)
    x = normal((3, 5, 6))
    mapped = nnx.vmap(lambda layer, x: layer(x), in_axes=(None, 0))(sparse, x)
    np.testing.assert_allclose(mapped, sparse(x), rtol=1e-6)

    pattern = SparsityPattern.from_mask(mask)
    make = nnx.vmap(lambda key: SparseLinear(6, 4, pattern=pattern, rngs=nnx.Rngs(key)))
    stacked = make(jax.random.split(jax.random.key(1), 3))
    assert stacked.kernel.shape == (3, pattern.nse)
    several = nnx.vmap(lambda layer, x: layer(x))(stacked, x)
    one = SparseLinear(6, 4, pattern=pattern, rngs=nnx.Rngs(jax.random.split(jax.random.key(1), 3)[2]))
    np.testing.assert_allclose(several[2], one(x[2]), rtol=1e-5, atol=1e-6)


def test_from_dense_and_to_dense_keep_everything():
    mask = mask_of((5, 3))
    dense = masked_dense(
        mask,
        dtype=jnp.float32,
        precision="highest",
        kernel_metadata={"tag": "k"},
        bias_metadata={"tag": "b"},
    )
    dense.kernel[...] = dense.kernel[...].at[tuple(np.argwhere(mask)[0])].set(0.0)  # stored, and exactly zero
    sparse = SparseLinear.from_dense(dense, mask)
    assert sparse.pattern.nse == mask.sum()
    assert SparseLinear.from_dense(dense).pattern.nse == mask.sum() - 1
    back = sparse.to_dense()
    assert type(back) is nnx.Linear
    for name in ("in_features", "out_features", "use_bias", "dtype", "param_dtype", "precision"):
        assert getattr(back, name) == getattr(sparse, name) == getattr(dense, name)
    np.testing.assert_array_equal(back.kernel[...], dense.kernel[...])
    np.testing.assert_array_equal(back.bias[...], dense.bias[...])
    assert back.kernel.tag == sparse.kernel.tag == "k"
    assert back.bias.tag == "b"
    sparse.bias[...] = jnp.ones(3)
    assert not np.array_equal(back.bias[...], sparse.bias[...])  # no variable is shared
    assert not np.array_equal(dense.bias[...], sparse.bias[...])


def test_weights_outside_the_mask_are_dropped():
    dense = nnx.Linear(4, 4, rngs=nnx.Rngs(0))
    sparse = SparseLinear.from_dense(dense, np.eye(4, dtype=bool))
    np.testing.assert_array_equal(sparse.to_dense().kernel[...], dense.kernel[...] * np.eye(4))


def test_variable_types_survive():
    class Frozen(nnx.Param):
        pass

    dense = nnx.Linear(3, 3, rngs=nnx.Rngs(0))
    dense.kernel = Frozen(dense.kernel[...])
    sparse = SparseLinear.from_dense(dense)
    assert type(sparse.kernel) is Frozen
    assert type(sparse.to_dense().kernel) is Frozen
    assert type(sparse.topology) is Pattern


def test_repr_says_shape_sparsity_and_nse():
    sparse = SparseLinear.from_dense(nnx.Linear(4, 4, rngs=nnx.Rngs(0)), np.eye(4, dtype=bool))
    text = (
        "SparseLinear(in_features=4, out_features=4, use_bias=True, "
        "pattern=SparsityPattern(shape=(4, 4), nse=4, sparsity=0.75))"
    )
    assert repr(sparse) == text
    assert text in repr(nnx.List([sparse]))


class Doubled(nnx.Linear):
    def __call__(self, inputs):
        return 2 * super().__call__(inputs)


def broken(**changes):
    dense = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    for name, value in changes.items():
        setattr(dense, name, value)
    return dense


@pytest.mark.parametrize(
    ("dense", "mask", "message"),
    [
        (Doubled(3, 2, rngs=nnx.Rngs(0)), None, "layer has type Doubled; expected nnx.Linear"),
        (broken(dot_general=lambda *a, **k: 0), None, "dot_general has value"),
        (broken(preferred_element_type=jnp.float32), None, "preferred_element_type has value"),
        (broken(colour="red"), None, r"layer has attributes \['colour'\]"),
        (broken(dtype=jnp.float16), None, "dtype has value float16; expected float32, float64 or bfloat16"),
        (broken(in_features=4), None, r"kernel has shape \(3, 2\); expected shape \(4, 2\)"),
        (broken(), np.ones((2, 3), bool), r"mask has shape \(2, 3\); expected shape \(3, 2\)"),
        (broken(), np.ones((3, 2)), "mask has dtype float64; expected dtype bool"),
    ],
)
def test_from_dense_refuses_by_name(dense, mask, message):
    with pytest.raises((ValueError, TypeError), match=r"^SparseLinear\.from_dense: " + message):
        SparseLinear.from_dense(dense, mask)


def test_sharding_metadata_is_refused():
    mesh = jax.make_mesh((1,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    with jax.set_mesh(mesh):
        init = nnx.with_partitioning(nnx.initializers.lecun_normal(), (None, "x"))
        dense = nnx.Linear(2, 2, kernel_init=init, rngs=nnx.Rngs(0))
        with pytest.raises(ValueError, match="kernel has sharding"):
            SparseLinear.from_dense(dense)


def test_constructor_and_call_refuse_by_name():
    pattern = SparsityPattern.from_mask(np.ones((3, 2), bool))
    with pytest.raises(ValueError, match=r"SparseLinear: pattern has shape \(3, 2\); expected shape \(2, 3\)"):
        SparseLinear(2, 3, pattern=pattern, rngs=nnx.Rngs(0))
    with pytest.raises(TypeError, match="SparseLinear: pattern has type ndarray; expected a SparsityPattern"):
        SparseLinear(2, 3, pattern=np.ones((2, 3), bool), rngs=nnx.Rngs(0))  # pyright: ignore
    with pytest.raises(ValueError, match=r"x has shape \(1, 4\)"):
        SparseLinear(3, 2, pattern=pattern, rngs=nnx.Rngs(0))(jnp.ones((1, 4)))
