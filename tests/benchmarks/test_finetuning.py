"""The input of the fine-tuning benchmark, and how its rounds are timed."""

from __future__ import annotations

import itertools

import pytest

from sparsejax import data
from sparsejax.models import stem_of_torch
from sparsejax.models._torch_checkpoint import read_checkpoint
from sparsejax_bench import finetuning


def test_the_files_are_what_the_command_takes(tmp_path):
    pytest.importorskip("torch")
    finetuning.main(["make", str(tmp_path), "--pictures", "50"])
    task = data.load_task(f"folder:{tmp_path / 'pictures'}", data.Preprocessing(32, 32))
    assert (len(task.train), len(task.test), task.num_classes) == (40, 10, 10)
    checkpoint = read_checkpoint(tmp_path / "pruned.pt")
    assert len(checkpoint.masks) == 19
    assert all(abs(mask.mean() - 0.05) < 1e-3 for mask in checkpoint.masks.values())
    assert stem_of_torch(tmp_path / "pruned.pt") == "imagenet"


def test_rounds_alternate():
    taken: list[str] = []

    def walk(name):
        for _ in itertools.count():
            taken.append(name)
            yield

    seconds = finetuning.alternate({"a": walk("a"), "b": walk("b")}, 3)
    assert "".join(taken) == 3 * (finetuning._STEPS * "a" + finetuning._STEPS * "b")
    assert {name: len(times) for name, times in seconds.items()} == {"a": 3, "b": 3}
