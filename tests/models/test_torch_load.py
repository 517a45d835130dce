"""Checkpoints of torch models in every published form, against torch itself."""

from __future__ import annotations

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sparsejax.models import (
    MLP,
    load_torch_state_dict,
    resnet18,
    resnet50,
    save_torch_state_dict,
)

IMAGES = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)


def empty_resnet(make=resnet18) -> Any:
    """Build a model without numbers: quick, and none can be right by chance."""
    return nnx.eval_shape(lambda: make(10, rngs=nnx.Rngs(0)))


def our_logits(model, images: np.ndarray = IMAGES) -> np.ndarray:
    model.eval()
    return np.asarray(nnx.jit(lambda model, x: model(x))(model, images))


def torch_logits(net, images: np.ndarray = IMAGES) -> np.ndarray:
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        logits = net(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    # The classifier's bias alone must not explain the logits.
    assert np.abs(logits[0] - logits[1]).max() > 1e-2
    return logits


def prune(net, sparsity: float) -> dict[str, np.ndarray]:
    """Zero random weights of every convolution and linear layer; return the torch masks as float.

    The others grow so that activations keep their size.
    """
    generator, masks = np.random.default_rng(1), {}
    for name, parameter in net.named_parameters():
        if parameter.ndim > 1:
            keep = generator.random(tuple(parameter.shape)) >= sparsity
            masks[name.removesuffix(".weight")] = keep.astype(np.float32)
            parameter.data.mul_(parameter.data.new_tensor(keep / np.sqrt(1 - sparsity)))
    return masks


def wrap(state: dict, masks: dict[str, np.ndarray]) -> dict:
    """Name the prunable layers as the pruning wrapper does, with ``_layer`` and a mask beside it."""
    torch = pytest.importorskip("torch")
    wrapped = {}
    for name, tensor in state.items():
        layer, _, kind = name.rpartition(".")
        wrapped[f"{layer}._layer.{kind}" if layer in masks else name] = tensor
    return wrapped | {f"{layer}._weight_mask": torch.from_numpy(mask) for layer, mask in masks.items()}


def check_masks(report, masks: dict[str, np.ndarray]) -> None:
    assert set(report.masks) == {layer.replace(".", "/") for layer in masks}
    for layer, mask in masks.items():
        expected = mask.transpose(2, 3, 1, 0) if mask.ndim == 4 else mask.T
        got = report.masks[layer.replace(".", "/")]
        assert got.dtype == bool
        np.testing.assert_array_equal(got, expected.astype(bool))


@pytest.mark.parametrize("side", [32, 45])
def test_resnet18_equals_torch(torch_resnet, side):
    images = np.random.default_rng(side).normal(size=(2, side, side, 3)).astype(np.float32)
    net, model = torch_resnet(18), empty_resnet()
    report = load_torch_state_dict(model, net.state_dict())
    np.testing.assert_allclose(our_logits(model, images), torch_logits(net, images), atol=1e-4)
    expected = {name for name in net.state_dict() if not name.endswith("num_batches_tracked")}
    assert set(report.loaded) == expected and len(report.loaded) == len(expected)
    assert (report.masks, report.epoch, report.config, report.notes) == ({}, None, {}, ())


def test_resnet50_equals_torch_from_a_training_checkpoint(torch_resnet, tmp_path):
    torch = pytest.importorskip("torch")
    net, model = torch_resnet(50), empty_resnet(resnet50)
    masks = prune(net, 0.5)
    state = {f"module.{name}": tensor for name, tensor in wrap(net.state_dict(), masks).items()}
    config = {"arch": "resnet50", "dataset": "imagenet"}
    path = tmp_path / "checkpoint.pth"
    torch.save({"epoch": 99, "model_config": config, "model_state_dict": state, "optimizer": {"lr": 0.1}}, path)
    report = load_torch_state_dict(model, path)
    np.testing.assert_allclose(our_logits(model), torch_logits(net), atol=1e-4)
    check_masks(report, masks)
    assert (report.epoch, report.config) == (99, config)


@pytest.mark.parametrize("form", ["wrapped", "all ones", "envelope", "prefixed", "numpy"])
def test_every_form_loads_what_the_plain_form_loads(torch_resnet, form):
    net, model, plain = torch_resnet(18), empty_resnet(), empty_resnet()
    masks = prune(net, 0.8)
    state = net.state_dict()
    check_masks(load_torch_state_dict(plain, state), masks)
    if form == "wrapped":
        state = wrap(state, masks)
    elif form == "all ones":
        state = wrap(state, {layer: np.ones_like(mask) for layer, mask in masks.items()})
    elif form == "envelope":
        state = {"epoch": 3, "state_dict": state}
    elif form == "prefixed":
        state = {f"module.{name}": tensor for name, tensor in state.items()}
    elif form == "numpy":
        state = {name: tensor.numpy() for name, tensor in state.items()}
    report = load_torch_state_dict(model, state)
    check_masks(report, masks)
    jax.tree.map(np.testing.assert_array_equal, nnx.state(model), nnx.state(plain))


def linear_state(**changes) -> dict[str, np.ndarray]:
    state = {"fc.weight": np.array([[1.0, 2.0, 0.0], [4.0, 5.0, 6.0]]), "fc.bias": np.array([7.0, 8.0])}
    return {name: value for name, value in (state | changes).items() if value is not None}


def linear() -> Any:
    return MLP(3, 2, hidden=(), rngs=nnx.Rngs(0))


@pytest.mark.parametrize("name", ["fc._weight_mask", "fc.weight_mask", "fc._layer.weight_mask"])
def test_a_mask_decides_over_zeros_and_clears_masked_weights(name):
    mask = np.array([[1, 0, 1], [1, 1, 0]])
    model = linear()
    report = load_torch_state_dict(model, linear_state(**{name: mask, "fc._bias_mask": np.array([0, 1])}))
    np.testing.assert_array_equal(model.fc.kernel[...], [[1, 4], [0, 5], [0, 0]])
    np.testing.assert_array_equal(model.fc.bias[...], [0, 8])
    # The stored zero at (0, 2) is kept by the mask, so it stays trainable.
    np.testing.assert_array_equal(report.masks["fc"], mask.T.astype(bool))


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
def test_files_give_what_the_dict_gives(tmp_path, suffix):
    torch = pytest.importorskip("torch")
    state = {name: torch.from_numpy(value).float() for name, value in linear_state().items()}
    path = tmp_path / f"model{suffix}"
    if suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file(state, path)
    else:
        torch.save(state, path)
    model = linear()
    assert list(load_torch_state_dict(model, str(path)).masks) == ["fc"]
    np.testing.assert_array_equal(model.fc.kernel[...], linear_state()["fc.weight"].T)


def test_safetensors_need_no_torch(tmp_path, monkeypatch):
    from safetensors.numpy import save_file

    path = tmp_path / "model.safetensors"
    save_file(linear_state(), path)
    monkeypatch.setitem(sys.modules, "torch", None)
    model = linear()
    load_torch_state_dict(model, path)
    np.testing.assert_array_equal(model.fc.bias[...], [7, 8])


@pytest.mark.parametrize("package", ["torch", "safetensors"])
def test_an_absent_reader_names_the_extra(tmp_path, monkeypatch, package):
    path = tmp_path / ("model.pt" if package == "torch" else "model.safetensors")
    path.write_bytes(b"")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"no {package}; .*pip install 'sparsejax\[all\]'"):
        load_torch_state_dict(linear(), path)


@pytest.mark.parametrize("kind", ["bfloat16", "float16", "float64"])
@pytest.mark.parametrize("as_file", [False, True])
def test_other_dtypes_are_cast_to_the_model(tmp_path, kind, as_file):
    torch = pytest.importorskip("torch")
    source = {n: torch.from_numpy(v).to(getattr(torch, kind)) for n, v in linear_state().items()}
    if as_file:
        from safetensors.torch import save_file

        save_file(source, tmp_path / "model.safetensors")
        source = tmp_path / "model.safetensors"
    model = linear()
    load_torch_state_dict(model, source)
    assert model.fc.kernel.dtype == jnp.float32
    np.testing.assert_array_equal(model.fc.kernel[...], linear_state()["fc.weight"].T)


def test_rigl_stem_brings_its_pooling(torch_resnet, tmp_path):
    net, model = torch_resnet(18, rigl_pool=True), empty_resnet()
    state = net.state_dict()
    rigl = dict(state)
    rigl["initial_conv.weight"] = rigl.pop("conv1.weight")
    report = load_torch_state_dict(model, rigl)
    assert model.pool_padding == ((0, 1), (0, 1)) and "RigL" in report.notes[0]
    np.testing.assert_allclose(our_logits(model), torch_logits(net), atol=1e-4)
    save_torch_state_dict(model, tmp_path / "model.safetensors", like=report)
    again = empty_resnet()
    load_torch_state_dict(again, tmp_path / "model.safetensors")
    assert again.pool_padding == model.pool_padding
    load_torch_state_dict(model, state)
    assert model.pool_padding == ((1, 1), (1, 1))


@pytest.mark.parametrize("with_bias", [True, False])
def test_str_classifier_is_a_convolution(with_bias):
    weight = linear_state()["fc.weight"][:, :, None, None]
    changes = {"fc.weight": weight, "fc.weight_mask": (weight != 0).astype(int)}
    model = linear()
    report = load_torch_state_dict(model, linear_state(**changes, **({} if with_bias else {"fc.bias": None})))
    np.testing.assert_array_equal(model.fc.kernel[...], weight[:, :, 0, 0].T)
    np.testing.assert_array_equal(model.fc.bias[...], [7, 8] if with_bias else [0, 0])
    np.testing.assert_array_equal(report.masks["fc"], (weight[:, :, 0, 0] != 0).T)
    assert any("set to zero" in note for note in report.notes) is not with_bias
