"""From a network pruned in PyTorch, through ``finetune`` on a folder of pictures, and back into PyTorch."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sparsejax.cli import main
from sparsejax.train import load_network

torch = pytest.importorskip("torch")
prune = pytest.importorskip("torch.nn.utils.prune")

CLASSES = 10


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Path:
    """200 colour pictures of 16 pixels in 10 classes, each class with a colour of its own."""
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    colours = rng.integers(40, 216, (CLASSES, 3))
    for split, count in (("train", 16), ("test", 4)):
        for label in range(CLASSES):
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = colours[label] + rng.integers(-40, 40, (16, 16, 3))
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
    return root


class TorchConvNet(torch.nn.Module):
    """`sparsejax.models.ConvNet` in PyTorch."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 32, 64, 128)
        pairs = list(itertools.pairwise(widths))
        self.convs = torch.nn.ModuleList([torch.nn.Conv2d(a, b, 3, padding=1, bias=False) for a, b in pairs])
        self.bns = torch.nn.ModuleList([torch.nn.BatchNorm2d(width) for width in widths[1:]])
        self.fc = torch.nn.Linear(widths[-1], CLASSES)

    def forward(self, x: Any) -> Any:
        for i, (conv, norm) in enumerate(zip(self.convs, self.bns, strict=True)):
            x = norm(conv(torch.nn.functional.max_pool2d(x, 2) if i else x)).relu()
        return self.fc(x.mean((2, 3)))


def pruned_file(model: Any, convs: list[Any], path: Path) -> dict[str, np.ndarray]:
    """Prune 95 % of each convolution, save the state dict, and return the masks by torch name."""
    for conv in convs:
        prune.l1_unstructured(conv, "weight", amount=0.95)
    torch.save(model.state_dict(), path)
    return {n.removesuffix("_mask"): b.numpy().copy() for n, b in model.named_buffers() if n.endswith("_mask")}


def finetuned(file: Path, name: str, pictures: Path, out: Path, capsys: Any, *more: str) -> dict[str, Any]:
    words = ["finetune", "--from", str(file), "--data", f"folder:{pictures}", "--model", name, "--batch-size", "32"]
    capsys.readouterr()
    assert main([*words, "--warmup", "0.2", "--json", "--out", str(out), *more]) == 0
    return json.loads(capsys.readouterr().out)


def check_masks(out: Path, masks: dict[str, np.ndarray]) -> None:
    found = load_network(out).masks
    for name, mask in masks.items():
        layer = name.removesuffix(".weight").replace(".", "/")
        np.testing.assert_array_equal(found[layer], mask.transpose(2, 3, 1, 0) != 0)


def check_in_torch(model: Any, out: Path, saved: list[str], masks: dict[str, np.ndarray], name: str) -> None:
    """The file with masks loads into the pruned torch module, with the same masks and predictions."""
    model.load_state_dict(torch.load(saved[0]))  # strict: weight_orig and weight_mask, as they came in
    buffers = dict(model.named_buffers())
    for layer, mask in masks.items():
        np.testing.assert_array_equal(buffers[f"{layer}_mask"].numpy(), mask)
    images = np.random.default_rng(1).standard_normal((5, 16, 16, 3)).astype(np.float32)
    with torch.no_grad():
        logits = model.eval()(torch.tensor(images.transpose(0, 3, 1, 2))).numpy()
    for network in (load_network(out), *(load_network(file, name, image_shape=(16, 16, 3)) for file in saved)):
        network.model.eval()
        np.testing.assert_allclose(network.model(images), logits, rtol=1e-4, atol=1e-5)


def test_a_pruned_convnet_is_fine_tuned_on_a_folder(pictures, tmp_path, capsys):
    torch.manual_seed(0)
    model = TorchConvNet()
    masks = pruned_file(model, list(model.convs)[1:], tmp_path / "pruned.pt")
    options = ["--epochs", "6", "--save", "prune", "--save", "dense"]
    result = finetuned(tmp_path / "pruned.pt", "convnet", pictures, tmp_path / "out", capsys, *options)
    assert result["accuracy"] > 0.5 and result["sparsity"] > 0.9
    check_masks(tmp_path / "out", masks)
    check_in_torch(model, tmp_path / "out", result["saved"], masks, "convnet")


def test_classes_that_differ_are_replaced_only_when_asked(pictures, tmp_path, capsys):
    model = TorchConvNet()
    model.fc = torch.nn.Linear(128, 7)
    torch.save(model.state_dict(), tmp_path / "seven.pt")
    words = ["finetune", "--from", str(tmp_path / "seven.pt"), "--data", f"folder:{pictures}", "--model", "convnet"]
    assert main([*words, "--epochs", "1", "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "seven.pt' has 7 classes; expected 10, those of the data. Replace the classifier with" in error
    assert not (tmp_path / "out").exists()
    network = load_network(tmp_path / "seven.pt", "convnet", num_classes=10, image_shape=(16, 16, 3), new_head=True)
    assert (
        network.model.fc.out_features == 10 and "new classifier 'fc' with 10 classes instead of 7" in network.notes[-1]
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("bns.1.weight"), "bns.1.weight"),
        (lambda state: state.update({"extra.weight": torch.ones(2)}), "extra.weight"),
        (lambda state: state.update({"convs.1.weight": torch.ones(64, 32, 5, 5)}), "convs.1.weight"),
    ],
)
def test_missing_surplus_and_misshapen_tensors_are_named(pictures, tmp_path, capsys, change, message):
    state = TorchConvNet().state_dict()
    change(state)
    torch.save(state, tmp_path / "bad.pt")
    words = ["finetune", "--from", str(tmp_path / "bad.pt"), "--data", f"folder:{pictures}", "--model", "convnet"]
    assert main([*words, "--epochs", "1", "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error and "bad.pt" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_resnet18_pruned_to_95_percent(pictures, torch_resnet, tmp_path, capsys):
    torch.manual_seed(0)
    model = torch_resnet(18)
    convs = [m for n, m in model.named_modules() if isinstance(m, torch.nn.Conv2d) and n != "conv1"]
    masks = pruned_file(model, convs, tmp_path / "pruned.pt")
    result = finetuned(tmp_path / "pruned.pt", "resnet18", pictures, tmp_path / "out", capsys, "--save", "prune")
    assert result["sparsity"] > 0.94 and result["comparison"] is not None
    check_masks(tmp_path / "out", masks)
    check_in_torch(model, tmp_path / "out", result["saved"], masks, "resnet18")
