"""Sparse LinearGeneral, Einsum, ConvTranspose and LoRALinear against their masked dense counterparts."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P

from sparsejax import SparsityPattern
from sparsejax.nn import (
    SparseConv,
    SparseConvTranspose,
    SparseEinsum,
    SparseLinear,
    SparseLinearGeneral,
    SparseLoRALinear,
)


def general(*sizes: Any, **options: Any) -> tuple[type, nnx.Module]:
    return SparseLinearGeneral, nnx.LinearGeneral(*sizes, rngs=nnx.Rngs(0), **options)


def einsum(*arguments: Any) -> tuple[type, nnx.Module]:
    return SparseEinsum, nnx.Einsum(*arguments, rngs=nnx.Rngs(0))


def transpose(window: tuple[int, ...], **options: Any) -> tuple[type, nnx.Module]:
    return SparseConvTranspose, nnx.ConvTranspose(3, 5, window, rngs=nnx.Rngs(0), **options)


CASES: dict[str, tuple[tuple[type, nnx.Module], tuple[int, ...]]] = {
    "general-to-heads": (general(6, (2, 5)), (3, 4, 6)),
    "general-inner-axes": (general((2, 3), (4, 5), axis=(1, -1)), (7, 2, 3)),
    "general-outer-axes": (general((2, 3), 4, axis=(-1, 0), use_bias=False), (2, 6, 7, 3)),
    "general-one-example": (general((2, 3), 4, axis=(-2, -1)), (2, 3)),
    "einsum-linear": (einsum("...i,io->...o", (4, 5), (5,)), (2, 3, 4)),
    "einsum-to-heads": (einsum("bti,ihd->bhtd", (4, 2, 3), (2, 3)), (2, 5, 4)),
    "einsum-from-heads": (einsum("bhtd,hdo->bto", (2, 3, 6), (6,)), (4, 2, 5, 3)),
    "einsum-kernel-transposed": (einsum("...hd,ohd->...o", (6, 2, 3), None), (4, 5, 2, 3)),
    "einsum-mixed-result": (einsum("bti,ihd->tdbh", (4, 2, 3), (3, 2)), (2, 5, 4)),
    "transpose-1d": (transpose((3,)), (2, 6, 3)),
    "transpose-stride-2": (transpose((2, 2), strides=2), (2, 6, 5, 3)),
    "transpose-valid": (transpose((3, 3), strides=(2, 1), padding="VALID"), (2, 6, 5, 3)),
    "transpose-kernel": (transpose((4, 3), strides=2, transpose_kernel=True), (2, 6, 5, 3)),
    "transpose-circular": (transpose((3, 3), strides=2, padding="CIRCULAR"), (2, 6, 5, 3)),
    "transpose-kernel-circular": (
        transpose((3, 3), strides=3, padding="CIRCULAR", transpose_kernel=True),
        (2, 6, 5, 3),
    ),
    "transpose-numbers": (transpose((3,), strides=2, padding=1, use_bias=False), (2, 6, 3)),
    "transpose-dilated": (transpose((3, 3), kernel_dilation=2, padding=((1, 2), (0, 1))), (2, 6, 5, 3)),
    "transpose-stride-above-window": (transpose((2, 2), strides=4), (2, 6, 5, 3)),
    "transpose-two-batch-axes": (transpose((3, 3), strides=2), (2, 2, 6, 5, 3)),
    "transpose-one-example": (transpose((3, 3), strides=2), (6, 5, 3)),
    "transpose-empty-batch": (transpose((3, 3), strides=2), (0, 6, 5, 3)),
    "lora": ((SparseLoRALinear, nnx.LoRALinear(4, 6, lora_rank=2, rngs=nnx.Rngs(0))), (3, 4)),
}


def masked_pair(name: str) -> tuple[Any, Any, np.ndarray, jax.Array]:
    """A sparse layer, the dense one with zeros where the mask is off, the mask and an input."""
    (kind, dense), shape = CASES[name]
    rng = np.random.default_rng(1)
    mask = rng.random(dense.kernel.shape) < 0.4
    masked = nnx.clone(dense)
    if masked.bias is not None:
        masked.bias.set_value(jnp.asarray(rng.normal(size=masked.bias.shape), jnp.float32))
    sparse = kind.from_dense(masked, mask)
    masked.kernel.set_value(masked.kernel[...] * mask)
    return sparse, masked, mask, jax.random.normal(jax.random.key(0), shape)


def loss(layer: Any, x: jax.Array) -> jax.Array:
    return jnp.sin(layer(x)).sum()


@pytest.mark.parametrize("name", CASES)
def test_equal_to_the_masked_dense_layer_forward_and_backward(name: str) -> None:
    sparse, masked, _, x = masked_pair(name)
    np.testing.assert_allclose(sparse(x), masked(x), rtol=2e-5, atol=2e-5)
    got, got_x = nnx.grad(loss, argnums=(0, 1))(sparse, x)
    expected, expected_x = nnx.grad(loss, argnums=(0, 1))(masked, x)
    np.testing.assert_allclose(got_x, expected_x, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(got["kernel"][...], sparse.gather(expected["kernel"][...]), rtol=1e-4, atol=1e-4)
    if masked.bias is not None:
        np.testing.assert_allclose(got["bias"][...], expected["bias"][...], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_to_dense_and_stored_mask_give_the_masked_kernel_back(name: str) -> None:
    sparse, masked, mask, x = masked_pair(name)
    dense = sparse.to_dense()
    assert type(dense) is type(masked)
    np.testing.assert_array_equal(dense.kernel[...], masked.kernel[...])
    np.testing.assert_array_equal(sparse.stored_mask(), mask)
    np.testing.assert_allclose(dense(x), masked(x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["general-inner-axes", "einsum-to-heads", "transpose-stride-2", "lora"])
def test_jit_vmap_remat_and_bfloat16(name: str) -> None:
    sparse, masked, _, x = masked_pair(name)
    np.testing.assert_allclose(nnx.jit(lambda m, x: m(x))(sparse, x), masked(x), rtol=1e-4, atol=1e-4)
    batches = jnp.stack([x, 2 * x])
    mapped = nnx.vmap(lambda m, x: m(x), in_axes=(None, 0))(sparse, batches)
    np.testing.assert_allclose(mapped[1], masked(2 * x), rtol=1e-4, atol=1e-4)
    again = nnx.grad(nnx.remat(loss))(sparse, x)["kernel"][...]
    np.testing.assert_allclose(again, nnx.grad(loss)(sparse, x)["kernel"][...], rtol=1e-5, atol=1e-5)
    sparse.dtype = masked.dtype = jnp.bfloat16
    assert sparse(x).dtype == masked(x).dtype
    np.testing.assert_allclose(sparse(x).astype(jnp.float32), masked(x).astype(jnp.float32), rtol=0.05, atol=0.05)


def test_initial_numbers_are_those_of_the_dense_layers() -> None:
    full = SparsityPattern.from_mask(np.ones((6, 10), bool))
    sparse: Any = SparseLinearGeneral((2, 3), (2, 5), axis=(-2, -1), pattern=full, rngs=nnx.Rngs(1))
    dense: Any = nnx.LinearGeneral((2, 3), (2, 5), axis=(-2, -1), rngs=nnx.Rngs(1))
    np.testing.assert_array_equal(sparse.scatter(sparse.kernel[...]), dense.kernel[...])
    assert sparse.bias.shape == dense.bias.shape
    arguments = ("bhtd,ohd->bto", (6, 2, 3), (6,))
    square = SparsityPattern.from_mask(np.ones((6, 6), bool))
    sparse = SparseEinsum(*arguments, pattern=square, rngs=nnx.Rngs(1))
    dense = nnx.Einsum(*arguments, rngs=nnx.Rngs(1))
    np.testing.assert_array_equal(sparse.scatter(sparse.kernel[...]), dense.kernel[...])
    window = SparsityPattern.from_mask(np.ones((3, 3, 2, 4), bool))
    options: dict[str, Any] = {"strides": 2, "transpose_kernel": True, "rngs": nnx.Rngs(1)}
    sparse = SparseConvTranspose(2, 4, (3, 3), pattern=window, **options)
    dense = nnx.ConvTranspose(2, 4, (3, 3), **options | {"rngs": nnx.Rngs(1)})
    np.testing.assert_array_equal(sparse.scatter(sparse.kernel[...]), dense.kernel[...])


@pytest.mark.parametrize(
    ("dense", "words"),
    [
        (nnx.LinearGeneral(2, 3, batch_axis={0: 4}, rngs=nnx.Rngs(0)), "batch_axis has value {0: 4}"),
        (nnx.Einsum("bi,bio->bo", (4, 2, 3), None, rngs=nnx.Rngs(0)), "einsum_str has value 'bi,bio->bo'"),
        (nnx.Einsum("bi,io->b", (2, 3), None, rngs=nnx.Rngs(0)), "einsum_str has value 'bi,io->b'"),
        (nnx.ConvTranspose(2, 3, (3, 3, 3), rngs=nnx.Rngs(0)), "kernel_size has 3 axes"),
    ],
)
def test_what_has_no_sparse_form_is_refused_with_the_reason(dense: Any, words: str) -> None:
    kinds = {
        nnx.LinearGeneral: SparseLinearGeneral,
        nnx.Einsum: SparseEinsum,
        nnx.ConvTranspose: SparseConvTranspose,
    }
    with pytest.raises(ValueError, match=words.replace("{", r"\{")):
        kinds[type(dense)].from_dense(dense, np.ones(dense.kernel.shape, bool))


PER_CLASS = {
    "linear": lambda: (SparseLinear, nnx.Linear(4, 6, rngs=nnx.Rngs(0)), (4, 4)),
    "conv": lambda: (SparseConv, nnx.Conv(3, 5, (2, 2), rngs=nnx.Rngs(0)), (4, 3, 3, 3)),
    "general": lambda: (SparseLinearGeneral, nnx.LinearGeneral(4, (2, 3), rngs=nnx.Rngs(0)), (4, 4)),
    "einsum": lambda: (SparseEinsum, nnx.Einsum("bi,ihd->bhd", (4, 2, 3), (2, 3), rngs=nnx.Rngs(0)), (4, 4)),
    "transpose": lambda: (SparseConvTranspose, nnx.ConvTranspose(3, 5, (2,), rngs=nnx.Rngs(0)), (4, 3, 3)),
    "lora": lambda: (SparseLoRALinear, nnx.LoRALinear(4, 6, lora_rank=2, rngs=nnx.Rngs(0)), (4, 4)),
}


@pytest.mark.parametrize("name", PER_CLASS)
def test_gradients_under_shard_map_are_those_of_the_whole_batch(name: str) -> None:
    kind, dense, shape = PER_CLASS[name]()
    sparse = kind.from_dense(dense, np.random.default_rng(0).random(dense.kernel.shape) < 0.4)
    x = jax.random.normal(jax.random.key(0), shape)
    graph, *states = nnx.split(sparse, nnx.Param, ...)
    params, rest = map(nnx.as_pure, states)

    def gradient(params: Any, rest: Any, x: jax.Array) -> Any:
        return jax.grad(lambda params: loss(nnx.merge(graph, params, rest), x))(params)

    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharded = jax.jit(jax.shard_map(gradient, mesh=mesh, in_specs=(P(), P(), P("data")), out_specs=P()))
    for got, expected in zip(*map(jax.tree.leaves, (sharded(params, rest, x), gradient(params, rest, x))), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
