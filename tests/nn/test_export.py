"""A sparse model written as a program runs in a process that has jax and sparsejax only."""

import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import sparsejax


def test_a_sparse_model_runs_in_another_process(tmp_path):
    generator = np.random.default_rng(0)
    dense = nnx.Sequential(nnx.Linear(6, 8, rngs=nnx.Rngs(0)), nnx.relu, nnx.Linear(8, 3, rngs=nnx.Rngs(1)))
    masks = {"layers/0": generator.random((6, 8)) < 0.3, "layers/2": generator.random((8, 3)) < 0.3}
    model, _ = sparsejax.sparsify(dense, masks, min_sparsity=0.3, policy="always")
    x = generator.normal(size=(4, 6)).astype(np.float32)
    sparsejax.export(model, jnp.asarray(x), tmp_path / "model.bin")
    np.save(tmp_path / "x.npy", x)
    code = (
        "import sys, numpy as np, sparsejax; folder = sys.argv[1]; x = np.load(folder + '/x.npy')\n"
        "np.save(folder + '/y.npy', sparsejax.load_exported(folder + '/model.bin')(x))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), model(jnp.asarray(x)), atol=1e-6)


def test_other_files_and_inputs_are_refused(tmp_path):
    (tmp_path / "model.bin").write_bytes(b"garbage")
    with pytest.raises(ValueError, match=r"load_exported: file .*model.bin' has other content"):
        sparsejax.load_exported(tmp_path / "model.bin")
    with pytest.raises(FileNotFoundError, match="load_exported: path has value"):
        sparsejax.load_exported(tmp_path / "none.bin")
    with pytest.raises(ValueError, match="export: sample_input has type str; expected arrays"):
        sparsejax.export(nnx.Linear(2, 2, rngs=nnx.Rngs(0)), "x", tmp_path / "new.bin")
    assert not (tmp_path / "new.bin").exists()
