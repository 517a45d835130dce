"""Bad input of ``sparsejax finetune``: one line that names the file, status 2, and nothing is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flax import nnx
from PIL import Image

from sparsejax.cli import main
from sparsejax.models import ConvNet, save_torch_state_dict

torch: Any = pytest.importorskip("torch")


class Code:
    """Unpickling this would call a function."""

    def __reduce__(self):
        return print, ("code of the file ran",)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Twelve pictures of two classes, and a network that fits them."""
    rng = np.random.default_rng(0)
    for split, label, number in ((s, c, n) for s in ("train", "test") for c in ("cat", "dog") for n in range(3)):
        file = tmp_path / "data" / split / label / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(file)
    save_torch_state_dict(ConvNet(2, in_features=3, rngs=nnx.Rngs(0)), tmp_path / "net.pt", "prune")
    return tmp_path


def truncated(folder: Path) -> None:
    file = folder / "net.pt"
    file.write_bytes(file.read_bytes()[:-2000])


def with_code(folder: Path) -> None:
    torch.save({"fc.weight": torch.ones(2, 2), "hook": Code()}, folder / "net.pt")


def with_missing_and_surplus(folder: Path) -> None:
    state = torch.load(folder / "net.pt")
    state["fc.wight"] = state.pop("fc.bias")
    torch.save(state, folder / "net.pt")


def with_other_classes(folder: Path) -> None:
    save_torch_state_dict(ConvNet(5, in_features=3, rngs=nnx.Rngs(0)), folder / "net.pt")


def with_mixed_sizes(folder: Path) -> None:
    Image.fromarray(np.zeros((9, 8, 3), np.uint8)).save(folder / "data/train/dog/1.png")


def with_a_corrupt_picture(folder: Path) -> None:
    (folder / "data/train/dog/1.png").write_bytes(b"no picture")


def with_an_empty_class(folder: Path) -> None:
    for file in (folder / "data/train/dog").iterdir():
        file.unlink()


CASES = {
    truncated: ("net.pt' has content that cannot be loaded safely", ""),
    with_code: ("net.pt' has content that cannot be loaded safely", "state_dict()"),
    with_missing_and_surplus: ("missing entries fc.bias; left-over entries fc.wight", "net.pt"),
    with_other_classes: ("net.pt' has 5 classes; expected 2", "--new-head"),
    with_mixed_sizes: ("dog/1.png", "--size"),
    with_a_corrupt_picture: ("dog/1.png", "skip_corrupt"),
    with_an_empty_class: ("dog", "has no image; expected at least one"),
}


def words(folder: Path) -> list[str]:
    words = ["finetune", "--from", str(folder / "net.pt"), "--model", "convnet", "--data", f"folder:{folder / 'data'}"]
    return [*words, "--batch-size", "2", "--epochs", "1", "--out", str(folder / "out")]


@pytest.mark.parametrize("spoil", CASES)
def test_bad_input_is_one_line_and_nothing_is_written(folder, capsys, spoil):
    spoil(folder)
    assert main(words(folder)) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("error: ") and shown.err.count("\n") == 1 and not shown.out
    assert all(part in shown.err for part in CASES[spoil]), shown.err
    assert not (folder / "out").exists()


def test_a_picture_that_breaks_off_is_named_and_what_the_error_advises_works(folder, capsys):
    """It is found when it is decoded, in the first epoch; the folder of that run is in nobody's way."""
    file = folder / "data/train/dog/1.png"
    file.write_bytes(file.read_bytes()[:-30])
    command = [*words(folder), "--size", "8"]
    assert main(command) == 2
    shown = capsys.readouterr()
    assert "dog/1.png' has other content" in shown.err and "--skip-corrupt" in shown.err and not shown.out
    assert not (folder / "out" / "result.json").exists() and not (folder / "out" / "checkpoints").exists()
    with pytest.warns(UserWarning, match=r"Skipped .*dog/1\.png"):
        assert main([*command, "--skip-corrupt"]) == 0
    assert (folder / "out" / "result.json").exists()
