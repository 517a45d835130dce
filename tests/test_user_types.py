"""What a type checker knows about the public API, in a user's script."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import sparsejax

SCRIPT = """
from typing import assert_type

import jax
import jax.numpy as jnp
import numpy as np
import optax
import sparsejax as sx
from flax import nnx


class MLP(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.hidden = nnx.Linear(8, 16, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.hidden(x)


pattern = sx.SparsityPattern.from_mask(np.eye(8, dtype=bool), nse=10)
assert_type(pattern, sx.SparsityPattern)
assert_type(pattern.shape, tuple[int, ...])
assert_type(pattern.nse, int)
assert_type(pattern.sparsity, float)
data = pattern.gather(np.eye(8, dtype=np.float32))
assert_type(data, jax.Array)
assert_type(pattern.scatter(data), jax.Array)
assert_type(pattern == pattern, bool)

assert_type(sx.spmm(data, pattern, jnp.ones((2, 8))), jax.Array)
assert_type(sx.spmm(np.ones(10, np.float32), pattern, np.ones((2, 8), np.float32)), jax.Array)
window = sx.SparsityPattern.from_dense(jnp.ones((3, 3, 4, 8)))
image = sx.conv(jnp.ones(window.nse), window, jnp.ones((1, 6, 6, 4)), strides=(2, 1), padding=((1, 1), 0))
assert_type(image, jax.Array)
assert_type(sx.kernels.sddmm(pattern, jnp.ones((2, 8)), jnp.ones((2, 8))), jax.Array)

layer = sx.nn.SparseLinear(8, 8, pattern=pattern, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
assert_type(layer, sx.nn.SparseLinear)
assert_type(layer(jnp.ones((2, 8))), jax.Array)
assert_type(layer.pattern, sx.SparsityPattern)
assert_type(layer.to_dense(), nnx.Linear)

model = MLP(nnx.Rngs(0))
sparse, report = sx.sparsify(model, {"hidden": np.ones((8, 16), bool)}, policy="rule", min_sparsity=0.5)
assert_type(sparse, MLP)
assert_type(report, sx.nn.SparsifyReport)
assert_type(report.rows, tuple[sx.nn.LayerReport, ...])
assert_type(sx.densify(sparse), MLP)
assert_type(sx.nn.modules_of(model, nnx.Linear), dict[str, nnx.Linear])
assert_type(sx.nn.pattern_masks(sparse), dict[str, np.ndarray])

tx = sx.pruning.pruned(optax.adam(1e-3), sx.pruning.one_shot(0.9))
assert_type(tx, optax.GradientTransformationExtraArgs)

info = sx.cpu_info()
assert_type(info.isa, str)
assert_type(info.threads, int)
linen = sx.nn.linen.SparseDense(8, pattern=pattern)
assert_type(linen, sx.nn.linen.SparseDense)
"""

# Each line is wrong, and the type checker must say so.
WRONG = """
import jax.numpy as jnp
import numpy as np
import sparsejax as sx
from flax import nnx

pattern = sx.SparsityPattern.from_mask(np.eye(8, dtype=bool))
sx.spmm(jnp.ones(8), np.eye(8), jnp.ones((2, 8)))
sx.conv(jnp.ones(8), pattern, jnp.ones((2, 8)), strides="two")
sx.conv(jnp.ones(8), pattern, jnp.ones((2, 8)), padding=1.5)
sx.SparsityPattern.from_mask(np.eye(8, dtype=bool), nse="all")
sx.nn.SparseLinear(8, 8, np.eye(8, dtype=bool), rngs=nnx.Rngs(0))
sx.sparsify({"kernel": jnp.ones((8, 8))})
sx.sparsify(nnx.Linear(8, 8, rngs=nnx.Rngs(0)), policy="best")
sx.prunning.pruned
sx.cpu_info().cores
"""


@pytest.fixture(scope="module")
def errors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[int, str]]:
    """By script, the message of every line that pyright reports an error for; one run reads the packages once."""
    folder = tmp_path_factory.mktemp("scripts")
    scripts = {"right.py": SCRIPT, "wrong.py": WRONG}
    for name, text in scripts.items():
        (folder / name).write_text(text)
    settings = {"typeCheckingMode": "standard", "pythonVersion": "3.11", "extraPaths": [str(root())]}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson", "-p", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    try:
        report = json.loads(done.stdout)
    except json.JSONDecodeError:
        pytest.fail(f"pyright did not run: {done.stdout[-500:]} {done.stderr[-500:]}")
    found: dict[str, dict[int, str]] = {name: {} for name in scripts}
    for item in report["generalDiagnostics"]:
        if item["severity"] == "error":
            found[Path(item["file"]).name][item["range"]["start"]["line"]] = item["message"]
    return found


def root() -> Path:
    return Path(sparsejax.__file__).parents[1]


def test_a_script_gets_the_types_it_expects(errors: dict[str, dict[int, str]]) -> None:
    assert errors["right.py"] == {}


def test_wrong_arguments_and_names_are_errors(errors: dict[str, dict[int, str]]) -> None:
    lines = WRONG.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("sx."))
    missed = [line for i, line in enumerate(lines) if i >= first and i not in errors["wrong.py"]]
    assert missed == []
