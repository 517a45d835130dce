"""Runs of ``sparsejax train`` in processes of their own: start, kill, and compare how they ended."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from helpers.processes import environment
from sparsejax.train.checkpoints._arrays import masks_in
from sparsejax.train.checkpoints._orbax import load_arrays


def start_train(out: Path, *words: str) -> subprocess.Popen[str]:
    """The running ``sparsejax train``, with its output in pipes."""
    command, pipe = [sys.executable, "-m", "sparsejax", "train", *words, "--json", "--out", str(out)], subprocess.PIPE
    return subprocess.Popen(command, env=environment(), stdout=pipe, stderr=pipe, text=True)


def finished(process: subprocess.Popen[str], timeout: float) -> tuple[str, str]:
    """What a process has printed, and its errors; it is killed, with those that it started, if it takes too long."""
    try:
        return process.communicate(timeout=timeout)
    finally:
        process.kill()


def train(out: Path, *words: str, timeout: float = 400) -> Path:
    """The folder of a finished ``sparsejax train``."""
    process = start_train(out, *words)
    printed, errors = finished(process, timeout)
    assert process.returncode == 0, errors[-3000:]
    assert len(printed.strip().splitlines()) == 1, printed  # the numbers of process 0, and nothing else
    return out


def checkpoints(out: Path) -> list[int]:
    folder = out / "checkpoints"
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal()) if folder.is_dir() else []


def losses(out: Path) -> np.ndarray:
    with (out / "metrics.csv").open() as file:
        return np.array([float(row["loss"]) for row in csv.DictReader(file)])


def masks(out: Path) -> dict[str, np.ndarray]:
    arrays = load_arrays((out / "checkpoints" / str(checkpoints(out)[-1]) / "default").resolve(), {})
    return masks_in(arrays)


def same_masks(one: Path, two: Path) -> bool:
    a, b = masks(one), masks(two)
    return bool(a) and a.keys() == b.keys() and all(np.array_equal(a[path], b[path]) for path in a)


def children(pid: int) -> list[int]:
    """The processes that a process has started, in their order."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def kill_one(process: subprocess.Popen[str], out: Path, after: int, which: int, timeout: float = 200) -> list[int]:
    """Kill a process of a run after a checkpoint of a step that is not before ``after``; the pids of all."""
    end = time.monotonic() + timeout
    while not any(step >= after for step in checkpoints(out)):
        assert process.poll() is None and time.monotonic() < end, process.communicate()[1][-3000:]
        time.sleep(0.01)
    pids = children(process.pid)
    os.kill(pids[which], signal.SIGKILL)
    return pids
