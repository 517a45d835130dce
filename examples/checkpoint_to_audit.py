"""From checkpoint to audit: train dense and sparse, transfer both to another task, audit what pruning did there.

    python examples/checkpoint_to_audit.py --out pipeline

Each step is a command of ``sparsejax`` and is printed before it runs. Upstream: scikit-learn's digits. Downstream: the
digits turned by 90 degrees, as colour pictures in an ``.npz`` file, with two groups, thin and thick strokes. At the end
the folder holds checkpoints, transfer results with probabilities, the time of inference beside accuracy
(``transfer/pareto.svg``), and ``audit.html``.
"""

from __future__ import annotations

import argparse
import shlex
import time
from pathlib import Path

import numpy as np

from sparsejax.cli import main as sparsejax

SPARSITIES = (0.9, 0.95)


def write_task(folder: Path) -> None:
    """Write ``task.npz``, and the groups of its test and training split."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.rot90(bunch.images, axes=(1, 2)) / 16.0
    tint = np.array([1.0, 0.8, 0.6])
    pixels = np.round(255 * images[..., None] * tint).astype(np.uint8)
    order = np.random.default_rng(0).permutation(len(pixels))
    test, train = order[:800], order[800:]
    ink = bunch.images.sum(axis=(1, 2))
    thick = (ink > np.median(ink)).astype(np.int8)
    arrays = {"x_train": pixels[train], "y_train": bunch.target[train]}
    np.savez(folder / "task.npz", **arrays, x_test=pixels[test], y_test=bunch.target[test])
    np.savez(folder / "groups_test.npz", thick=thick[test])
    np.savez(folder / "groups_train.npz", thick=thick[train])


def write_upstream(folder: Path) -> None:
    """Write the upright digits, as colour pictures of the same size, to train on."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = np.round(255 * bunch.images[..., None].repeat(3, axis=-1) / 16.0).astype(np.uint8)
    order = np.random.default_rng(1).permutation(len(pixels))
    test, train = order[:400], order[400:]
    arrays = {"x_train": pixels[train], "y_train": bunch.target[train]}
    np.savez(folder / "upstream.npz", **arrays, x_test=pixels[test], y_test=bunch.target[test])


def step(*words: object) -> None:
    """Print and run one command."""
    texts = [str(word) for word in words]
    print(f"\n$ sparsejax {shlex.join(texts)}", flush=True)
    status = sparsejax(texts)
    if status:
        raise SystemExit(status)


def main() -> None:
    """Run all steps."""
    import pandas as pd

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("pipeline"))
    parser.add_argument("--epochs", type=int, default=12, help="of training")
    parser.add_argument("--seeds", type=int, default=2, help="downstream runs")
    arguments = parser.parse_args()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    write_upstream(out)
    write_task(out)
    data, task = f"npz:{out / 'upstream.npz'}", f"npz:{out / 'task.npz'}"
    common = ("--data", data, "--model", "convnet", "--epochs", arguments.epochs)
    step("train", *common, "--method", "dense", "--out", out / "dense")
    backbones = ["--backbone", f"Dense:0={out / 'dense'}"]
    for level in SPARSITIES:
        step("train", *common, "--method", "magnitude", "--sparsity", level, "--out", out / f"gmp-{level:g}")
        backbones += ["--backbone", f"GMP:{level:g}={out / f'gmp-{level:g}'}"]
    folder = out / "transfer"
    regime = ("--regime", "full", "--epochs", 6, "--lr", 0.01, "--seeds", arguments.seeds)
    step("transfer", *backbones, "--data", task, *regime, "--inference", "--out", folder)
    results = pd.read_csv(folder / "results.csv")
    runs: list[object] = []
    for row in results.itertuples():
        path = folder / str(row.outputs)
        runs += ["--dense", path] if row.method == "Dense" else ["--sparse", f"{row.sparsity:g}={path}"]
    groups = ("--groups", out / "groups_test.npz", "--train-groups", out / "groups_train.npz")
    written = ("--predictions", out / "predictions.csv", "--bootstrap", 50, "--out", out / "audit.html")
    step("audit", *runs, "--data", task, *groups, *written)
    print(f"\n{(time.monotonic() - start) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
