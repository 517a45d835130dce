"""``sparsify`` with inputs that the model or one of its layers does not take, and with models that are none."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from flax.training.train_state import TrainState

from sparsejax import SparsityPattern, densify, sparsify
from sparsejax.nn import (
    SparseConv,
    SparseConvTranspose,
    SparseEinsum,
    SparseLinear,
    SparseLinearGeneral,
    pattern_masks,
    record_inputs,
)
from sparsejax.nn import linen as sparse_linen


class Net(nnx.Module):
    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.head = nnx.Dict(fc=nnx.Linear(8 * 8 * 4, 5, rngs=rngs))

    def __call__(self, x: jax.Array, scale: jax.Array | float = 1.0, *, double: bool = False) -> jax.Array:
        x = nnx.relu(self.norm(self.conv(x))) * scale
        y = self.head.fc(x.reshape(x.shape[0], -1))
        return 2 * y if double else y


BAD_SHAPES = {
    (8, 8, 3): r"layer 'head/fc': .* has shape \(8, 32\); expected last axis 256, the layer's input features",
    (2, 3): r"layer 'conv': .* has shape \(2, 3\); expected last axis 3 after 2 spatial axes",
    (2, 8, 8, 1): r"layer 'conv': .* has shape \(2, 8, 8, 1\); expected last axis 3 after 2 spatial axes",
    (2, 9, 8, 3): r"layer 'head/fc': .* has shape \(2, 288\); expected last axis 256",
    (0, 8, 8, 3): r"layer 'conv': .* has shape \(0, 8, 8, 3\); expected no axis of size 0\. Is the batch empty\?",
    (): r"layer 'conv': .* has shape \(\); expected last axis 3",
}


@pytest.mark.parametrize("policy", ["measured", "rule"])
@pytest.mark.parametrize("shape", BAD_SHAPES, ids=str)
def test_a_wrong_input_names_the_layer_and_what_it_takes(policy: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="sparsify: " + BAD_SHAPES[shape]):
        sparsify(Net(), policy=policy, sample_input=jnp.ones(shape))


def test_a_batch_norm_and_a_sparse_layer_are_named_too() -> None:
    norm = nnx.Sequential(nnx.BatchNorm(3, rngs=nnx.Rngs(0)), nnx.Linear(3, 2, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match=r"layer 'layers/0': .* has shape \(2, 4\); expected last axis 3"):
        sparsify(norm, policy="rule", sample_input=jnp.ones((2, 4)))
    pattern = SparsityPattern.from_mask(np.eye(3, dtype=bool))
    sparse = nnx.Sequential(SparseLinear(3, 3, pattern=pattern, rngs=nnx.Rngs(0)), nnx.Linear(3, 2, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match=r"layer 'layers/0': .* has shape \(2, 4\); expected last axis 3"):
        sparsify(sparse, policy="rule", sample_input=jnp.ones((2, 4)))


def test_what_the_model_itself_raises_is_told_in_one_line() -> None:
    class Adds(nnx.Module):
        def __init__(self) -> None:
            self.fc = nnx.Linear(3, 3, rngs=nnx.Rngs(0))

        def __call__(self, x: jax.Array, y: jax.Array) -> jax.Array:
            return self.fc(x) + y

    with pytest.raises(ValueError, match=r"sample_input has float32\[2, 3\]; expected an input that Adds") as caught:
        sparsify(Adds(), policy="rule", sample_input=jnp.ones((2, 3)))
    assert "The model raised TypeError" in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"sample_input has float32\[2, 3\], float32\[2, 4\]"):
        sparsify(Adds(), policy="rule", sample_input=(jnp.ones((2, 3)), jnp.ones((2, 4))))


@pytest.mark.parametrize(
    "sample",
    [
        jnp.ones((2, 8, 8, 3)),
        (jnp.ones((2, 8, 8, 3)), jnp.ones(())),
        {"x": jnp.ones((2, 8, 8, 3)), "double": True},
        {"x": jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32), "scale": 2.0},
        jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32),
    ],
    ids=["array", "tuple", "keywords", "shapes", "shape"],
)
def test_inputs_may_be_positional_or_named(sample) -> None:
    calls = record_inputs(Net(), sample)
    assert [call.shape for call in calls["conv"]] == [(2, 8, 8, 3)]
    assert [call.shape for call in calls["head/fc"]] == [(2, 256)]
    _, report = sparsify(Net(), min_sparsity=0.0, policy="rule", sample_input=sample)
    assert all("nominal" not in row.reason for row in report.rows)


def test_a_single_layer_has_the_empty_path() -> None:
    layer = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"masks has path 'fc'; .* The model is a single layer, whose path is ''\."):
        sparsify(layer, {"fc": np.eye(2, dtype=bool)}, policy="always")
    with pytest.raises(ValueError, match="layer '': the input"):
        sparsify(layer, policy="rule", sample_input=jnp.ones((1, 3)))


def linen_state() -> TrainState:
    params = linen.Dense(2).init(jax.random.key(0), jnp.ones((1, 2)))["params"]
    return TrainState.create(apply_fn=linen.Dense(2).apply, params=params, tx=optax.sgd(0.1))


NO_MODELS = {
    "linen": (
        lambda: linen.Dense(2),
        r"type Dense; .*For Linen, call sparsejax\.nn\.linen\.(sparsify|densify|pattern_masks)\(module",
    ),
    "parameters": (lambda: linen_state().params, "type dict; .*Parameters do not say which layers use them"),
    "train state": (linen_state, r"type TrainState; .*(sparsify|densify)_train_state\(state|pattern_masks\(module\)"),
    "nnx state": (lambda: nnx.state(nnx.Linear(2, 2, rngs=nnx.Rngs(0))), r"nnx\.merge\(graphdef, state\)"),
    "optimizer": (
        lambda: nnx.Optimizer(nnx.Linear(2, 2, rngs=nnx.Rngs(0)), optax.sgd(0.1), wrt=nnx.Param),
        "carry_optimizer",
    ),
    "class": (lambda: nnx.Linear, "Pass an instance of the class"),
    "list": (lambda: [nnx.Linear(2, 2, rngs=nnx.Rngs(0))], r"nnx\.List or nnx\.Sequential"),
    "array": (lambda: jnp.ones((2, 2)), r"expected an nnx\.Module"),
    "none": (lambda: None, r"type NoneType; expected an nnx\.Module"),
}


@pytest.mark.parametrize("what", NO_MODELS)
def test_what_is_no_nnx_module_is_refused_with_what_to_call(what: str) -> None:
    make, message = NO_MODELS[what]
    model = make()
    for convert in (lambda m: sparsify(m, policy="always"), densify, pattern_masks):
        with pytest.raises(TypeError, match=message):
            convert(model)


@pytest.mark.parametrize("dtype", ["float16", "int8", "complex64"])
def test_a_dtype_that_no_kernel_has_is_refused_when_the_layer_is_made(dtype: str) -> None:
    pattern = SparsityPattern.from_mask(np.eye(3, dtype=bool))
    message = f"SparseLinear: dtype has value {dtype}; expected float32, float64 or bfloat16"
    with pytest.raises(ValueError, match=message):
        SparseLinear(3, 3, pattern=pattern, dtype=dtype, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=message.replace("SparseLinear", "SparseDense")):
        sparse_linen.SparseDense(3, pattern=pattern, dtype=dtype)
    with pytest.raises(ValueError, match=message.replace("SparseLinear", "SparseLinearGeneral")):
        SparseLinearGeneral(3, 3, pattern=pattern, dtype=dtype, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=message.replace("SparseLinear", "SparseEinsum")):
        SparseEinsum("bi,io->bo", (3, 3), pattern=pattern, dtype=dtype, rngs=nnx.Rngs(0))
    window = SparsityPattern.from_mask(np.ones((3, 2, 4), bool))
    with pytest.raises(ValueError, match=message.replace("SparseLinear", "SparseConvTranspose")):
        SparseConvTranspose(2, 4, (3,), pattern=window, dtype=dtype, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=message.replace("SparseLinear", "SparseConv")):
        SparseConv(2, 4, (3,), pattern=window, dtype=dtype, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=message.replace("SparseLinear", "SparseConv")):
        sparse_linen.SparseConv(4, (3,), pattern=window, dtype=dtype)


def test_a_linen_layer_that_no_input_fits_is_refused_when_it_is_made() -> None:
    pattern = SparsityPattern.from_mask(np.eye(3, dtype=bool))
    with pytest.raises(ValueError, match=r"SparseDense: pattern has shape \(3, 3\); expected shape \(3, 4\)"):
        sparse_linen.SparseDense(4, pattern=pattern)
    with pytest.raises(TypeError, match="pattern has type ndarray; expected a SparsityPattern"):
        sparse_linen.SparseDense(3, pattern=np.eye(3))  # pyright: ignore
    window = SparsityPattern.from_mask(np.ones((3, 2, 4), bool))
    with pytest.raises(ValueError, match=r"SparseConv: pattern has shape \(3, 2, 4\); expected shape \(5, 2, 4\)"):
        sparse_linen.SparseConv(4, (5,), pattern=window)
    with pytest.raises(ValueError, match="strides has value 0"):
        sparse_linen.SparseConv(4, (3,), pattern=window, strides=0)
    assert hash(sparse_linen.SparseDense(3, pattern=pattern)) == hash(sparse_linen.SparseDense(3, pattern=pattern))
