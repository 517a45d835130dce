"""One writer per folder: the second process is told which process writes there, and ends with status 2."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from flax import nnx

from helpers.processes import environment
from sparsejax._folder_lock import FolderInUseError, folder_lock
from sparsejax.analysis.transfer import Backbone, run_transfer
from sparsejax.cli import main

HOLD = """
import sys, time
from sparsejax._folder_lock import folder_lock
with folder_lock(sys.argv[1], "train"):
    print("locked", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def writer(tmp_path):
    """Another process that writes to the folder."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "locked\n"
        yield process
        process.kill()


@pytest.mark.parametrize(
    "words",
    [
        ["train", "--model", "mlp", "--epochs", "1", "--batch-size", "256"],
        ["train", "--model", "mlp", "--epochs", "1", "--batch-size", "256", "--method", "static", "--against-dense"],
        ["demo", "--epochs", "1"],
        ["transfer", "--backbone", "none", "--data", "digits"],
    ],
    ids=["train", "against dense", "demo", "transfer"],
)
def test_the_second_process_is_refused_in_one_line(writer, tmp_path, capsys, words):
    assert main([*words, "--json", "--out", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1
    assert f"has a writer, process {writer.pid} on " in err and "(train); expected none. Wait for it" in err
    assert not (tmp_path / "metrics.csv").exists() and not (tmp_path / "result.json").exists()


def test_a_block_inside_another_takes_the_lock_again_in_the_same_thread_only(tmp_path):
    with folder_lock(tmp_path, "outer"):
        with folder_lock(tmp_path, "inner"):
            pass
        assert json.loads((tmp_path / ".sparsejax.lock.json").read_text())["command"] == "outer"
        with ThreadPoolExecutor(1) as pool, pytest.raises(FolderInUseError, match=rf"process {os.getpid()} on .*outer"):
            pool.submit(lambda: folder_lock(tmp_path, "other").__enter__()).result()
    with folder_lock(tmp_path, "next"):
        pass


def test_a_second_study_from_python_is_refused(writer, tmp_path):
    backbone, task = Backbone(nnx.Linear(2, 2, rngs=nnx.Rngs(0))), SimpleNamespace(name="task")
    with pytest.raises(FolderInUseError, match=rf"transfer: folder .* has a writer, process {writer.pid} on "):
        run_transfer([backbone], [task], tmp_path)  # type: ignore[list-item]


def test_a_second_study_of_sources_is_refused(writer, tmp_path, capsys, shared_data):
    words = ["--data", "germancredit", "--path", str(shared_data / "flea"), "--seeds", "1"]
    assert main(["multisource", "run", *words, "--out", str(tmp_path)]) == 2
    assert f"multisource: folder {str(tmp_path)!r} has a writer, process {writer.pid} on " in capsys.readouterr().err


def test_a_second_audit_is_refused(writer, tmp_path_factory, tmp_path, capsys):
    rng, inputs = np.random.default_rng(0), tmp_path_factory.mktemp("inputs")
    for name in ("dense", "sparse"):
        np.savez(inputs / f"{name}.npz", logits=rng.normal(size=(40, 2)))
    np.savez(inputs / "labels.npz", labels=rng.integers(0, 2, (40, 2)))
    words = [word for name in ("dense", "sparse", "labels") for word in (f"--{name}", str(inputs / f"{name}.npz"))]
    assert main(["bias", *words, "--out", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert f"bias: folder {str(tmp_path)!r} has a writer, process {writer.pid} on " in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("below", [".", "folder/deeper"])
@pytest.mark.parametrize(
    "words",
    [
        ["train", "--model", "mlp", "--epochs", "1"],
        ["transfer", "--backbone", "none", "--data", "digits"],
        ["multisource", "run", "--data", "germancredit"],
        ["multisource", "filter", "--data", "csv:FILE", "--target", "y", "--sensitive", "a", "--source", "s"],
    ],
    ids=["train", "transfer", "run", "filter"],
)
def test_a_file_in_the_place_of_the_folder_is_one_line(tmp_path, capsys, shared_data, words, below):
    (tmp_path / "taken").touch()
    table = tmp_path / "own.csv"
    table.write_text("y,a,s,x\n" + "".join(f"{i % 2},{i // 2 % 2},{i % 3},{i}\n" for i in range(60)))
    words = [word.replace("FILE", str(table)) for word in words]
    words += ["--path", str(shared_data / "flea")] if "germancredit" in words else []
    place = tmp_path / "taken" / below
    assert main([*words, "--out", str(place)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert f"folder {str(place)!r} has a file at this place, or above it; expected a folder, or a name" in err


def test_the_lock_of_a_killed_process_is_taken_over(writer, tmp_path):
    with pytest.raises(FolderInUseError), folder_lock(tmp_path, "train"):
        pass
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert (tmp_path / ".sparsejax.lock.json").exists()  # what it wrote down is stale, and misleads nobody
    with folder_lock(tmp_path, "train"):
        assert json.loads((tmp_path / ".sparsejax.lock.json").read_text())["pid"] == os.getpid()
    assert not (tmp_path / ".sparsejax.lock.json").exists()


def test_an_unreadable_owner_is_another_process(writer, tmp_path):
    (tmp_path / ".sparsejax.lock.json").write_text("{")
    message = "has a writer, another process; expected none"
    with pytest.raises(FolderInUseError, match=message), folder_lock(tmp_path, "train"):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.0, 1.5, 4.0])
def test_two_training_processes_in_one_folder(tmp_path, delay):
    """One of them trains to the end, whole; the other ends with status 2."""
    words = ["--model", "mlp", "--epochs", "4", "--batch-size", "128", "--out", str(tmp_path)]
    command, pipe = [sys.executable, "-m", "sparsejax", "train", *words], subprocess.PIPE
    running = []
    for _ in range(2):
        running.append(subprocess.Popen(command, env=environment(), stdout=pipe, stderr=pipe))
        time.sleep(delay)
    output = [process.communicate(timeout=300) for process in running]
    assert sorted(process.returncode for process in running) == [0, 2], output
    refused = next(err for process, (_, err) in zip(running, output, strict=True) if process.returncode == 2)
    assert len(refused.splitlines()) == 1 and b"has a writer, process" in refused
    assert json.loads((tmp_path / "result.json").read_text())["step"] == 44
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 45
