"""Every committed notebook was run, is small, and says what its text pair says."""

from __future__ import annotations

from pathlib import Path

import jupytext
import pytest

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
NAMES = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))

# No warning may show. The code of two notebooks names a class of warnings that it expects.
REFUSED = dict.fromkeys(NAMES, b"Warning") | {"acdc": b"UserWarning", "flea": b"Warning: "}


@pytest.fixture(scope="module", params=NAMES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def executed(name):
    return jupytext.read(NOTEBOOKS / f"{name}.ipynb")


def test_the_expected_notebooks_are_there():
    assert set(NAMES) >= {"acdc", "bias", "flea", "transfer"}


def test_the_two_forms_agree_cell_by_cell(name, executed):
    text = jupytext.read(NOTEBOOKS / f"{name}.py")
    assert [(c.cell_type, c.source) for c in text.cells] == [(c.cell_type, c.source) for c in executed.cells]


def test_it_was_run_without_error(name, executed):
    code = [cell for cell in executed.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    kinds = [output.output_type for cell in code for output in cell.outputs]
    assert "error" not in kinds and kinds.count("display_data") > 10
    raw = (NOTEBOOKS / f"{name}.ipynb").read_bytes()
    assert len(raw) < 1_000_000
    assert REFUSED[name] not in raw and str(NOTEBOOKS.parent).encode() not in raw
