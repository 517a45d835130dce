"""docs/adding-a-method.md runs as it stands, and the docs' table has a row for every method."""

from __future__ import annotations

import inspect
import re
import sys
import types
from pathlib import Path

import pytest

from sparsejax.pruning import methods

ROOT = Path(__file__).resolve().parents[2]
HELPERS = {"acdc_phases", "dense_partner"}


def names_of_methods() -> list[str]:
    functions = [name for name in methods.__all__ if inspect.isfunction(getattr(methods, name))]
    return [name for name in functions if name not in HELPERS]


def test_the_page_adds_a_method_with_one_file_and_one_line(monkeypatch, capsys) -> None:
    file, line, usage = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "adding-a-method.md").read_text(), re.S)
    assert len(line.splitlines()) == 1
    module = types.ModuleType("sparsejax.pruning.methods._above_threshold")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(file, module.__dict__)
    package = {"__name__": "sparsejax.pruning.methods"}
    exec(inspect.getsource(methods).replace("# The names", f"{line}# The names"), package)
    assert "above_threshold" in package["__all__"] and len(package["__all__"]) == len(methods.__all__) + 1
    exec(usage, {**module.__dict__, "above_threshold": package["above_threshold"]})
    assert capsys.readouterr().out.split() == ["[[False", "False]", "[", "True", "True]]"]
    with pytest.raises(ValueError, match="above_threshold: stop has value 1; expected an integer, at least 2"):
        module.above_threshold(0.5, update_every=1, start=2, stop=1)


def test_the_table_of_methods_has_one_row_for_each() -> None:
    rows = re.findall(r"^\| `(\w+)` \| .* \| .* \|$", (ROOT / "docs" / "concepts.md").read_text(), re.M)
    assert sorted(rows) == names_of_methods()


def test_all_lists_public_names_in_order() -> None:
    assert sorted(methods.__all__) == methods.__all__
    assert all(getattr(methods, name).__module__.startswith("sparsejax.pruning") for name in methods.__all__)
