"""Runs Python in a process of its own: for settings read at start, and where a crash or a hang is the failure."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import sparsejax

TESTS = Path(__file__).resolve().parents[1]
# For a process in which nothing depends on how well XLA compiles: compiling takes most of the time of such a process.
LITTLE_OPTIMIZED = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}


def run_python(*arguments: str, timeout: float, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """The finished process of ``python ARGUMENTS``, with the sparsejax of this process and the tests importable."""
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment() | (env or {}),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def start_python(*arguments: str) -> subprocess.Popen[str]:
    """The running process of ``python ARGUMENTS``, whose output nobody reads."""
    silent = subprocess.DEVNULL
    return subprocess.Popen([sys.executable, *arguments], env=environment(), stdout=silent, stderr=silent, text=True)


def environment() -> dict[str, str]:
    """Variables of a process that imports the sparsejax of this process and the tests, with settings of its own."""
    inherited = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "SPARSEJAX_ISA", "NPROC")}
    package = Path(sparsejax.__file__).resolve().parents[1]
    path = os.pathsep.join(filter(None, (str(package), str(TESTS), inherited.get("PYTHONPATH", ""))))
    return inherited | {"PYTHONPATH": path}


def tail(process: subprocess.CompletedProcess[str]) -> str:
    """What to show of a process that failed."""
    return f"exit status {process.returncode}\n{process.stdout[-2000:]}\n{process.stderr[-4000:]}"
