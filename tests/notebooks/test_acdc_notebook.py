"""The AC/DC notebook: runs at reduced size, its two forms agree, and the committed one has outputs and no error."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import jupytext
import pytest

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


@pytest.fixture(scope="module")
def executed():
    return jupytext.read(NOTEBOOKS / "acdc.ipynb")


def test_the_two_forms_agree_cell_by_cell(executed):
    text = jupytext.read(NOTEBOOKS / "acdc.py")
    assert [(c.cell_type, c.source) for c in text.cells] == [(c.cell_type, c.source) for c in executed.cells]


def test_the_committed_notebook_was_run_without_error(executed):
    code = [cell for cell in executed.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    kinds = [output.output_type for cell in code for output in cell.outputs]
    assert "error" not in kinds and kinds.count("display_data") > 10
    raw = (NOTEBOOKS / "acdc.ipynb").read_bytes()
    assert len(raw) < 1_000_000
    assert b"UserWarning" not in raw and str(NOTEBOOKS.parent).encode() not in raw


def test_it_runs_at_reduced_size():
    settings = {"SPARSEJAX_NOTEBOOK_SIZE": "small", "MPLBACKEND": "Agg", "COLUMNS": "250"}
    done = subprocess.run(
        [sys.executable, str(NOTEBOOKS / "acdc.py")], env=os.environ | settings, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "seen here" in done.stdout
