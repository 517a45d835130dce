"""From runs to an audit without training: stored probabilities, the command, its errors; time of inference."""

from __future__ import annotations

import json

import matplotlib
import numpy as np
import pandas as pd
import pytest

from sparsejax.analysis import bias, transfer
from sparsejax.analysis.transfer.runs._outputs import save_outputs
from sparsejax.cli import main

matplotlib.use("Agg")


@pytest.fixture
def folder(tmp_path):
    """A task of 60 test pictures and three classes, groups, and stored outputs of two dense and two sparse runs."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    pixels = rng.integers(0, 255, (60, 4, 4, 3), dtype=np.uint8)
    np.savez(tmp_path / "toy.npz", x_train=pixels, y_train=labels, x_test=pixels, y_test=labels)
    np.savez(tmp_path / "groups.npz", side=(np.arange(60) % 2).astype(np.int8))
    for name, noise in (("dense", 0.5), ("sparse", 2.0)):
        for seed in range(2):
            logits = 2.0 * np.eye(3)[labels] + rng.normal(0, noise, (60, 3))
            probs = (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).astype(np.float32)
            sparsity = 0.0 if name == "dense" else 0.9
            save_outputs(tmp_path / f"{name}-{seed}.npz", transfer.RunOutputs(probs, labels.astype(np.int32), sparsity))
    return tmp_path


def words(folder, *more):
    runs = [w for n in ("dense", "sparse") for s in (0, 1) for w in (f"--{n}", folder / f"{n}-{s}.npz")]
    every = ["audit", *runs, "--data", f"npz:{folder / 'toy.npz'}", "--out", folder / "report.html", *more]
    return [str(word) for word in every]


def test_the_command_equals_a_comparison_of_the_stored_probabilities(folder, capsys):
    groups = ("--groups", folder / "groups.npz", "--train-groups", folder / "groups.npz")
    written = ("--table", folder / "table.csv", "--predictions", folder / "predictions.csv", "--min-count", 2)
    assert main(words(folder, *groups, *written)) == 0
    assert "BiasAudit(dense against 90 %" in capsys.readouterr().out
    assert (folder / "report.html").read_text().startswith("<!doctype html>")
    labels = np.arange(60) % 3
    stacks = []
    for name in ("dense", "sparse"):
        runs = [np.load(folder / f"{name}-{seed}.npz")["probs"] for seed in range(2)]
        stacks.append(np.stack([bias.one_vs_rest(np.log(probs), labels).logits for probs in runs]))
    side = {"side": np.arange(60) % 2}
    one_hot = np.eye(3)[labels]
    options = {"attribute_names": ["0", "1", "2"], "min_count": 2, "train_labels": one_hot, "train_groups": side}
    direct = bias.compare(stacks[0], {0.9: stacks[1]}, one_hot, side, **options)
    found = pd.read_csv(folder / "table.csv")
    expected = direct.table.to_pandas()
    np.testing.assert_allclose(found["value"], expected["value"], atol=1e-6)
    rows = pd.read_csv(folder / "predictions.csv")
    dense, sparse = (np.load(folder / f"{name}-0.npz")["probs"].argmax(1) for name in ("dense", "sparse"))
    assert (rows["flipped"] == np.where(dense != sparse, "yes", "no")).all() and (rows["side"] == side["side"]).all()


def test_runs_that_do_not_fit_are_refused(folder, capsys):
    bad = transfer.RunOutputs(np.full((60, 3), 1 / 3, np.float32), np.zeros(60, np.int32), 0.9)
    save_outputs(folder / "other.npz", bad)
    save_outputs(folder / "short.npz", bad._replace(probs=bad.probs[:5], labels=bad.labels[:5]))
    for more, text in (
        (("--sparse", "0.95=nowhere"), "run has value 'nowhere'; expected the folder of a training run"),
        (("--sparse", f"much={folder / 'other.npz'}"), "expected SPARSITY=PATH with a fraction in [0, 1)"),
        (("--sparse", folder / "other.npz"), "other.npz' has other labels; expected those of the test split of toy"),
        (("--sparse", folder / "short.npz"), "has probabilities of shape (5, 3); expected (60, 3)"),
        (
            ("--sparse", f"0.95={folder / 'sparse-0.npz'}"),
            "sparse has 1 run at 0.95; expected 2, one for each dense run",
        ),
        (("--sparse", folder / "groups.npz"), "has no array probs, labels, sparsity"),
        (("--train-groups", folder / "groups.npz"), "groups has no value; expected groups, as train_groups need them"),
        (("--out", folder / "nowhere" / "report.html"), "nowhere'; expected an existing folder"),
        (("--out", folder), "a folder; expected a file, or a free name"),
    ):
        assert main(words(folder, *more)) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1 and text in error, error


def test_transfer_stores_the_probabilities_behind_each_row(convnet, task, tmp_path):
    linear = transfer.SGDConfig.linear(epochs=3)
    quick = transfer.StudySettings(linear=linear, full=(("epochs", 1), ("learning_rate", 0.01)))
    backbones = [transfer.Backbone(convnet, "GMP", 0.9)]
    found = transfer.run_transfer(backbones, [task], tmp_path, seeds=(0,), settings=quick)
    assert len(found) == 2
    for row in found.itertuples():
        outputs = transfer.read_outputs("test", tmp_path / row.outputs)
        np.testing.assert_allclose(outputs.probs.sum(1), 1, atol=1e-5)
        assert transfer.top1_accuracy(outputs.labels, outputs.probs.argmax(1)) == row.top1 and outputs.sparsity == 0.9


def test_a_trained_folder_and_its_outputs_give_one_audit(tmp_path, capsys):
    train = ["train", "--data", "digits", "--model", "mlp", "--method", "dense", "--epochs", "1"]
    assert main([*train, "--out", str(tmp_path / "run")]) == 0
    from sparsejax.data import load_task

    task = load_task("digits")
    outputs = transfer.run_outputs(transfer.RunPath(tmp_path / "run"), task)
    save_outputs(tmp_path / "run.npz", outputs._replace(sparsity=0.5))
    capsys.readouterr()
    runs = ["--dense", str(tmp_path / "run"), "--sparse", str(tmp_path / "run.npz"), "--data", "digits"]
    assert main(["audit", *runs, "--out", str(tmp_path / "report.html"), "--json"]) == 0
    columns = json.loads(capsys.readouterr().out)["overall"]["columns"]
    accuracy = [v for v, m in zip(columns["value"], columns["metric"], strict=True) if m == "accuracy"]
    assert accuracy[0] == accuracy[1]


def test_inference_is_timed_in_turn_and_the_front_is_not_beaten(convnet, task):
    costs = transfer.time_inference({"a": convnet, "b": convnet}, task.test, batch_sizes=(1, 64), repeats=3)
    assert [(cost.name, cost.batch_size) for cost in costs] == [("a", 1), ("b", 1), ("a", 64), ("b", 64)]
    assert all(cost.per_second == pytest.approx(1e3 * cost.batch_size / cost.milliseconds) for cost in costs)
    with pytest.raises(ValueError, match="repeats has value 0"):
        transfer.time_inference({"a": convnet}, task.test, repeats=0)
    rows = [("Dense", 0.0, 4.0, 0.9), ("GMP", 0.9, 2.0, 0.85), ("GMP", 0.95, 3.0, 0.8), ("AC/DC", 0.9, 2.0, 0.88)]
    table = pd.DataFrame(rows, columns=["method", "sparsity", "milliseconds", "accuracy"]).assign(batch_size=1)
    assert transfer.pareto_front(table)["method"].tolist() == ["AC/DC", "Dense"]
    (ax,) = transfer.plot_pareto(table).ravel()
    assert ax.get_title() == "batch 1" and {t.get_text() for t in ax.get_legend().get_texts()} >= {"GMP", "not beaten"}
