"""``sparsejax bias`` from files to a report."""

from __future__ import annotations

import json

import numpy as np
import pytest

from helpers.analysis_inputs import make_inputs
from sparsejax.cli import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    at, given = tmp_path_factory.mktemp("bias"), make_inputs(200)
    np.savez(at / "dense.npz", logits=given["dense"])
    for level, values in given["sparse"].items():
        np.savez(at / f"sparse{level}.npz", logits=values)
    np.savez(at / "labels.npz", labels=given["labels"], names=np.array(given["attribute_names"]))
    np.savez(at / "groups.npz", **given["groups"])
    np.savez(at / "probs.npz", probs=1 / (1 + np.exp(-given["dense"])))
    np.save(at / "single.npy", given["dense"])
    np.savez(at / "objects.npz", logits=np.array([None]))
    (at / "text.npz").write_text("no archive")
    return at


def words(folder, **changes):
    given = {"dense": "dense.npz", "sparse": "sparse0.9.npz", "labels": "labels.npz", "groups": "groups.npz"} | changes
    options = [(f"--{name.replace('_', '-')}", value) for name, value in given.items() if value is not None]
    return ["bias", *(word for flag, v in options for word in (flag, path(folder, v))), "--out", str(folder / "r.html")]


def path(folder, value):
    level, separator, name = value.rpartition("=")
    return f"{level}{separator}{folder / name}" if name.endswith((".npz", ".npy", ".csv", ".json")) else value


def test_the_short_form(folder, capsys):
    assert main(words(folder)) == 0
    out = capsys.readouterr().out
    assert "dense" in out and "note: No training labels" in out and "r.html" in out
    assert (folder / "r.html").read_text().startswith("<!doctype html>")


def test_everything(folder, capsys):
    more = [
        "--sparse", f"0.99={folder / 'sparse0.99.npz'}", "--val-sparse", f"0.99={folder / 'sparse0.99.npz'}", "--json",
    ]  # fmt: skip
    given = {
        "sparse": "0.9=sparse0.9.npz",
        "train_labels": "labels.npz",
        "train_groups": "groups.npz",
        "val_dense": "dense.npz",
        "val_sparse": "0.9=sparse0.9.npz",
        "val_labels": "labels.npz",
        "table": "table.csv",
        "threshold": "calibrated",
        "bootstrap": "5",
    }
    assert main([*words(folder, **given), *more]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["overall"]["columns"]["sparsity"].count(0.99) > 10 and result["warnings"] == []
    header, first = (folder / "table.csv").read_text().splitlines()[:2]
    assert header.startswith("model,sparsity") and first.startswith("dense,0.0,,run 0,calibrated,a")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dense": "none.npz"}, "; expected an existing file"),
        ({"dense": "labels.npz"}, "arrays ['labels', 'names']; expected one of 'logits' and 'probs'"),
        ({"dense": "single.npy"}, "expected an .npz archive of plain arrays"),
        ({"dense": "text.npz"}, "expected an .npz archive of plain arrays"),
        ({"dense": "objects.npz"}, "expected an .npz archive of plain arrays"),
        ({"labels": "groups.npz"}, "expected an array 'labels'"),
        ({"sparse": "probs.npz"}, "has probs; expected logits, as --dense"),
        ({"sparse": "much=sparse0.9.npz"}, "expected SPARSITY=FILE with a fraction in [0, 1)"),
        ({"sparse": "2=sparse0.9.npz"}, "expected a fraction of zeros in [0, 1)"),
        ({"val_dense": "dense.npz"}, "expected all of --val-dense, --val-sparse and --val-labels"),
        ({"threshold": "best"}, "threshold has value 'best'"),
        ({"train_groups": "groups.npz"}, "train_labels has no value"),
    ],
)
def test_errors_are_one_line(folder, capsys, changes, message):
    assert main(words(folder, **changes)) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and len(err.splitlines()) == 1 and message in err


@pytest.mark.parametrize(("name", "is_folder", "expected"), [("x.html", True, "file"), ("x", False, "folder")])
def test_a_place_of_the_other_kind_is_refused_before_anything_is_read(tmp_path, capsys, name, is_folder, expected):
    place = tmp_path / name
    place.mkdir() if is_folder else place.touch()
    every = ["bias", "--dense", "none.npz", "--sparse", "none.npz", "--labels", "none.npz", "--out", str(place)]
    assert main(every) == 2
    found = "folder" if is_folder else "file"
    error = f"bias: --out has value {str(place)!r}, a {found}; expected a {expected}, or a free name."
    assert capsys.readouterr().err == f"error: {error}\n"
