"""A disk that is full or read-only ends a run with one line and status 2; with space it resumes to the reference."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.processes import LITTLE_OPTIMIZED, environment, tail
from helpers.small_run import assert_same_bits, checkpoint_arrays
from sparsejax.cli import main
from sparsejax.train import TrainConfig
from sparsejax.train.checkpoints._checkpoint import Checkpoints

# Ends every write beyond a size of a file, as a full disk does: "File too large" instead of "No space left on device".
LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
from sparsejax.cli import main
sys.exit(main(sys.argv[2:]))
"""
CONFIG = TrainConfig(model="mlp", epochs=2, batch_size=128)
WORDS = [
    "train",
    "--model",
    "mlp",
    "--epochs",
    "2",
    "--batch-size",
    "128",
    "--checkpoint-every",
    "3",
    "--json",
    "--out",
]


# The disk fills up after the space of a checkpoint has been reserved: Orbax's own threads fail.
LATE = "import os; os.posix_fallocate = lambda *_: None\n"


def run(out: Path, limit: int, before: str = "") -> subprocess.CompletedProcess[str]:
    """A finished process whose disk is full. JAX's cache of programs would warn that it is, too."""
    command = [sys.executable, "-c", before + LIMITED, str(limit), *WORDS, str(out)]
    env = environment() | LITTLE_OPTIMIZED | {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run that had space."""
    out = tmp_path_factory.mktemp("whole")
    assert main([*WORDS, str(out)]) == 0
    return out


def arrays(out: Path):
    return checkpoint_arrays(Checkpoints(out / "checkpoints", CONFIG.to_dict()), 22)


# Not even the configuration; the log; the first checkpoint, whose arrays are larger.
@pytest.mark.parametrize("limit", [100, 800, 100_000])
def test_one_line_and_the_rest_when_there_is_space(whole, tmp_path, capsys, limit):
    done = run(tmp_path, limit)
    assert done.returncode == 2, tail(done)
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("error: "), done.stderr
    assert not (tmp_path / "result.json").exists()
    assert main([*WORDS, str(tmp_path)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["accuracy"] == json.loads((whole / "result.json").read_text())["accuracy"]
    assert_same_bits(arrays(tmp_path), arrays(whole))


def test_a_disk_that_fills_up_while_orbax_writes_is_one_line(tmp_path):
    done = run(tmp_path, 100_000, LATE)
    assert done.returncode == 2, tail(done)
    assert len(done.stderr.splitlines()) == 1 and "cannot be written: " in done.stderr, done.stderr
    assert not [path for path in (tmp_path / "checkpoints").iterdir() if path.name.isdecimal()]


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_read_only_folder_is_one_line(tmp_path, capsys):
    tmp_path.chmod(0o500)
    assert main([*WORDS, str(tmp_path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main([*WORDS, str(tmp_path / "file" / "run")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("function", ["plot_metrics", "write_atomically"])
def test_the_end_of_a_run_fails_in_one_line_and_can_be_repeated(tmp_path, capsys, monkeypatch, function):
    """The picture and the result: after the last checkpoint nothing is trained again."""

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(f"sparsejax.train._loop.{function}", full)
        assert main([*WORDS, str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err == "error: [Errno 28] No space left on device\n"
    assert main([*WORDS, str(tmp_path)]) == 0
    assert json.loads((tmp_path / "result.json").read_text())["step"] == 22
