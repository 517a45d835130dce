"""A sparse model written as a program runs in a process that has jax and sparsejax only."""

import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import sparsejax
from sparsejax import models


def test_a_sparse_model_runs_in_another_process(tmp_path):
    generator = np.random.default_rng(0)
    dense = nnx.Sequential(nnx.Linear(6, 8, rngs=nnx.Rngs(0)), nnx.relu, nnx.Linear(8, 3, rngs=nnx.Rngs(1)))
    masks = {"layers/0": generator.random((6, 8)) < 0.3, "layers/2": generator.random((8, 3)) < 0.3}
    model, _ = sparsejax.sparsify(dense, masks, min_sparsity=0.3, policy="always")
    x = generator.normal(size=(4, 6)).astype(np.float32)
    sparsejax.export(model, jnp.asarray(x[:1]), tmp_path / "model.bin")  # and runs with another batch size
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


def test_a_program_takes_any_batch_size_or_one(tmp_path):
    generator = np.random.default_rng(0)
    dense = models.ConvNet(3, in_features=2, widths=(4, 8), rngs=nnx.Rngs(0))
    model, _ = sparsejax.sparsify(dense, {"convs/1": generator.random((3, 3, 4, 8)) < 0.1}, policy="always")
    model.eval()
    images = jnp.asarray(generator.normal(size=(9, 6, 6, 2)), jnp.float32)
    sparsejax.export(model, images[:4], tmp_path / "any.bin")
    run = sparsejax.load_exported(tmp_path / "any.bin")
    for size in (1, 9):
        np.testing.assert_allclose(run(images[:size]), model(images[:size]), atol=1e-6)
    sparsejax.export(model, images[:4], tmp_path / "four.bin", any_batch=False)
    run = sparsejax.load_exported(tmp_path / "four.bin")
    np.testing.assert_allclose(run(images[:4]), model(images[:4]), atol=1e-6)
    with pytest.raises(ValueError, match="9"):
        run(images)


def test_a_forward_pass_that_needs_its_batch_size_says_so(tmp_path):
    class Halves(nnx.Module):
        def __call__(self, x):
            return x[::2] if x.shape[0] > 2 else x

    with pytest.raises(ValueError, match=r"cannot be traced for every batch size .*any_batch=False takes the shapes"):
        sparsejax.export(Halves(), jnp.ones((4, 2)), tmp_path / "model.bin")
    assert not (tmp_path / "model.bin").exists()
    sparsejax.export(Halves(), jnp.ones((4, 2)), tmp_path / "model.bin", any_batch=False)
    assert sparsejax.load_exported(tmp_path / "model.bin")(jnp.ones((4, 2))).shape == (2, 2)
    with pytest.raises(ValueError, match="sample_input has no axis in its first array"):
        sparsejax.export(Halves(), jnp.ones(()), tmp_path / "model.bin")
