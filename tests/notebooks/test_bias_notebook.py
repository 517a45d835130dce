"""The bias notebook runs at reduced size."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


def test_it_runs_at_reduced_size(tmp_path):
    settings = {"SPARSEJAX_NOTEBOOK_SIZE": "small", "MPLBACKEND": "Agg"}
    settings["SPARSEJAX_BIAS_REPORT"] = str(tmp_path / "report.html")
    done = subprocess.run(
        [sys.executable, str(NOTEBOOKS / "bias.py")], env=os.environ | settings, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")
