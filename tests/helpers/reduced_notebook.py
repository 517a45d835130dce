"""Runs the text of a notebook at reduced size, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from helpers.processes import LITTLE_OPTIMIZED

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


def run_reduced(name: str, **settings: str) -> str:
    """Return what it prints; the settings are added to the environment."""
    whole_tables = {"MPLBACKEND": "Agg", "COLUMNS": "250"}
    environment = os.environ | LITTLE_OPTIMIZED | whole_tables | {"SPARSEJAX_NOTEBOOK_SIZE": "small"} | settings
    command = [sys.executable, str(NOTEBOOKS / f"{name}.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout
