"""The transfer notebook's text runs at reduced size."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


@pytest.mark.parametrize("with_data", [True, False])
def test_it_runs_at_reduced_size(tmp_path, with_data, request):
    folder = request.getfixturevalue("shared_data") if with_data else tmp_path
    settings = {"SPARSEJAX_NOTEBOOK_SIZE": "small", "MPLBACKEND": "Agg", "SPARSEJAX_DATA": str(folder)}
    done = subprocess.run(
        [sys.executable, str(NOTEBOOKS / "transfer.py")], env=os.environ | settings, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert ("is skipped" in done.stdout) == (not with_data)
