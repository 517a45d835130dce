"""Malformed checkpoints: every defect is named and the model is left alone."""

from __future__ import annotations

import os
import pickle

import jax
import numpy as np
import pytest
from flax import nnx

from sparsejax.models import MLP, ResNet, load_torch_state_dict, resnet18


class Touch:
    """An object whose unpickling would create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def model() -> MLP:
    return MLP(3, 2, hidden=(4,), rngs=nnx.Rngs(0))


def state(**changes) -> dict:
    generator = np.random.default_rng(0)
    shapes = {"layers.0.weight": (4, 3), "layers.0.bias": (4,), "fc.weight": (2, 4), "fc.bias": (2,)}
    tensors = {name: generator.normal(size=shape) for name, shape in shapes.items()}
    return {name: value for name, value in (tensors | changes).items() if value is not None}


def refused(source, words: str, error: type[Exception] = ValueError) -> str:
    target = model()
    before = jax.tree.map(np.asarray, nnx.state(target))
    with pytest.raises(error, match=words) as caught:
        load_torch_state_dict(target, source)
    jax.tree.map(np.testing.assert_array_equal, before, jax.tree.map(np.asarray, nnx.state(target)))
    assert str(caught.value).startswith("load_torch_state_dict: ")
    return str(caught.value)


def test_the_untouched_state_loads():
    assert len(load_torch_state_dict(model(), state()).loaded) == 4


def test_all_defects_are_named_at_once():
    broken = state(
        **{"fc.bias": None, "fc.weight": np.zeros((4, 2)), "head.weight": np.zeros(1), "layers.0.bias": None},
        **{"other.weight_mask": np.ones(2), "layers.0.weight_mask": np.ones((3, 4))},
    )
    text = refused(broken, "expected exactly the 4 tensors of the model")
    assert "missing entries fc.bias, layers.0.bias;" in text
    assert "left-over entries head.weight, other.weight_mask;" in text
    assert "fc.weight (4, 2) instead of (2, 4)" in text
    assert "layers.0.weight_mask (3, 4) instead of (4, 3)" in text


def test_a_checkpoint_of_another_architecture(torch_resnet):
    target = nnx.eval_shape(lambda: resnet18(10, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match=r"left-over entries .*layer1\.0\.conv3\.weight"):
        load_torch_state_dict(target, torch_resnet(50).state_dict())


def test_another_number_of_classes(torch_resnet):
    target = nnx.eval_shape(lambda: resnet18(10, rngs=nnx.Rngs(0)))
    assert isinstance(target, ResNet)
    with pytest.raises(ValueError, match=r"fc.weight \(7, 512\) instead of \(10, 512\)"):
        load_torch_state_dict(target, torch_resnet(18, num_classes=7).state_dict())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fc.weight_mask": np.full((2, 4), 0.5)}, "mask 'fc.weight_mask' has values other than 0 and 1"),
        ({"fc._weight_mask": np.full((2, 4), np.nan)}, "mask 'fc._weight_mask' has values other"),
        ({"fc._layer.weight": np.ones((2, 4))}, "two entries for 'fc.weight'; expected one"),
        ({"module.fc.bias": np.ones(2)}, "two entries for 'fc.bias'"),
        ({"fc.bias": [1.0, 2.0]}, "entry 'fc.bias' has type list; expected a tensor"),
        ({"fc.bias": np.array(["a", "b"])}, "entry 'fc.bias' has dtype <U1; expected a real dtype"),
        ({"fc.bias": np.ones(2, complex)}, "dtype complex128"),
    ],
)
def test_malformed_entries(changes, words):
    refused(state(**changes), words)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"model_state_dict": [1, 2]}, "a state of type list; expected a dict"),
        ({"model_state_dict": state(), "model_config": "resnet18"}, "a model_config of type str"),
        ({"model_state_dict": state(), "epoch": "last"}, "an epoch of type str; expected an integer"),
        ({}, "missing entries"),
    ],
)
def test_malformed_envelopes(source, words):
    refused(source, words)


def test_arbitrary_objects_are_never_unpickled(tmp_path):
    torch = pytest.importorskip("torch")
    created = tmp_path / "created"
    path = tmp_path / "evil.pt"
    torch.save(state() | {"extra": Touch(created)}, path)
    refused(path, "content that cannot be loaded safely")
    path.write_bytes(pickle.dumps(Touch(created), protocol=2))
    refused(path, "content that cannot be loaded safely")
    assert not created.exists()


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04 broken", b"\xff" * 64])
def test_broken_files(tmp_path, suffix, content):
    pytest.importorskip("torch")
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    refused(path, "model")


def test_a_file_that_is_no_dict(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save([torch.zeros(2)], tmp_path / "list.pt")
    refused(tmp_path / "list.pt", "checkpoint has type list; expected a dict of tensors")


def test_a_missing_file(tmp_path):
    refused(tmp_path / "none.pt", "path has value .* expected an existing file", FileNotFoundError)


def test_models_with_other_layers_are_refused():
    with pytest.raises(ValueError, match="model has a variable 'embedding'; expected only dense"):
        load_torch_state_dict(nnx.Embed(3, 2, rngs=nnx.Rngs(0)), {})
