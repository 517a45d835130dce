"""The FLEA notebook: runs at reduced size, its two forms agree, and the committed one has outputs and no error."""

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
    return jupytext.read(NOTEBOOKS / "flea.ipynb")


def test_the_two_forms_agree_cell_by_cell(executed):
    text = jupytext.read(NOTEBOOKS / "flea.py")
    assert [(c.cell_type, c.source) for c in text.cells] == [(c.cell_type, c.source) for c in executed.cells]


def test_the_committed_notebook_was_run_without_error(executed):
    code = [cell for cell in executed.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    kinds = [output.output_type for cell in code for output in cell.outputs]
    assert "error" not in kinds and kinds.count("display_data") > 10
    raw = (NOTEBOOKS / "flea.ipynb").read_bytes()
    assert len(raw) < 1_000_000
    assert b"Warning" not in raw and str(NOTEBOOKS).encode() not in raw


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
