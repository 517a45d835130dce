"""What an installation brings, and what the files around the package say about it."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import sparsejax
from sparsejax.cli import main

PACKAGE = Path(sparsejax.__file__).parent
REPOSITORY = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
DISTRIBUTIONS = {"sklearn": "scikit-learn", "PIL": "pillow"}
PAPERS = (
    "SparseProp: Efficient Sparse Backpropagation",
    "AC/DC: Alternating Compressed/DeCompressed Training",
    "How Well Do Sparse ImageNet Models Transfer?",
    "Bias in Pruned Vision Models",
    "FLEA: Provably Robust Fair Multisource Learning",
)


def required_modules() -> set[str]:
    """Packages that the code asks for by ``require``."""
    words = (re.findall(r'\brequire\(\s*"([\w.]+)"', path.read_text()) for path in PACKAGE.rglob("*.py"))
    return {name.partition(".")[0] for found in words for name in found}


def test_the_extra_all_has_everything_that_a_command_asks_for():
    modules = required_modules()
    assert modules >= {"pandas", "sklearn", "filelock", "matplotlib", "xgboost"}
    extras = PROJECT["project"]["optional-dependencies"]
    clusters = extras["dask"] + extras["ray"]  # large, and needed by those only who have such a cluster
    listed = {re.split(r"[<>=\[;]", entry)[0].lower() for entry in extras["all"] + clusters}
    needed = modules - sys.stdlib_module_names
    assert {DISTRIBUTIONS.get(name, name).lower() for name in needed} - listed == set()


def test_the_version_is_written_once(capsys):
    assert "version" in PROJECT["project"]["dynamic"] and "version" not in PROJECT["project"]
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"sparsejax {sparsejax.__version__}\n"


def test_the_wheel_matrix_starts_with_the_versions_that_are_compiled():
    stable = PROJECT["tool"]["scikit-build"]["wheel"]["py-api"]
    built = [word.removesuffix("-*") for word in PROJECT["tool"]["cibuildwheel"]["build"].split()]
    assert built[:2] == ["cp311", stable]  # one wheel of its own, then the abi3 one; the others test that
    floor = next(entry for entry in PROJECT["project"]["dependencies"] if entry.startswith("jaxlib"))
    assert floor.replace(">=", "==") in PROJECT["build-system"]["requires"]  # newer headers refuse an older jaxlib


def test_the_citation_names_the_five_papers():
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    titles = [reference["title"] for reference in citation["references"]]
    assert [paper for paper in PAPERS if not any(title.startswith(paper) for title in titles)] == []
    assert all(
        {"family-names", "given-names"} <= set(author) for r in citation["references"] for author in r["authors"]
    )


def test_workflows_run_the_commands_of_contributors():
    folder = REPOSITORY / ".github" / "workflows"
    jobs = {path.stem: yaml.safe_load(path.read_text())["jobs"] for path in folder.glob("*.yml")}
    assert jobs.keys() == {"tests", "wheels", "docs"}
    steps = {
        name: [step.get("run", "") for job in all_.values() for step in job["steps"]] for name, all_ in jobs.items()
    }
    assert "bash .ci/run" in steps["tests"] and any("tests/quick.sh" in run for run in steps["tests"])
    assert "mkdocs build --strict" in steps["docs"]
    runners = {entry["os"] for entry in jobs["tests"]["all"]["strategy"]["matrix"]["include"]}
    assert runners == set(jobs["wheels"]["wheels"]["strategy"]["matrix"]["os"])
