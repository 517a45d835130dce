"""The FLEA notebook runs at reduced size."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


def test_it_runs_at_reduced_size():
    settings = {"SPARSEJAX_NOTEBOOK_SIZE": "small", "MPLBACKEND": "Agg"}
    done = subprocess.run(
        [sys.executable, str(NOTEBOOKS / "flea.py")], env=os.environ | settings, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_it_says_what_it_leaves_out_without_data(tmp_path):
    settings = {"SPARSEJAX_NOTEBOOK_SIZE": "small", "MPLBACKEND": "Agg", "SPARSEJAX_DATA": str(tmp_path)}
    settings["SPARSEJAX_FLEA_PUBLISHED"] = str(tmp_path / "none.csv")
    done = subprocess.run(
        [sys.executable, str(NOTEBOOKS / "flea.py")], env=os.environ | settings, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "No tables" in done.stdout and "No file with published results" in done.stdout
