"""Malformed checkpoints: every defect is named and the model is left alone."""

from __future__ import annotations

import json
import os
import pickle
import struct
import warnings
import zipfile

import jax
import numpy as np
import pytest
from flax import nnx

from helpers.untrusted_files import bounded_memory
from sparsejax.models import MLP, ResNet, load_torch_state_dict, resnet18
from sparsejax.nn import sparsify


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


def torch_state(**changes) -> dict:
    torch = pytest.importorskip("torch")
    return {name: torch.from_numpy(array) for name, array in state().items()} | changes


def refused(source, words: str, error: type[Exception] = ValueError) -> str:
    target = model()
    before = jax.tree.map(np.asarray, nnx.state(target))
    with pytest.raises(error, match=words) as caught:
        load_torch_state_dict(target, source)
    jax.tree.map(np.testing.assert_array_equal, before, jax.tree.map(np.asarray, nnx.state(target)))
    assert str(caught.value).startswith(("load_torch_state_dict: ", "load_torch: "))
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
    torch.save(torch_state() | {"extra": Touch(created)}, path)
    refused(path, r"content that cannot be loaded safely \(Trying to load unsupported GLOBAL .*mkdir")
    torch.save(torch_state() | {"extra": torch.nn.Linear(2, 2)}, path)
    refused(
        path, r"safely \(WeightsUnpickler error: .*Linear was not an allowed global.*save model.state_dict\(\) alone"
    )
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


def test_sparse_layers_are_refused():
    sparse, _ = sparsify(model(), {"fc": np.eye(4, 2, dtype=bool)}, min_sparsity=0.5, policy="always")
    with pytest.raises(ValueError, match="model has a sparse layer 'fc'; expected only dense layers"):
        load_torch_state_dict(sparse, {})


def test_quantized_tensors_are_refused_with_the_way_out(tmp_path):
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantized = torch.quantize_per_tensor(torch.ones(2, 4), 0.1, 0, torch.qint8)
        torch.save(torch_state() | {"fc.weight": quantized}, tmp_path / "q.pt")
    for source in (torch_state() | {"fc.weight": quantized}, tmp_path / "q.pt"):
        refused(source, "entry 'fc.weight' has quantized dtype torch.qint8; .* Save tensor.dequantize")


@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")
def test_tensors_out_of_proportion_to_their_numbers_are_refused(tmp_path):
    torch = pytest.importorskip("torch")
    indices = torch.zeros((2, 1), dtype=torch.int64)
    tensors = {
        "expanded": (torch.zeros(1).expand(2**40), "1099511627776 elements and 1 stored numbers"),
        "coo": (torch.sparse_coo_tensor(indices, torch.ones(1), (2**20, 2**20)), "elements and 10000 stored"),
        "blocks": (torch.eye(4).to_sparse_bsr((2, 2)), "layout sparse_bsr of 2 axes; expected dense, COO"),
        "meta": (torch.zeros(2, 4, device="meta"), "a form that NumPy cannot take"),
    }
    for name, (tensor, words) in tensors.items():
        torch.save(torch_state() | {"fc.weight": tensor}, tmp_path / f"{name}.pt")
        with bounded_memory(32 << 20):
            text = refused(tmp_path / f"{name}.pt", f"entry 'fc.weight' has .*{words}")
        assert f"{name}.pt" in text and "\n" not in text


@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")
def test_sparse_tensors_with_indices_out_of_range_are_refused():
    torch = pytest.importorskip("torch")
    for row in (2, -1):
        with torch.sparse.check_sparse_tensor_invariants(enable=False):
            bad = torch.sparse_coo_tensor(torch.tensor([[row], [0]]), torch.ones(1), (2, 4), check_invariants=False)
        refused(state() | {"fc.weight": bad}, "entry 'fc.weight' has indices out of range")
    for starts in ([0, 2, 1], [0, 1, 9], [0, 1]):
        with torch.sparse.check_sparse_tensor_invariants(enable=False):
            arguments = torch.tensor(starts), torch.tensor([0]), torch.ones(1)
            bad = torch.sparse_csr_tensor(*arguments, (2, 4), check_invariants=False)
        refused(state() | {"fc.weight": bad}, "entry 'fc.weight' has malformed index pointers")


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "C64", "F4", "XX"])
def test_safetensors_of_other_dtypes_are_refused(tmp_path, dtype):
    size = {"C64": 64, "F4": 4}.get(dtype, 8)
    header = json.dumps({"fc.weight": {"dtype": dtype, "shape": [2, 4], "data_offsets": [0, size]}}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(size))
    text = refused(path, f"model.safetensors' has .*{dtype}")
    assert dtype == "XX" or "expected dtypes among BOOL U8 I8" in text


def test_damaged_torch_files_are_refused_by_name(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "model.pt"
    for options in ({}, {"_use_new_zipfile_serialization": False}):
        torch.save(torch_state(), path, **options)
        good = path.read_bytes()
        for end in range(0, len(good), len(good) // 40):
            path.write_bytes(good[:end])
            text = refused(path, "model.pt' has content that cannot be loaded safely")
            assert "\n" not in text


def test_torch_files_that_unpack_to_more_are_refused(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"fc.weight": torch.zeros(1 << 23)}, tmp_path / "model.pt")
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(tmp_path / "model.pt") as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for member in source.infolist():
            target.writestr(member.filename, source.read(member))
    with bounded_memory(8 << 20):
        refused(path, "bomb.pt' has content .*it unpacks to far more than its size")
    with zipfile.ZipFile(tmp_path / "model.pt") as source, zipfile.ZipFile(path, "w") as target:
        for member in source.infolist():
            deep = b"\x80\x02}(" + b")" + b"\x85" * 100_000 + b"K\x01u."
            target.writestr(member.filename, deep if member.filename.endswith("data.pkl") else source.read(member))
    refused(path, "bomb.pt' has content .*nests objects 501 deep")
