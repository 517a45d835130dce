"""Runs Python in a process of its own: for settings read at start, and where a crash or a hang is the failure."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import sparsejax

TESTS = Path(__file__).resolve().parents[1]


def run_python(*arguments: str, timeout: float, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """The finished process of ``python ARGUMENTS``, with the sparsejax of this process and the tests importable."""
    inherited = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "SPARSEJAX_ISA", "NPROC")}
    package = Path(sparsejax.__file__).resolve().parents[1]
    path = os.pathsep.join(filter(None, (str(package), str(TESTS), inherited.get("PYTHONPATH", ""))))
    return subprocess.run(
        [sys.executable, *arguments],
        env=inherited | {"PYTHONPATH": path} | (env or {}),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def tail(process: subprocess.CompletedProcess[str]) -> str:
    """What to show of a process that failed."""
    return f"exit status {process.returncode}\n{process.stdout[-2000:]}\n{process.stderr[-4000:]}"
