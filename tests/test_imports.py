"""Boundaries between the parts, and what importing the package does not do."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import sparsejax

PACKAGE = Path(sparsejax.__file__).parent
FORBIDDEN = {
    "pattern": ("flax", "optax", "sparsejax.nn", "sparsejax.pruning", "sparsejax.kernels"),
    "kernels": ("flax", "optax", "sparsejax.nn", "sparsejax.pruning"),
    "pruning": ("flax", "sparsejax.kernels", "sparsejax.nn", "sparsejax.pattern"),
    "nn": ("optax.contrib", "sparsejax.pruning", "sparsejax.train", "sparsejax.models"),
    "models": ("sparsejax.pruning", "sparsejax.train"),
    "data": ("flax", "optax", "sparsejax.nn", "sparsejax.kernels", "sparsejax.pruning"),
    "analysis": ("sparsejax.kernels", "sparsejax.nn", "sparsejax.pruning"),
}
OPTIONAL = (
    "matplotlib",
    "sklearn",
    "torch",
    "safetensors",
    "scipy",
    "rich",
    "orbax",
    "pandas",
    "joblib",
    "fairlearn",
    "jinja2",
    "PIL",
    "xgboost",
)


def imports(path, top_level_only=False):
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("part", FORBIDDEN)
def test_boundaries(part):
    files = list((PACKAGE / part).rglob("*.py"))
    assert files
    for path in files:
        for name in imports(path):
            broken = [f for f in FORBIDDEN[part] if name == f or name.startswith(f + ".")]
            assert not broken, f"{path.relative_to(PACKAGE)} imports {name}"


def test_only_compat_uses_unstable_names():
    for path in PACKAGE.rglob("*.py"):
        for name in imports(path):
            assert "jax._src" not in name, f"{path} imports {name}"
            unstable = name.startswith(("jax.interpreters", "jax.extend", "jax.experimental.layout"))
            assert not unstable or path.name == "_compat.py", f"{path} imports {name}"


def test_optional_dependencies_are_not_imported_at_the_top():
    for path in PACKAGE.rglob("*.py"):
        for name in imports(path, top_level_only=True):
            assert name.split(".")[0] not in OPTIONAL, f"{path} imports {name} at the top"


def test_modules_and_functions_stay_short():
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        assert len(text.splitlines()) <= 400, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                lines = (node.end_lineno - body[0].lineno + 1) if body else 0
                assert lines <= 60, f"{path}: {node.name} has {lines} lines"


def test_importing_starts_no_backend_and_loads_no_optional_dependency():
    code = f"""
import sys, sparsejax, sparsejax.nn, sparsejax.pruning, sparsejax.models, sparsejax.data, sparsejax.analysis.bias
import sparsejax.analysis.transfer
from jax._src import xla_bridge
assert not xla_bridge._backends, "a backend was started"
loaded = [m for m in {("matplotlib", "sklearn", "torch", "safetensors", "pandas", "PIL", "jinja2")!r}
    if m in sys.modules]
assert not loaded, loaded
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent)
    assert done.returncode == 0, done.stderr
