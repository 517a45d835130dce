"""The transfer notebook: runs at reduced size, its two forms agree, the committed one has outputs and no error."""

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
    return jupytext.read(NOTEBOOKS / "transfer.ipynb")


def test_the_two_forms_agree_cell_by_cell(executed):
    text = jupytext.read(NOTEBOOKS / "transfer.py")
    assert [(c.cell_type, c.source) for c in text.cells] == [(c.cell_type, c.source) for c in executed.cells]


def test_the_committed_notebook_was_run_without_error(executed):
    code = [cell for cell in executed.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    kinds = [output.output_type for cell in code for output in cell.outputs]
    assert "error" not in kinds and kinds.count("display_data") > 20
    raw = (NOTEBOOKS / "transfer.ipynb").read_bytes()
    assert len(raw) < 1_000_000
    assert b"Warning" not in raw and str(NOTEBOOKS).encode() not in raw
    assert b"skipped" not in b"".join(str(cell.outputs).encode() for cell in code)  # both parts were run


@pytest.mark.parametrize("with_data", [True, False])
def test_it_runs_at_reduced_size(tmp_path, with_data, request):
    folder = request.getfixturevalue("shared_data") if with_data else tmp_path
    settings = {"SPARSEJAX_NOTEBOOK_SIZE": "small", "MPLBACKEND": "Agg", "SPARSEJAX_DATA": str(folder)}
    done = subprocess.run(
        [sys.executable, str(NOTEBOOKS / "transfer.py")], env=os.environ | settings, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert ("is skipped" in done.stdout) == (not with_data)
