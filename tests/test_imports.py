"""Boundaries between the parts, the shape of the source tree, and what importing the package does not do."""

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import sparsejax

PACKAGE = Path(sparsejax.__file__).parent
ROOT = PACKAGE.parent
# The folders whose files may not import each other in a circle, and the package name of each.
SOURCES = {"sparsejax": PACKAGE, "sparsejax_bench": ROOT / "benchmarks"}
APPLICATIONS = ("sparsejax.analysis", "sparsejax.cli", "sparsejax.data", "sparsejax.models", "sparsejax.train")
FORBIDDEN = {
    "pattern": ("flax", "optax", "sparsejax.nn", "sparsejax.pruning", "sparsejax.kernels", *APPLICATIONS),
    "kernels": ("flax", "optax", "sparsejax.nn", "sparsejax.pruning", *APPLICATIONS),
    "pruning": ("flax", "sparsejax.kernels", "sparsejax.nn", "sparsejax.pattern", *APPLICATIONS),
    "nn": ("optax.contrib", "sparsejax.pruning", *APPLICATIONS),
    "models": ("sparsejax.pruning", "sparsejax.train", "sparsejax.analysis", "sparsejax.cli"),
    "data": ("flax", "optax", "sparsejax.nn", "sparsejax.kernels", "sparsejax.pruning", *APPLICATIONS[:2]),
    "train": ("sparsejax.analysis.bias", "sparsejax.analysis.multisource", "sparsejax.cli"),
    "analysis": ("sparsejax.kernels", "sparsejax.nn", "sparsejax.pruning", "sparsejax.cli"),
}
# Parts that load at first use.
SUBMODULES = ("analysis", "data", "models", "pruning", "train")
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
    "filelock",
    "jinja2",
    "PIL",
    "xgboost",
)


def imports(path, top_level_only=False, package=""):
    """Names that a file imports; relative ones are resolved in ``package``."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            origin = ".".join((*above, *([node.module] if node.module else [])))
            yield from (f"{origin}.{alias.name}" for alias in node.names)


@functools.cache
def modules() -> dict[str, Path]:
    """Every module of the sources by its dotted name; a package is its ``__init__``, the compiled module its stub."""
    named = {}
    for package, folder in SOURCES.items():
        for path in (*folder.rglob("*.py"), *folder.rglob("*.pyi")):
            parts = path.relative_to(folder).with_suffix("").parts
            named[".".join((package, *parts)).removesuffix(".__init__")] = path
    return named


def imported_modules(name: str) -> Iterator[str]:
    """Modules of the sources that a module imports, also inside functions and for the type checker alone.

    ``from package import name`` is the submodule of that name where there is one, else the package; and
    ``import package.sub`` is the submodule only.
    """
    path = modules()[name]
    for target in imports(path, package=name if path.name == "__init__.py" else name.rpartition(".")[0]):
        if target in modules():
            yield target
        elif target.rpartition(".")[0] in modules():
            yield target.rpartition(".")[0]


def circles() -> list[list[str]]:
    """Groups of modules that import each other (strongly connected components, by Tarjan's algorithm)."""
    graph = {name: sorted(set(imported_modules(name)) - {name}) for name in modules()}
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in graph[name]:
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                groups.append(sorted(group))

    for name in graph:
        if name not in index:
            visit(name)
    return groups


def test_no_modules_import_each_other_in_a_circle():
    assert len(modules()) > 200
    assert "sparsejax.kernels._primitive" in set(imported_modules("sparsejax.kernels._matmul"))
    assert circles() == []


def test_no_folder_has_more_than_25_modules_side_by_side():
    for source in SOURCES.values():
        for folder in {path.parent for path in source.rglob("*.py")}:
            count = len(list(folder.glob("*.py")))
            assert count <= 25, f"{folder.relative_to(ROOT)} has {count} modules"


def test_every_package_that_exports_lists_its_public_names():
    """A package whose ``__init__`` imports nothing is a folder of another package: its files are named one by one."""
    for name, path in modules().items():
        if path.name == "__init__.py" and name.split(".")[0] == "sparsejax" and list(imports(path)):
            assigned = {
                target.id
                for node in ast.parse(path.read_text()).body
                if isinstance(node, ast.Assign)
                for target in node.targets
                if isinstance(target, ast.Name)
            }
            assert "__all__" in assigned, f"{path.relative_to(ROOT)} has no __all__"


@pytest.mark.parametrize("part", FORBIDDEN)
def test_boundaries(part):
    files = list((PACKAGE / part).rglob("*.py"))
    assert files
    for path in files:
        for name in imports(path):
            broken = [f for f in FORBIDDEN[part] if name == f or name.startswith(f + ".")]
            assert not broken, f"{path.relative_to(PACKAGE)} imports {name}"


# A primitive whose lowering rule asks for the program's devices must be in a set here, which has no public name.
DEVICES_OF_LOWERING = "jax._src.dispatch"


def test_only_compat_uses_unstable_names():
    for path in PACKAGE.rglob("*.py"):
        for name in imports(path):
            known = path.name == "_compat.py" and name == DEVICES_OF_LOWERING
            assert known or "jax._src" not in name, f"{path} imports {name}"
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
loaded = [m for m in {("matplotlib", "sklearn", "torch", "safetensors", "pandas", "PIL", "jinja2", "orbax")!r}
    if m in sys.modules]
assert not loaded, loaded
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent)
    assert done.returncode == 0, done.stderr


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_sparsejax_loads_no_more_than_the_layers_and_kernels():
    """It costs what jax, flax.nnx and optax cost, plus our own few modules, and no other package."""
    code = """
import sys
import jax, flax.nnx, optax
before = set(sys.modules)
import sparsejax
print(*sorted(set(sys.modules) - before))
"""
    loaded = run(code).split()
    ours = [name for name in loaded if name.split(".")[0] == "sparsejax"]
    for part in SUBMODULES:
        assert not any(name == f"sparsejax.{part}" or name.startswith(f"sparsejax.{part}.") for name in ours), part
    assert "sparsejax.nn.linen" not in ours
    assert len(ours) <= 60, ours
    standard = {name for name in loaded if name.split(".")[0] in sys.stdlib_module_names}
    assert set(loaded) - set(ours) - standard == set()
    assert len(standard) <= 5, standard


def test_submodules_load_at_first_use():
    parts = [*SUBMODULES, "kernels", "nn", "nn.linen", "analysis.bias", "analysis.multisource", "analysis.transfer"]
    names = ", ".join(f"sx.{part}.__name__" for part in parts)
    assert run(f"import sparsejax as sx; print({names})").split() == [f"sparsejax.{part}" for part in parts]


def test_dir_shows_what_a_user_needs_and_nothing_else():
    for package in (sparsejax, sparsejax.nn, sparsejax.kernels, sparsejax.pattern):
        assert dir(package) == sorted(package.__all__)
        assert all(getattr(package, name) is not None for name in dir(package))
    assert not [name for name in dir(sparsejax) if name.startswith("_") and name != "__version__"]
    with pytest.raises(AttributeError, match="module 'sparsejax' has no attribute 'prunning'"):
        _ = sparsejax.prunning
