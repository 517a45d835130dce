"""The AC/DC notebook runs at reduced size."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


def test_it_runs_at_reduced_size():
    settings = {"SPARSEJAX_NOTEBOOK_SIZE": "small", "MPLBACKEND": "Agg", "COLUMNS": "250"}
    done = subprocess.run(
        [sys.executable, str(NOTEBOOKS / "acdc.py")], env=os.environ | settings, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "seen here" in done.stdout
