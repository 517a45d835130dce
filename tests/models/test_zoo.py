"""Shapes, parameter counts, layer names and training of the models."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from sparsejax.models import (
    MLP,
    MODEL_NAMES,
    ConvNet,
    MobileNetV1,
    ResNet,
    WideBlock,
    WideResNet,
    build,
    mobilenet_v1,
    resnet18,
    resnet50,
    wide_resnet,
)
from sparsejax.nn import BatchNorm


def abstract(make) -> Any:
    """Build a model without computing any number."""
    return nnx.eval_shape(lambda: make(nnx.Rngs(0)))


def parameters(model) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


def logits_shape(make, *shape: int) -> tuple[int, ...]:
    return nnx.eval_shape(lambda: make(nnx.Rngs(0))(jnp.zeros(shape))).shape


def layers_of(model, kind) -> list:
    return [module for _, module in nnx.iter_modules(model) if isinstance(module, kind)]


@pytest.mark.parametrize(
    ("make", "count"),
    [
        (lambda rngs: resnet18(rngs=rngs), 11_689_512),
        (lambda rngs: resnet50(rngs=rngs), 25_557_032),
        (lambda rngs: resnet18(10, rngs=rngs), 11_181_642),
        (lambda rngs: mobilenet_v1(rngs=rngs), 4_231_976),
        (lambda rngs: wide_resnet(28, 10, 10, rngs=rngs), 36_479_194),
        (lambda rngs: wide_resnet(22, 2, 10, rngs=rngs), 1_079_642),
        (lambda rngs: MLP(784, 10, rngs=rngs), 266_610),
    ],
)
def test_parameter_counts_are_the_published_ones(make, count):
    assert parameters(abstract(make)) == count


def test_resnet50_has_the_prunable_weights_of_acdc():
    model = abstract(lambda rngs: resnet50(rngs=rngs))
    convs, linears = layers_of(model, nnx.Conv), layers_of(model, nnx.Linear)
    weights = sum(math.prod(layer.kernel.shape) for layer in convs + linears)
    assert (len(convs), len(linears), weights) == (53, 1, 25_502_912)


def test_wide_resnet_28_has_28_convolutions():
    model = abstract(lambda rngs: wide_resnet(rngs=rngs))
    assert len(layers_of(model, nnx.Conv)) == 28


def test_resnet50_strides_on_the_3x3_convolution():
    block = abstract(lambda rngs: resnet50(rngs=rngs)).layer2[0]
    assert [layer.strides for layer in (block.conv1, block.conv2, block.conv3)] == [(1, 1), (2, 2), (1, 1)]
    assert block.downsample[0].strides == (2, 2)


@pytest.mark.parametrize("name", MODEL_NAMES)
@pytest.mark.parametrize(("side", "channels"), [(8, 1), (28, 1), (32, 3)])
def test_build_gives_logits_for_any_image(name, side, channels):
    def make(rngs):
        return build(name, 7, channels, (side, side), rngs)

    assert logits_shape(make, 2, side, side, channels) == (2, 7)


def test_build_chooses_the_stem_by_image_size():
    def stem(side: int) -> str:
        return abstract(lambda rngs: build("resnet18", 10, 3, (side, side), rngs)).stem

    assert [stem(32), stem(64), stem(65), stem(224)] == ["small", "small", "imagenet", "imagenet"]


def test_build_lists_the_names_when_one_is_unknown():
    with pytest.raises(ValueError, match="build: name has value 'resnet19'; expected one of") as caught:
        build("resnet19", 10, 3, (32, 32), nnx.Rngs(0))
    assert all(repr(name) in str(caught.value) for name in MODEL_NAMES)


def test_features_are_the_inputs_of_the_classifier():
    def widths(make, *shape):
        def run():
            model = make(nnx.Rngs(0))
            return model.features(jnp.zeros(shape))

        return nnx.eval_shape(run).shape

    assert widths(lambda rngs: resnet50(rngs=rngs), 2, 64, 64, 3) == (2, 2048)
    assert widths(lambda rngs: mobilenet_v1(rngs=rngs), 2, 64, 64, 3) == (2, 1024)
    assert widths(lambda rngs: resnet18(rngs=rngs), 2, 64, 64, 3) == (2, 512)
    assert widths(lambda rngs: wide_resnet(10, 2, rngs=rngs), 2, 8, 8, 3) == (2, 128)


def test_convolutions_start_he_normal_in_fan_out():
    model = ConvNet(10, in_features=8, widths=(256,), rngs=nnx.Rngs(0))
    kernel = np.asarray(model.convs[0].kernel[...])
    np.testing.assert_allclose(kernel.std(), math.sqrt(2 / (9 * 256)), rtol=0.02)
    assert abs(kernel.mean()) < 1e-3


def test_batch_norm_has_torch_constants():
    model = abstract(lambda rngs: mobilenet_v1(rngs=rngs))
    norms = layers_of(model, nnx.BatchNorm)
    assert len(norms) == 27 and all((n.momentum, n.epsilon) == (0.9, 1e-5) for n in norms)


@pytest.mark.parametrize(
    ("make", "activated", "alone"),
    [
        (lambda rngs: resnet18(rngs=rngs), 17, 3),
        (lambda rngs: resnet50(rngs=rngs), 49, 4),
        (lambda rngs: mobilenet_v1(rngs=rngs), 27, 0),
        (lambda rngs: wide_resnet(10, 1, rngs=rngs), 7, 0),
        (lambda rngs: ConvNet(in_features=3, rngs=rngs), 3, 0),
    ],
)
def test_activations_and_shortcuts_are_part_of_our_batch_norms(make, activated, alone):
    """As ``sparsify`` leaves a model: the same variables, each batch norm of our class."""
    model = abstract(make)
    for norm in layers_of(model, nnx.BatchNorm):
        object.__setattr__(norm, "__class__", BatchNorm)
    graph, state = nnx.split(model)
    images = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
    text = str(jax.make_jaxpr(lambda state, x: nnx.merge(graph, state, copy=True)(x))(state, images))
    calls = text.split("sparsejax_batch_norm[")[1:]
    assert [sum(f"activation={name}" in call[:60] for call in calls) for name in ("relu", "none")] == [activated, alone]
    assert "name=relu" not in text


def test_wide_resnet_drops_out_in_training_only():
    block = WideBlock(4, 4, 1, 0.5, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (4, 4, 4, 4))
    assert not np.array_equal(block(x), block(x))
    block.eval()
    np.testing.assert_array_equal(block(x), block(x))
    with_dropout = abstract(lambda rngs: wide_resnet(16, 1, dropout=0.5, rngs=rngs))
    assert [layer.rate for layer in layers_of(with_dropout, nnx.Dropout)] == [0.5] * 6
    assert not layers_of(abstract(lambda rngs: wide_resnet(16, 1, rngs=rngs)), nnx.Dropout)


@pytest.mark.parametrize("name", ["convnet", "mlp"])
def test_small_models_learn_two_kinds_of_images(name):
    labels = jnp.arange(32) % 2
    stripes = jnp.where(labels[:, None, None, None] == 0, jnp.arange(8)[:, None], jnp.arange(8)) % 2
    noise = jax.random.normal(jax.random.key(1), (32, 8, 8, 1)) * 0.3
    images = stripes[..., :8].reshape(32, 8, 8, 1) + noise
    model = build(name, 2, 1, (8, 8), nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        def loss(model):
            return optax.softmax_cross_entropy_with_integer_labels(model(images), labels).mean()

        value, grads = nnx.value_and_grad(loss)(model)
        optimizer.update(model, grads)
        return value

    losses = [float(step(model, optimizer)) for _ in range(25)]
    assert losses[-1] < 0.1 * losses[0]
    assert (model(images).argmax(-1) == labels).all()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda rngs: resnet18(stem="cifar", rngs=rngs), "ResNet: stem has value 'cifar'; expected one of"),
        (lambda rngs: mobilenet_v1(stem="", rngs=rngs), "MobileNetV1: stem has value ''"),
        (
            lambda rngs: mobilenet_v1(width=0, rngs=rngs),
            "MobileNetV1: width has value 0; expected a positive",
        ),
        (lambda rngs: wide_resnet(27, rngs=rngs), "WideResNet: depth has value 27"),
        (lambda rngs: wide_resnet(4, rngs=rngs), "WideResNet: depth has value 4"),
        (lambda rngs: wide_resnet(10, 0, rngs=rngs), "WideResNet: width has value 0"),
        (lambda rngs: wide_resnet(10, 1, dropout=1.0, rngs=rngs), "WideResNet: dropout has value 1.0"),
        (lambda rngs: ConvNet(widths=(), rngs=rngs), "ConvNet: widths has no element"),
    ],
)
def test_constructors_refuse_impossible_sizes(make, words):
    with pytest.raises(ValueError, match=words):
        make(nnx.Rngs(0))


@pytest.mark.parametrize("shape", [(2, 8, 8), (2, 3, 8, 8), (2, 8, 8, 1)])
@pytest.mark.parametrize("cls", [ResNet, MobileNetV1, WideResNet, ConvNet])
def test_images_of_the_wrong_layout_are_refused(cls, shape):
    makers = {
        ResNet: lambda rngs: resnet18(rngs=rngs),
        MobileNetV1: lambda rngs: mobilenet_v1(rngs=rngs),
        WideResNet: lambda rngs: wide_resnet(10, 1, rngs=rngs),
        ConvNet: lambda rngs: ConvNet(in_features=3, rngs=rngs),
    }
    model = abstract(makers[cls])
    with pytest.raises(ValueError, match=rf"{cls.__name__}: images has shape .*width, 3\).*channels last"):
        model(jnp.zeros(shape))


def test_convnet_refuses_images_too_small_for_its_poolings():
    model = abstract(lambda rngs: ConvNet(rngs=rngs))
    with pytest.raises(ValueError, match=r"ConvNet: images has shape .* at least 4 pixels a side"):
        model(jnp.zeros((1, 3, 8, 1)))


@pytest.mark.parametrize("shape", [(2, 8, 8, 3), (64,)])
def test_mlp_refuses_other_sizes(shape):
    model = abstract(lambda rngs: MLP(64, rngs=rngs))
    with pytest.raises(ValueError, match=r"MLP: inputs has shape .* 64 numbers per example"):
        model(jnp.zeros(shape))
