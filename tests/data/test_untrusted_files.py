"""Mutated files: each is read or refused with one line that names it, in bounded memory.

The campaign: ``SPARSEJAX_FUZZ_INPUTS=100000 pytest -m slow tests/data/test_untrusted_files.py``.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers import file_mutations as mutations
from helpers.untrusted_files import PARSERS, Case, limited_address_space
from sparsejax.cli import main

torch: Any = pytest.importorskip("torch")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
BATCH = 250


def fuzz(case: Case, examples: int, *, derandomize: bool) -> tuple[int, int]:
    """Read so many mutated files; return how many were tried and how many were refused."""
    counts = [0, 0]

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=derandomize,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, 15), mutations.changes)
    def run(which: int, edits: list[mutations.Change]) -> None:
        counts[1] += case.run(which, edits)
        counts[0] += 1

    with limited_address_space(4 << 30):
        run()
    return counts[0], counts[1]


@pytest.mark.parametrize("name", PARSERS)
def test_mutated_files_are_read_or_refused(name, tmp_path):
    tried, refused = fuzz(Case(name, tmp_path / "root"), 15, derandomize=True)
    assert tried >= 10 and refused


@pytest.mark.parametrize(
    ("name", "edits"),
    [
        ("cifar10", [(0, 220, 0)]),  # a pickle that asks for an array of 141 MB
        ("png", [(0, 5334, 6)]),  # a chunk that declares 1 GB
        ("image_folder", [(0, 1666, 6)]),
    ],
)
def test_what_the_campaign_has_found(name, edits, tmp_path):
    Case(name, tmp_path / "root").run(0, edits)


def convnet_state(classes: int) -> dict[str, Any]:
    """Return the checkpoint of the command line's ``convnet`` for colour pictures."""
    state: dict[str, Any] = {"fc.weight": torch.ones(classes, 128), "fc.bias": torch.ones(classes)}
    for i, (before, after) in enumerate(((3, 32), (32, 64), (64, 128))):
        state[f"convs.{i}.weight"] = torch.ones(after, before, 3, 3)
        names = ("weight", "bias", "running_mean", "running_var")
        state |= {f"bns.{i}.{name}": torch.ones(after) for name in names}
    return state


@pytest.mark.parametrize("kind", ["idx", "torch", "picture"])
def test_commands_end_with_one_line_and_status_2(kind, tmp_path, capsys):
    root = tmp_path / "root"
    root.mkdir()
    PARSERS[{"picture": "image_folder"}.get(kind, kind)].write(root)
    if kind == "idx":
        damaged, arguments = root / "t10k-images-idx3-ubyte", ["train", "--data", f"idx:{root}", "--model", "mlp"]
    else:
        damaged, checkpoint = root / "train/cat/1.png", tmp_path / "model.pt"
        torch.save(convnet_state(2), checkpoint)
        arguments = [
            "transfer",
            "--data",
            f"folder:{root}",
            "--backbone",
            f"Dense:0={checkpoint}",
            "--model",
            "convnet",
        ]
        arguments += ["--upstream-classes", "2", "--size", "8", "--resize", "8", "--seeds", "1"]
        if kind == "torch":
            PARSERS["image_folder"].write(root)
            damaged = checkpoint
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err.strip()
    assert damaged.name in error.splitlines()[-1] and "Traceback" not in error


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", PARSERS)
def test_campaign_of_mutated_files(name, tmp_path, capsys):
    """SPARSEJAX_FUZZ_INPUTS (100,000 by default) are shared by the parsers; SPARSEJAX_FUZZ_SECONDS bounds the time."""
    share = int(os.environ.get("SPARSEJAX_FUZZ_INPUTS", "100000")) // len(PARSERS) + 1
    stop = time.monotonic() + float(os.environ.get("SPARSEJAX_FUZZ_SECONDS", "360000")) / len(PARSERS)
    case = Case(name, tmp_path / "root")
    tried = refused = 0
    while tried < share and time.monotonic() < stop:
        more_tried, more_refused = fuzz(case, min(BATCH, share - tried), derandomize=False)
        tried, refused = tried + more_tried, refused + more_refused
    with capsys.disabled():
        print(f"\n{name}: {tried} tried, {refused} refused, 0 failed")
