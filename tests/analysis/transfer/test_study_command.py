"""The study runner and the command line: resuming, processes, checkpoints, errors; the cost of linear tuning."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from flax import nnx

from sparsejax import nn, train
from sparsejax.analysis import transfer
from sparsejax.analysis.transfer import Backbone, SGDConfig, StudySettings, run_transfer
from sparsejax.cli import main
from sparsejax.models import ConvNet

QUICK = StudySettings(linear=SGDConfig.linear(epochs=3), full=(("epochs", 1), ("learning_rate", 0.01)))


@pytest.fixture
def backbones(convnet):
    dense = ConvNet(5, in_features=1, widths=(4, 8, 8), rngs=nnx.Rngs(0))
    return [Backbone(dense), Backbone(convnet, "GMP", 0.9)]


def test_a_study_resumes_and_ends_with_the_same_table(backbones, task, tmp_path, monkeypatch):
    first = run_transfer(backbones, [task], tmp_path, seeds=(0, 1), settings=QUICK)
    assert len(first) == 8 and first["value"].between(0, 1).all()
    assert first.groupby(["regime", "method"]).size().tolist() == [2, 2, 2, 2]
    assert set(first["category"]) == {"dense", "progressive"}
    assert np.isfinite(transfer.aggregate(first, min_error=0.01)["rel_err_mean"]).all()

    removed = next(iter(tmp_path.glob("bright-linear-*-1.json")))
    removed.unlink()

    def forbidden(*_, **__):
        raise AssertionError("trained again")

    with monkeypatch.context() as patch:
        patch.setattr("sparsejax.analysis.transfer.runs._study.finetune", forbidden)
        again = run_transfer(backbones, [task], tmp_path, seeds=(0, 1), settings=QUICK)
        pd.testing.assert_frame_equal(again, first)
        other = dataclasses.replace(QUICK, full=(("epochs", 2),))
        with pytest.raises(AssertionError, match="trained again"):
            run_transfer(backbones, [task], tmp_path, seeds=(0,), settings=other)
    assert removed.exists() and not list(tmp_path.glob("*.partial"))


def test_the_metric_of_the_task_is_the_value(backbones, task, tmp_path):
    per_class = dataclasses.replace(task, metric="mean_per_class", name="uneven")
    lbfgs = dataclasses.replace(QUICK, solver="lbfgs", standardize=True)
    found = run_transfer(backbones, [task, per_class], tmp_path, regimes=("linear",), seeds=(0,), settings=lbfgs)
    assert found["solver"].unique().tolist() == ["lbfgs"]
    by = found.set_index(["dataset", "method"])
    assert by.loc[("bright", "GMP"), "value"] == by.loc[("bright", "GMP"), "top1"]
    assert by.loc[("uneven", "GMP"), "value"] == by.loc[("uneven", "GMP"), "mean_per_class"]


@pytest.mark.slow
def test_processes_give_the_same_numbers(backbones, task, tmp_path):
    one = run_transfer(backbones, [task], tmp_path / "1", seeds=(0,), settings=QUICK)
    two = run_transfer(backbones, [task], tmp_path / "2", seeds=(0,), settings=QUICK, n_jobs=2)
    pd.testing.assert_frame_equal(one, two)


def test_bad_studies_are_refused(backbones, task, tmp_path):
    for arguments, options, words in (
        (([], [task]), {}, "backbones has no element"),
        ((backbones, [task]), {"regimes": ("frozen",)}, "regimes has value 'frozen'"),
        ((backbones, [task]), {"seeds": (1, 1)}, "seeds has 1 twice"),
        ((backbones, [task, task]), {}, "tasks has bright twice"),
        ((backbones[:1] * 2, [task]), {}, r"backbones has \('network', 'Dense', 0.0\) twice"),
    ):
        with pytest.raises(ValueError, match=words):
            run_transfer(*arguments, tmp_path, settings=QUICK, **options)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of a dense and a sparse training run on digits."""
    root = tmp_path_factory.mktemp("runs")
    for method in ("dense", "magnitude"):
        train.train(train.TrainConfig(model="mlp", method=method, epochs=1, batch_size=256), root / method)
    return root


def test_the_network_of_a_run_comes_back(runs):
    model = train.load_model(runs / "magnitude")
    assert set(nn.pattern_masks(model)) == {"layers/0", "layers/1"}
    assert train.fix_masks(model, keep_dense=("fc",)).sparsity() == pytest.approx(0.9, abs=0.01)
    with pytest.raises(FileNotFoundError, match="expected the folder of a training run"):
        train.load_model(runs)


def test_the_command_compares_networks_and_writes_a_report(runs, tmp_path, capsys):
    words = ["transfer", "--backbone", str(runs / "dense"), "--backbone", f"GMP:0.9={runs / 'magnitude'}"]
    words += ["--data", "digits", "--regime", "both", "--out", str(tmp_path), "--seeds", "1", "--epochs", "1"]
    assert main([*words, "--json"]) == 0
    out, err = capsys.readouterr()
    rows = json.loads(out)
    assert err == "" and len(rows) == 4
    assert {(row["method"], row["regime"]) for row in rows} == {
        (method, regime) for method in ("Dense", "GMP") for regime in ("linear", "full")
    }
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert "# Transfer of sparse models" in out and "linear: 2 networks x 1 data sets x 1 seeds" in err
    assert len(pd.read_csv(tmp_path / "results.csv")) == 4
    assert (tmp_path / "report" / "report.md").is_file()


def test_one_network_alone_has_no_report(runs, tmp_path, capsys):
    words = ["transfer", "--backbone", str(runs / "magnitude"), "--data", "digits", "--out", str(tmp_path)]
    assert main([*words, "--seeds", "2", "--epochs", "1", "--solver", "lbfgs"]) == 0
    out = capsys.readouterr().out
    assert "Sparse" in out and "count" in out and not (tmp_path / "report").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--backbone", "nothing.pth"], "no run folder; expected one, or --model with a PyTorch file"),
        (["--backbone", "nothing.pth", "--model", "resnet18"], "nothing.pth"),
        (["--backbone", "GMP=RUN"], "name 'GMP'; expected METHOD:SPARSITY"),
        (["--data", "cifar10"], "spec has value 'cifar10'"),
        (["--data", "pets:/no/such/folder"], "expected an existing folder"),
        (["--seeds", "0"], "--seeds has value 0"),
        (["--epochs", "0"], "SGDConfig: epochs has value 0"),
    ],
)
def test_errors_of_the_user_are_one_line(runs, tmp_path, capsys, change, words):
    base = {"--backbone": str(runs / "dense"), "--data": "digits", "--out": str(tmp_path)}
    base |= dict(zip(change[::2], [word.replace("RUN", str(runs / "dense")) for word in change[1::2]], strict=True))
    assert main(["transfer", *(word for pair in base.items() for word in pair)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and words in err


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("run.json", b"{"),
        ("run.json", b"\xff\xfe"),
        ("run.json", b"{}"),
        ("run.json", b"[]"),
        ("net.pth", b"junk"),
        ("net.pth", b""),
    ],
)
def test_files_that_hold_no_network_are_named(tmp_path, capsys, file, content):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / file).write_bytes(content)
    backbone = folder if file == "run.json" else folder / file
    words = ["transfer", "--backbone", str(backbone), "--data", "digits", "--out", str(tmp_path / "out")]
    assert main([*words, "--model", "mlp"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and err.startswith("error: ") and str(folder) in err


def test_damaged_results_and_features_are_named(backbones, task, tmp_path):
    options = {"regimes": ("linear",), "seeds": (np.int64(0),), "settings": QUICK}
    run_transfer(backbones[:1], [task], tmp_path, **options)
    (stored,) = tmp_path.glob("*.json")
    stored.write_text("{")
    with pytest.raises(ValueError, match=f"file '{stored}' has damaged content .* Delete the file to compute it again"):
        run_transfer(backbones[:1], [task], tmp_path, **options)
    stored.unlink()
    for features in (tmp_path / "features").iterdir():
        features.write_bytes(b"")
    with pytest.raises(ValueError, match=f"file '{tmp_path / 'features'}.* has damaged content"):
        run_transfer(backbones[:1], [task], tmp_path, **options)


def test_the_cost_of_linear_tuning(convnet, task):
    sparse, _ = nn.sparsify(convnet, min_sparsity=0.5, policy="always")
    cost = transfer.time_linear_epoch({"dense": convnet, "sparse": sparse}, task, batch_size=16)
    assert cost.examples == 32 and cost.epochs == 5 and cost.threads >= 1
    for form in cost.costs.values():
        assert 0 < form.backbone + form.head + form.data <= 1.5 * form.seconds + 1e-3 and form.compile > 0
    assert cost.speedup("dense") == 1.0 and cost.to_dict()["speedup"]["sparse"]["epoch"] == cost.speedup("sparse")
    saved = cost.costs["dense"].seconds - cost.costs["sparse"].seconds
    assert cost.break_even("sparse", 1.0) == (1 / saved if saved > 0 else float("inf"))
    assert "an epoch (forward" in str(cost)
    with pytest.raises(ValueError, match="epochs has value 4"):
        transfer.time_linear_epoch({"dense": convnet}, task, epochs=4)
    with pytest.raises(ValueError, match="1 models and 40 images"):
        transfer.time_linear_epoch({"dense": convnet}, task, batch_size=64)
