"""What the README promises is what runs."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_ci_runs_exactly_the_second_command_of_the_readme():
    ci = (ROOT / ".ci" / "run").read_text()
    command = ci.strip().splitlines()[-1]
    assert command in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("name", ["LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff"])
def test_the_usual_files_are_there(name):
    assert (ROOT / name).read_text().strip()


def test_contributing_is_short():
    assert len((ROOT / "CONTRIBUTING.md").read_text().splitlines()) < 60


def test_names_are_nouns_of_the_field():
    """No variable is called by a participle that says nothing of what it is."""
    vague = {"found", "given", "own", "held", "comes"}
    bad = []
    for path in (ROOT / "sparsejax").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            is_variable = isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
            names = [node.id] if is_variable else [getattr(node, "arg", "") or getattr(node, "name", "") or ""]
            bad += [f"{path.relative_to(ROOT)}: {name}" for name in names if vague & {*str(name).lower().split("_")}]
    assert bad == []
