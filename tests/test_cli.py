"""The command line, and what stands behind ``doctor``."""

from __future__ import annotations

import json
import os

import pytest

import sparsejax
from helpers.small_run import StopAfter
from sparsejax import _doctor, _self_test
from sparsejax._cpu_info import CpuInfo, cpu_info
from sparsejax._native import ffi
from sparsejax.cli import main
from sparsejax.kernels._targets import TARGETS


@pytest.fixture(scope="module")
def diagnosis():
    return _doctor.doctor()


def test_every_target_passes_the_self_test_in_every_dtype(diagnosis):
    assert [test for test in diagnosis.tests if not test.ok] == []
    tested = {(test.target, test.dtype) for test in diagnosis.tests}
    assert tested == {(target, dtype) for target in TARGETS for dtype in ("float32", "float64", "bfloat16")}
    assert all(test.error >= 0 for test in diagnosis.tests)


def test_doctor_json(diagnosis, monkeypatch, capsys):
    monkeypatch.setattr("sparsejax._doctor.doctor", lambda: diagnosis)
    assert main(["doctor", "--json"]) == 0
    out = json.loads(capsys.readouterr().out)
    assert out["ok"] is True
    assert out["versions"]["sparsejax"] == sparsejax.__version__
    assert out["versions"].keys() >= {"python", "jax", "jaxlib", "flax", "optax", "numpy"}
    assert out["cpu"]["isa"] == ffi.isa() and out["cpu"]["threads"] >= 1
    assert out["targets"] == sorted(ffi.registrations())


def test_doctor_table_and_status_of_a_bad_kernel(diagnosis, monkeypatch, capsys):
    bad = _self_test.SelfTest(TARGETS[0], "float32", False, float("nan"), "it broke")
    broken = _doctor.Diagnosis(diagnosis.versions, diagnosis.cpu, TARGETS, [bad, *diagnosis.tests[1:]])
    monkeypatch.setattr("sparsejax._doctor.doctor", lambda: broken)
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert f"{TARGETS[0]}, float32: it broke" in out and "FAIL nan" in out
    assert main(["doctor", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["tests"][0]["error"] is None


def test_the_self_test_can_fail(monkeypatch):
    target = "sparsejax_spmm_v2"
    good = _self_test._CASES[target]
    wrong = _self_test._Case(good.call, lambda *a, **params: 1.001 * good.reference(*a, **params), good.operands)
    not_called = _self_test._Case(good.reference, good.reference, good.operands)

    def crash(*args, **params):
        raise RuntimeError("no such kernel")

    crashing = _self_test._Case(crash, good.reference, good.operands)
    for case, detail in ((wrong, "tolerance"), (not_called, "does not call"), (crashing, "no such kernel")):
        monkeypatch.setitem(_self_test._CASES, target, case)
        result = _self_test._test(target, "float32")
        assert not result.ok and detail in result.detail
    assert not _self_test._test("sparsejax_new_v1", "float32").ok


def test_cpu_info(monkeypatch):
    assert sparsejax.cpu_info is cpu_info
    monkeypatch.setenv("NPROC", "3")
    assert cpu_info() == CpuInfo(ffi.isa(), tuple(ffi.supported_isas()), 3)
    for value in ("0", "many", ""):
        monkeypatch.setenv("NPROC", value)
        assert cpu_info().threads == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "idx:/no/such/folder"], "idx_dataset: folder has value '/no/such/folder'"),
        (["--data", "cifar"], "load_task: spec has value 'cifar'"),
        (["--sparsity", "1.5"], "TrainConfig: sparsity has value 1.5"),
        (["--epochs", "0"], "TrainConfig: epochs has value 0"),
        (["--batch-size", "5000"], "train: batch_size has value 5000"),
        (["--checkpoint-every", "0"], "train: checkpoint_every has value 0"),
        (["--method", "rigl", "--scope", "global"], "rigl: scope has value 'global'"),
        (["--method", "rigl", "--epochs", "1"], "train: update_every has value 100"),
        (["--method", "acdc", "--epochs", "1", "--batch-size", "512"], "train: epochs has 2 steps in all"),
        (["--method", "dense", "--against-dense"], "train: method has value 'dense'"),
    ],
)
def test_errors_of_the_user_are_one_line(tmp_path, capsys, arguments, message):
    assert main(["train", "--out", str(tmp_path), "--model", "mlp", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and err.startswith(f"error: {message}")


@pytest.mark.parametrize(
    "arguments",
    [[], ["fly"], ["train"], ["train", "--out", "x", "--model", "vgg"], ["train", "--out", "x", "--epochs", "two"]],
)
def test_errors_of_the_parser_are_one_line(capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    err = capsys.readouterr().err
    assert stop.value.code == 2 and len(err.splitlines()) == 1 and err.startswith("error: ")


@pytest.mark.parametrize("command", [[], ["doctor"], ["demo"], ["train"], ["bias"], ["transfer"]])
def test_help(capsys, command):
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0 and "--help" in capsys.readouterr().out


def test_train_refuses_a_folder_of_another_run_and_starts_over_when_told(tmp_path, capsys, monkeypatch):
    base = ["train", "--model", "mlp", "--epochs", "1", "--batch-size", "256", "--out", str(tmp_path)]
    assert main([*base, "--method", "dense", "--json"]) == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert err == "" and result["step"] == 5 and result["comparison"] is None
    assert main(base) == 2
    assert "method 'dense'; expected 'magnitude'" in capsys.readouterr().err
    assert main([*base, "--no-resume"]) == 0
    out, err = capsys.readouterr()
    assert "last phase, ms per step" in out and "training FLOP" in out and "test accuracy" in out
    assert "step 5/5, sparse" in err


def test_train_against_dense(tmp_path, capsys):
    base = ["train", "--model", "mlp", "--epochs", "2", "--batch-size", "128", "--method", "static"]
    assert main([*base, "--out", str(tmp_path), "--against-dense", "--json"]) == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert err == "" and result["dense"]["step"] == result["sparse"]["step"] == 22
    assert result["dense"]["out"] == str(tmp_path / "dense") and result["sparse"]["out"] == str(tmp_path)
    assert result["sparse"]["training_flops"] < result["dense"]["training_flops"]
    # What is finished is not trained again: only printed.
    assert main([*base, "--out", str(tmp_path), "--against-dense"]) == 0
    out, err = capsys.readouterr()
    assert "wall time, s" in out and "of dense" in out


def test_interrupt(tmp_path, capsys, monkeypatch):
    class Interrupt(StopAfter):
        def step(self, row):
            raise KeyboardInterrupt

    monkeypatch.setattr("sparsejax.train.reporter", lambda quiet: Interrupt(0))
    assert main(["train", "--model", "mlp", "--epochs", "1", "--out", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_demo(tmp_path, capsys):
    assert main(["demo", "--epochs", "1", "--json", "--out", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert err == ""
    assert result["sparse"]["sparsity"] == pytest.approx(0.9, abs=1e-4)
    assert result["dense"]["step"] == result["sparse"]["step"] == 22
    assert result["dense"]["sparsity"] == 0
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")
    assert main(["demo", "--epochs", "0", "--out", str(tmp_path)]) == 2
    assert main(["demo", "--seed", "-1", "--out", str(tmp_path)]) == 2
