"""From a network pruned in PyTorch, through ``finetune`` on a folder of pictures, and back into PyTorch."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flax import nnx
from PIL import Image

import sparsejax
from sparsejax.cli import main
from sparsejax.data import Augmentation, Preprocessing, load_task
from sparsejax.models import ViT, load_torch, save_torch_state_dict
from sparsejax.nn import pattern_masks
from sparsejax.train import finetune, load_network
from sparsejax.train._saved_forms import FORMS, saved_name
from sparsejax.train._source import incoming_names

torch = pytest.importorskip("torch")
prune = pytest.importorskip("torch.nn.utils.prune")

pytestmark = pytest.mark.usefixtures("optimized")  # the commands measure
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
        np.testing.assert_array_equal(found[layer], mask.transpose(*range(2, mask.ndim), 1, 0) != 0)


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
    """What comes in as an old checkpoint of DataParallel goes out under its names, then and from the run's folder."""
    torch.manual_seed(0)
    model = TorchConvNet()
    masks = pruned_file(model, list(model.convs)[1:], tmp_path / "pruned.pt")
    state = {f"module.{name}": tensor for name, tensor in torch.load(tmp_path / "pruned.pt").items()}
    torch.save({"epoch": 1, "state_dict": state}, tmp_path / "pruned.pt")
    options = ["--epochs", "6", "--save", "prune", "--save", "dense"]
    result = finetuned(tmp_path / "pruned.pt", "convnet", pictures, tmp_path / "out", capsys, *options)
    assert result["accuracy"] > 0.5 and result["sparsity"] > 0.9
    check_masks(tmp_path / "out", masks)
    written = torch.load(result["saved"][0])
    assert set(written) == set(state)
    torch.save({name.removeprefix("module."): tensor for name, tensor in written.items()}, tmp_path / "plain.pt")
    saved = [str(tmp_path / "plain.pt"), *result["saved"][1:]]
    check_in_torch(model, tmp_path / "out", saved, masks, "convnet")
    words = ["export", "--from", str(tmp_path / "out"), "--json", "--out", str(tmp_path / "files")]
    assert main([*words, *(word for form in FORMS for word in ("--save", form))]) == 0
    files = [Path(file) for file in json.loads(capsys.readouterr().out)["saved"]]
    assert [file.name for file in files] == [saved_name(form) for form in FORMS]
    assert files[1].read_bytes() == Path(result["saved"][0]).read_bytes()
    network = load_network(tmp_path / "out").model
    network.eval()
    images = np.random.default_rng(1).standard_normal((3, 16, 16, 3)).astype(np.float32)
    run = sparsejax.load_exported(files[-1])
    np.testing.assert_allclose(run(images), network(images), rtol=1e-4, atol=1e-5)
    for file in files[2:4]:
        other = load_network(file, "convnet", image_shape=(16, 16, 3)).model
        other.eval()
        np.testing.assert_allclose(other(images), network(images), rtol=1e-4, atol=1e-5)


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
    assert incoming_names(tmp_path / "seven.pt", network.model).loaded[-2:] == ("fc.bias", "fc.weight")
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


class TorchBlock(torch.nn.Module):
    """A block of a vision transformer, under timm's names."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        nn = torch.nn
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, 1e-6), nn.LayerNorm(width, 1e-6)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})

    def forward(self, x: Any) -> Any:
        parts = self.attn["qkv"](self.norm1(x)).chunk(3, -1)
        parts = [part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts]
        seen = torch.nn.functional.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(-2)
        x = x + self.attn["proj"](seen)
        return x + self.mlp["fc2"](torch.nn.functional.gelu(self.mlp["fc1"](self.norm2(x))))


class TorchViT(torch.nn.Module):
    """A vision transformer for images of 16 pixels, in patches of 4, under timm's names."""

    def __init__(self, width: int, depth: int, heads: int) -> None:
        super().__init__()
        nn = torch.nn
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, 4, 4)})
        self.cls_token = nn.Parameter(torch.randn(1, 1, width))
        self.pos_embed = nn.Parameter(torch.randn(1, 17, width))
        self.blocks = nn.ModuleList([TorchBlock(width, heads) for _ in range(depth)])
        self.norm, self.head = nn.LayerNorm(width, 1e-6), nn.Linear(width, CLASSES)

    def forward(self, x: Any) -> Any:
        x = self.patch_embed["proj"](x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])

    def prunable(self) -> list[Any]:
        return [layer for block in self.blocks for layer in (*block.attn.values(), *block.mlp.values())]


def test_a_pruned_vit_of_the_users_own_goes_there_and_back(pictures, tmp_path):
    """The Python functions behind the command, on a network that no name of the zoo stands for."""
    torch.manual_seed(0)
    theirs = TorchViT(16, 1, 2)
    masks = pruned_file(theirs, theirs.prunable(), tmp_path / "pruned.pt")
    model = nnx.eval_shape(
        lambda: ViT(CLASSES, width=16, depth=1, heads=2, image_size=(16, 16), patch=4, rngs=nnx.Rngs(0))
    )
    report = load_torch(model, tmp_path / "pruned.pt")
    assert not report.missing and not report.unused
    task = load_task(f"folder:{pictures}", Preprocessing(1, None, augmentation=Augmentation("none")))
    changes = {"epochs": 1, "batch_size": 32, "optimizer": "adamw", "learning_rate": 1e-3}
    result = finetune(model, task, masks=report.masks, measure=False, **changes)
    assert len(pattern_masks(result.model)) == 4
    save_torch_state_dict(result.model, tmp_path / "back.pt", "prune", like=report)
    theirs.load_state_dict(torch.load(tmp_path / "back.pt"))
    for name, mask in masks.items():
        np.testing.assert_array_equal(dict(theirs.named_buffers())[f"{name}_mask"].numpy(), mask)
    images = np.random.default_rng(1).standard_normal((5, 16, 16, 3)).astype(np.float32)
    with torch.no_grad():
        logits = theirs.eval()(torch.tensor(images.transpose(0, 3, 1, 2))).numpy()
    result.model.eval()
    np.testing.assert_allclose(result.model(images), logits, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_vit_of_timm_pruned_to_95_percent(pictures, tmp_path, capsys):
    torch.manual_seed(0)
    model = TorchViT(192, 12, 3)
    masks = pruned_file(model, model.prunable(), tmp_path / "pruned.pt")
    more = ["--optimizer", "adamw", "--lr", "1e-3", "--epochs", "1", "--save", "prune"]
    result = finetuned(tmp_path / "pruned.pt", "vit_tiny", pictures, tmp_path / "out", capsys, *more)
    assert result["sparsity"] > 0.94
    check_masks(tmp_path / "out", masks)
    check_in_torch(model, tmp_path / "out", result["saved"], masks, "vit_tiny")


@pytest.mark.slow
def test_a_torchvision_resnet_is_transferred_at_64_pixels(pictures, torch_resnet, tmp_path, capsys):
    """The stem follows the checkpoint, not the size of the images; the fine-tuned network is kept under its names."""
    torch.save(torch_resnet(18).state_dict(), tmp_path / "model.pt")
    words = ["transfer", "--backbone", str(tmp_path / "model.pt"), "--model", "resnet18", "--resize", "64"]
    words += ["--size", "64", "--data", f"folder:{pictures}", "--regime", "full", "--seeds", "1", "--epochs", "1"]
    assert main([*words, "--save", "dense", "--out", str(tmp_path / "out")]) == 0
    (file,) = (tmp_path / "out" / "networks").glob("*/model-dense.pt")
    torch_resnet(18).load_state_dict(torch.load(file))
    assert load_network(file, "resnet18", image_shape=(64, 64, 3)).model.stem == "imagenet"


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
