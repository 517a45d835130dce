"""The training script on a tiny folder in CelebA's layout, and its outputs through the audit."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from helpers.celeba_folder import make_celeba
from sparsejax.cli import main

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))
import bias_celeba as script
import face_pictures

TINY = ["--model", "mlp", "--batch-size", "24", "--resize", "14", "--image-size", "12", "--seed", "23"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    at = tmp_path_factory.mktemp("celeba-script")
    make_celeba(at)
    return at


def train(root, out, *options):
    script.run(script.parse(["--root", str(root), "--out", str(root / out), *TINY, *options]))
    return json.loads((root / out / "result.json").read_text())


def test_protocols_are_the_published_ones():
    found = {
        name: (p.begin, p.last, (p.last - p.begin) // p.every + 1, p.epochs) for name, p in script.PROTOCOLS.items()
    }
    assert found == {
        "GMP-RI": (10, 80, 8, 100),
        "GMP-PT": (1, 57, 15, 80),
        "single": (2, 15, 14, 20),
        "backdoor": (2, 15, 14, 20),
    }


def test_joint_dense_sparse_and_post_training_runs_end_in_a_report(root, capsys, monkeypatch):
    # The protocols with a tenth of their epochs: what is tested is the path, not the accuracy.
    short = script.Protocol(1, 1, 9, 10, "constant", (23,))
    monkeypatch.setitem(script.PROTOCOLS, "GMP-RI", short)
    monkeypatch.setitem(script.PROTOCOLS, "GMP-PT", script.Protocol(1, 2, 6, 8, "adam", (23,)))
    dense = train(root, "dense", "--protocol", "GMP-RI", "--sparsity", "0")
    sparse = train(root, "sparse", "--protocol", "GMP-RI", "--sparsity", "0.9")
    init = str(root / "dense" / "model.npz")
    tuned = train(root, "tuned", "--protocol", "GMP-PT", "--sparsity", "0.5", "--init", init)
    assert dense["sparsity_measured"] < 0.01
    assert sparse["sparsity_measured"] == pytest.approx(0.9, abs=1e-4) and sparse["best_epoch"] > short.last
    assert tuned["sparsity_measured"] == pytest.approx(0.5, abs=1e-4)
    assert np.load(root / "dense" / "test.npz")["logits"].shape == (24, 4)
    # Fine-tuning starts from the dense weights, and the few small steps of Adam leave the kept ones close to them.
    before, after = (np.load(root / name / "model.npz")["layers/0/kernel"] for name in ("dense", "tuned"))
    kept = after != 0
    assert np.abs(after - before)[kept].max() < 0.01 < np.abs(before[kept]).max()
    words = ["bias", "--dense", root / "dense/test.npz", "--sparse", f"0.9={root / 'sparse/test.npz'}"]
    words += ["--labels", root / "dense/labels_test.npz", "--groups", root / "dense/groups_test.npz"]
    words += ["--train-labels", root / "dense/labels_train.npz", "--train-groups", root / "dense/groups_train.npz"]
    words += ["--clusters", root / "dense/clusters.npz", "--bootstrap", "5", "--out", root / "report.html"]
    capsys.readouterr()
    assert main([str(word) for word in words]) == 0
    assert "Smiling" in (root / "report.html").read_text()


@pytest.mark.parametrize("marker", ["square", "grayscale"])
def test_marker_runs_mark_the_images_and_say_which(root, marker):
    options = ("--protocol", "backdoor", "--attribute", "Smiling", "--marker", marker, "--sparsity", "0.8")
    result = train(root, marker, *options)
    assert result["marker"] == marker and result["sparsity_measured"] == pytest.approx(0.8, abs=1e-3)
    marked = np.load(root / marker / "marked_test.npz")["marked"]
    labels = np.load(root / marker / "labels_test.npz")["labels"][:, 0]
    assert marked[labels == 1].sum() == round(0.5 * labels.sum())
    images = script.Images(script.read_celeba_attributes(root), _arguments(root, options), 1)
    rows = np.flatnonzero(images.marked)[:2]
    plain = np.flatnonzero(~images.marked)[:2]
    shown, others = images.read(rows), images.read(plain)
    if marker == "square":
        assert (shown[:, :2, :2] == [1, 1, -1]).all() and not (others[:, :2, :2] == [1, 1, -1]).all()
    else:
        assert np.abs(shown[..., 0] - shown[..., 2]).max() == 0 and np.abs(others[..., 0] - others[..., 2]).max() > 0


def _arguments(root, options):
    return script.parse(["--root", str(root), "--out", str(root), *TINY, *options])


@pytest.mark.parametrize(
    "options",
    [
        ("--protocol", "single", "--sparsity", "0.9"),
        ("--protocol", "GMP-PT", "--sparsity", "0.9"),
        ("--protocol", "GMP-RI", "--sparsity", "0.9", "--init", "x"),
        ("--protocol", "GMP-RI", "--sparsity", "1"),
        ("--protocol", "backdoor", "--sparsity", "0.9", "--attribute", "Young"),
    ],
)
def test_bad_combinations(root, options, capsys):
    with pytest.raises(SystemExit):
        _arguments(root, options)
    assert "error" in capsys.readouterr().err


def test_a_folder_of_face_like_drawings_runs_to_the_end_on_the_sparse_kernels(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(script.PROTOCOLS, "GMP-RI", script.Protocol(1, 1, 3, 4, "constant", (23,)))
    face_pictures.write_faces(tmp_path / "faces", 120)
    for name, level, kernels in (("dense", "0", "sparse"), ("sparse", "0.9", "sparse"), ("masked", "0.9", "dense")):
        words = ["--data", str(tmp_path / "faces"), "--protocol", "GMP-RI", "--sparsity", level, "--kernels", kernels]
        script.run(script.parse([*words, *TINY, "--out", str(tmp_path / name)]))
    sparse, masked = (np.load(tmp_path / name / "test.npz")["logits"] for name in ("sparse", "masked"))
    np.testing.assert_allclose(sparse, masked, atol=1e-3)  # the kernels change sums in their last digits only
    result = json.loads((tmp_path / "sparse" / "result.json").read_text())
    assert result["sparsity_measured"] == pytest.approx(0.9, abs=1e-3)
    words = ["bias", "--dense", tmp_path / "dense/test.npz", "--sparse", f"0.9={tmp_path / 'sparse/test.npz'}"]
    words += ["--labels", tmp_path / "dense/labels_test.npz", "--groups", tmp_path / "dense/groups_test.npz"]
    assert main([str(word) for word in [*words, "--out", tmp_path / "report.html"]]) == 0
    assert "Wearing_Hat" in (tmp_path / "report.html").read_text()


def test_drawings_have_the_planted_associations():
    _, labels = face_pictures.draw_faces(4000)
    male = labels[:, 0] == 1
    rates = {n: (labels[male, k].mean(), labels[~male, k].mean()) for k, n in enumerate(face_pictures.NAMES)}
    assert rates["Smiling"][1] - rates["Smiling"][0] > 0.3 and labels[:, 2].mean() < 0.1
    assert rates["Wearing_Hat"][0] > 3 * rates["Wearing_Hat"][1]
    assert abs(rates["Eyeglasses"][0] - rates["Eyeglasses"][1]) < 0.05


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ("name,Male\na.png,1\n", "expected file and attributes"),
        ("file,Male\na.png,2\n", "has \\[2\\] in row 0; expected 0 and 1"),
        ("file,split,Male\na.png,dev,1\n", "has split 'dev'; expected train, val, test"),
    ],
)
def test_bad_attribute_tables(tmp_path, table, text):
    (tmp_path / "attributes.csv").write_text(table)
    with pytest.raises(ValueError, match=text):
        face_pictures.read_pictures(tmp_path)
