"""The site builds without a warning, and its reference has every public name."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (
    "sparsejax",
    "sparsejax.analysis.bias",
    "sparsejax.analysis.multisource",
    "sparsejax.analysis.transfer",
    "sparsejax.data",
    "sparsejax.kernels",
    "sparsejax.machine",
    "sparsejax.models",
    "sparsejax.nn",
    "sparsejax.nn.cost_model",
    "sparsejax.nn.linen",
    "sparsejax.pattern",
    "sparsejax.pruning",
    "sparsejax.pruning.accounting",
    "sparsejax.pruning.allocation",
    "sparsejax.pruning.methods",
    "sparsejax.pruning.schedules",
    "sparsejax.pruning.scores",
    "sparsejax.train",
)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    # With --quiet no warning is counted.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "JUPYTER_PLATFORM_DIRS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def public_names() -> dict[int, set[str]]:
    """The public paths of every object: what two packages export is one object with two of them."""
    paths: dict[int, set[str]] = {}
    for package in PACKAGES:
        module = importlib.import_module(package)
        for name in module.__all__:
            path, value = f"{package}.{name}", getattr(module, name)
            if name != "__version__" and not isinstance(value, type(sys)):
                is_constant = isinstance(value, (str, int, float, tuple, frozenset)) or not hasattr(value, "__module__")
                paths.setdefault(hash(path) if is_constant else id(value), set()).add(path)
    return paths


def test_the_reference_has_every_public_name(site):
    pages = [page.read_text() for page in (site / "reference").rglob("*.html")]
    documented = {name for page in pages for name in re.findall(r'id="(sparsejax[\w.]*)"', page)}
    names = public_names()
    assert len(names) > 330
    missing = sorted(min(paths) for paths in names.values() if not paths & documented)
    assert missing == [], "add '::: NAME' for each to the page of docs/reference where a reader would look for it"


def test_examples_of_docstrings_are_code(site):
    pages = "".join(page.read_text() for page in (site / "reference").rglob("*.html"))
    assert pages.count('<span class="gp">') > 250  # prompts, as highlighted code
    assert "<blockquote>" not in pages


def test_powers_are_not_read_as_bold(site):
    pages = {page: page.read_text() for page in site.rglob("*.html") if "notebooks" not in page.parts}
    bold = {page.parent.name: re.findall(r".{20}\w<strong>", text) for page, text in pages.items()}
    assert {name: found for name, found in bold.items() if found} == {}


def test_every_package_with_public_names_is_in_the_list():
    package = Path(importlib.import_module("sparsejax").__file__).parent
    public = {
        ".".join(("sparsejax", *path.parent.relative_to(package).parts))
        for path in package.rglob("__init__.py")
        if "__all__" in path.read_text() and not any(part.startswith("_") for part in path.parts)
    }
    internal = {"sparsejax.analysis", "sparsejax.analysis.bias.html"}  # submodules only; the audit's own page
    assert public - internal - set(PACKAGES) == set()
