"""``SparseConv`` against ``nnx.Conv`` under the mask."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sparsejax import SparsityPattern
from sparsejax.nn import SparseConv

TOLERANCE = {"float32": 1e-5, "float64": 1e-12, "bfloat16": 3e-2}

# kernel_size, input shape, options
CASES = {
    "plain": ((3, 3), (2, 7, 6, 4), {}),
    "no_bias": ((3, 3), (2, 7, 6, 4), {"use_bias": False}),
    "strided": ((3, 3), (2, 7, 8, 4), {"strides": (2, 3)}),
    "strides_none": ((2, 3), (2, 7, 8, 4), {"strides": None, "kernel_dilation": None}),
    "valid": ((3, 2), (2, 7, 6, 4), {"padding": "VALID"}),
    "pairs": ((3, 3), (2, 7, 6, 4), {"padding": ((1, 0), (2, 1)), "strides": 2}),
    "number": ((3, 3), (2, 7, 6, 4), {"padding": 1}),
    "circular": ((3, 4), (2, 7, 6, 4), {"padding": "CIRCULAR", "kernel_dilation": (2, 1)}),
    "kernel_dilation": ((3, 3), (2, 9, 8, 4), {"kernel_dilation": 2}),
    "input_dilation": ((3, 3), (2, 5, 4, 4), {"input_dilation": (2, 1), "padding": 1}),
    "groups": ((3, 3), (2, 7, 6, 4), {"feature_group_count": 2}),
    "depthwise": ((3, 3), (2, 7, 6, 4), {"feature_group_count": 4, "out_features": 8}),
    "one_axis": (3, (2, 9, 4), {}),
    "causal": ((3,), (2, 9, 4), {"padding": "CAUSAL", "kernel_dilation": 2}),
    "no_batch_axis": ((3, 3), (7, 6, 4), {}),
    "two_batch_axes": ((3, 3), (2, 3, 7, 6, 4), {}),
    "empty_batch": ((3, 3), (0, 7, 6, 4), {}),
}


def pair(kernel_size, options, dtype="float32", seed=0):
    """A masked dense layer and its sparse form."""
    options = {"out_features": 6, "param_dtype": dtype, "bias_init": nnx.initializers.normal()} | options
    dense = nnx.Conv(4, kernel_size=kernel_size, rngs=nnx.Rngs(seed), **options)
    mask = np.random.default_rng(seed).random(dense.kernel_shape) < 0.3
    dense.kernel[...] = dense.kernel[...] * mask
    return dense, SparseConv.from_dense(dense, mask)


def normal(shape, dtype="float32", seed=1):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def compare(dense, sparse, x, tolerance):
    def run(layer):
        def loss(layer, x):
            y = layer(x)
            return jnp.sum(y * normal(y.shape, y.dtype)), y

        return nnx.jit(nnx.grad(loss, argnums=(0, 1), has_aux=True))(layer, x)

    (d_dense, dx_dense), y_dense = run(dense)
    (d_sparse, dx_sparse), y_sparse = run(sparse)
    results = [(y_sparse, y_dense), (dx_sparse, dx_dense)]
    results += [(d_sparse["kernel"][...], sparse.pattern.gather(d_dense["kernel"][...]))]
    if dense.use_bias:
        results += [(d_sparse["bias"][...], d_dense["bias"][...])]
    for got, expected in results:
        assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
        scale = float(jnp.max(jnp.abs(expected), initial=1.0))
        np.testing.assert_allclose(
            np.asarray(got, np.float64), np.asarray(expected, np.float64), atol=tolerance * scale, rtol=0
        )


@pytest.mark.parametrize("case", CASES)
def test_forward_and_gradients_equal_the_dense_layer(case):
    kernel_size, shape, options = CASES[case]
    dense, sparse = pair(kernel_size, options)
    compare(dense, sparse, normal(shape), TOLERANCE["float32"])


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_other_dtypes(dtype):
    with jax.enable_x64(dtype == "float64"):
        dense, sparse = pair((3, 3), {}, dtype)
        compare(dense, sparse, normal((3, 7, 6, 4), dtype), TOLERANCE[dtype])


def test_initial_numbers_are_those_of_the_dense_layer():
    options = {"feature_group_count": 2, "bias_init": nnx.initializers.normal()}
    dense = nnx.Conv(4, 6, (3, 3), rngs=nnx.Rngs(5), **options)
    pattern = SparsityPattern.from_mask(np.random.default_rng(0).random(dense.kernel_shape) < 0.2)
    sparse = SparseConv(4, 6, (3, 3), pattern=pattern, rngs=nnx.Rngs(5), **options)
    np.testing.assert_array_equal(sparse.kernel[...], pattern.gather(dense.kernel[...]))
    np.testing.assert_array_equal(sparse.bias[...], dense.bias[...])
    assert sparse.kernel_shape == dense.kernel_shape


def test_vmap_equals_a_larger_batch():
    _, sparse = pair((3, 3), {})
    x = normal((3, 2, 5, 6, 4))
    mapped = nnx.vmap(lambda layer, x: layer(x), in_axes=(None, 0))(sparse, x)
    np.testing.assert_allclose(mapped, sparse(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", ["plain", "pairs", "depthwise", "causal", "input_dilation", "one_axis"])
def test_to_dense_keeps_every_option(case):
    kernel_size, _, options = CASES[case]
    dense, sparse = pair(kernel_size, options)
    back = sparse.to_dense()
    assert type(back) is nnx.Conv
    assert vars(back).keys() == vars(dense).keys()
    for name in vars(dense).keys() - {"kernel", "bias", "_pytree__state", "_pytree__nodes"}:
        assert getattr(back, name) == getattr(dense, name), name
    np.testing.assert_array_equal(back.kernel[...], dense.kernel[...])
    np.testing.assert_array_equal(back.bias[...], dense.bias[...])


def test_a_masked_convolution_stays_masked():
    allowed = np.tril(np.ones((3, 4, 6))).astype(np.float32)
    dense = nnx.Conv(4, 6, (3,), mask=jnp.asarray(allowed), rngs=nnx.Rngs(0))
    wanted = np.random.default_rng(0).random(allowed.shape) < 0.5
    sparse = SparseConv.from_dense(dense, wanted)
    np.testing.assert_array_equal(sparse.pattern.mask(), wanted & (allowed != 0))
    x = normal((2, 8, 4))
    np.testing.assert_allclose(SparseConv.from_dense(dense)(x), dense(x), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(sparse.to_dense().mask, allowed)
    outside = SparsityPattern.from_mask(np.ones_like(wanted))
    with pytest.raises(ValueError, match=r"pattern has \d+ entries outside the mask"):
        SparseConv(4, 6, 3, pattern=outside, mask=allowed, rngs=nnx.Rngs(0))
    dense.mask = jnp.asarray(allowed) / 2
    with pytest.raises(ValueError, match="mask of the layer has values other than 0 and 1"):
        SparseConv.from_dense(dense)


def test_repr_says_shape_sparsity_and_nse():
    _, sparse = pair((3, 3), {"strides": 2})
    assert repr(sparse).startswith("SparseConv(in_features=4, out_features=6, kernel_size=(3, 3), strides=2, ")
    assert f"shape=(3, 3, 4, 6), nse={sparse.pattern.nse}, sparsity=" in repr(sparse)


@pytest.mark.parametrize(
    ("kernel_size", "options", "message"),
    [
        (
            (3, 3, 3),
            {},
            "kernel_size has 3 axes; expected one or two. Convolutions over three axes stay dense",
        ),
        (
            (3, 3),
            {"padding": "REFLECT"},
            "padding has value 'REFLECT'; expected SAME, VALID, CIRCULAR, CAUSAL",
        ),
        ((3, 3), {"padding": "CAUSAL"}, "padding has value 'CAUSAL' with 2 spatial axes"),
        ((3, 3), {"padding": ((1, 1),)}, "padding has value"),
        ((3, 3), {"strides": 0}, "strides has value 0"),
        ((3, 3), {"kernel_dilation": (1, 1, 1)}, "kernel_dilation has value"),
        ((3, 3), {"conv_general_dilated": lambda *a, **k: 0}, "conv_general_dilated has value"),
        ((3, 3), {"preferred_element_type": jnp.float32}, "preferred_element_type has value"),
        ((3, 3), {"feature_group_count": 3}, "feature_group_count has value 3; expected a positive divisor"),
    ],
)
def test_from_dense_refuses_by_name(kernel_size, options, message):
    dense = nnx.Conv(4, 6, kernel_size, rngs=nnx.Rngs(0), **options)
    with pytest.raises(ValueError, match=r"^SparseConv\.from_dense: " + message):
        SparseConv.from_dense(dense)


def test_constructor_refuses_a_pattern_of_another_shape():
    pattern = SparsityPattern.from_mask(np.ones((3, 3, 4, 6), bool))
    expected = r"SparseConv: pattern has shape \(3, 3, 4, 6\); expected shape \(3, 3, 2, 6\)"
    with pytest.raises(ValueError, match=expected):
        SparseConv(4, 6, (3, 3), pattern=pattern, feature_group_count=2, rngs=nnx.Rngs(0))
