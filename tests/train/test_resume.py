"""A run that is stopped anywhere and started again ends with the same bits and the same metrics."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

from helpers.processes import run_python, start_python, tail
from helpers.small_run import (
    ACDC,
    RIGL,
    StopAfter,
    Stopped,
    assert_same_bits,
    checkpoint_arrays,
    final_arrays,
    make_model,
)
from sparsejax.train import TrainConfig, TrainRun
from sparsejax.train.checkpoints._checkpoint import Checkpoints
from sparsejax.train.log._metrics import read_metrics


def without_times(path: Path) -> list[tuple]:
    return [row[:-2] for row in read_metrics(path)]


@pytest.fixture(scope="module")
def uninterrupted(run):
    run.dir.claim(run.config, resume=False)
    run.fit()
    return final_arrays(run), without_times(run.dir.metrics)


# Stops come before the checkpoint of their step, so 12 with one every step resumes right after the conversion.
@pytest.mark.parametrize(
    ("stop", "every", "resumed_at"), [(1, 2, 0), (3, 2, 2), (9, 2, 8), (11, 2, 10), (12, 1, 11), (17, 2, 16)]
)
def test_stopped_in_any_phase(run, uninterrupted, monkeypatch, stop, every, resumed_at):
    arrays, rows = uninterrupted
    run.dir.claim(run.config, resume=False)
    monkeypatch.setattr(run, "checkpoint_every", every)
    with pytest.raises(Stopped):
        run.fit(StopAfter(stop))
    assert [row.step for row in read_metrics(run.dir.metrics)] == list(range(1, stop + 1))
    report = StopAfter(0)
    run.fit(report)
    assert (report.done, report.finished) == (resumed_at, True)
    assert [row.step for row in report.rows] == list(range(resumed_at + 1, 19))
    assert_same_bits(final_arrays(run), arrays)
    assert without_times(run.dir.metrics) == rows


@pytest.fixture(scope="module", params=[ACDC, RIGL], ids=["acdc", "rigl"])
def changing(request, dataset, tmp_path_factory):
    """A run whose mask changes several times, and how it ends when it is not interrupted."""
    run = TrainRun(
        request.param, tmp_path_factory.mktemp("run"), dataset=dataset, model=make_model(), checkpoint_every=1
    )
    run.fit()
    return run, final_arrays(run), without_times(run.dir.metrics)


# A stop comes before the checkpoint of its step. AC/DC compresses after step 9 and frees all weights after 12; RigL
# changes the mask after 12. So the run goes on from inside and from both ends of dense and of sparse phases.
EDGES, BETWEEN = (2, 9, 10, 12, 13), (8, 11, 14, 15)


@pytest.mark.parametrize("stop", [*EDGES, *(pytest.param(stop, marks=pytest.mark.slow) for stop in BETWEEN)])
def test_stopped_around_changes_of_the_mask(changing, stop):
    run, arrays, rows = changing
    run.dir.claim(run.config, resume=False)
    with pytest.raises(Stopped):
        run.fit(StopAfter(stop))
    report = StopAfter(0)
    run.fit(report)
    assert report.done == stop - 1
    assert_same_bits(final_arrays(run), arrays)
    assert without_times(run.dir.metrics) == rows


def test_a_finished_run_is_not_trained_again(run, uninterrupted):
    arrays, rows = uninterrupted
    run.dir.claim(run.config, resume=False)
    first = run.fit()
    report = StopAfter(0)
    second = run.fit(report)
    assert report.rows == []
    assert second.accuracy == first.accuracy
    assert_same_bits(final_arrays(run), arrays)
    assert without_times(run.dir.metrics) == rows


def test_the_last_two_checkpoints_are_kept(run, uninterrupted):
    assert run.checkpoints.steps() == [16, 18]


def test_killed_at_any_moment(tmp_path):
    """SIGKILL while checkpoints are being written; every process compiles as users do."""
    words = ["--data", "digits", "--model", "mlp", "--epochs", "2", "--batch-size", "128", "--sparsity", "0.9"]
    command = ["-m", "sparsejax", "train", *words, "--checkpoint-every", "1", "--json", "--out"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    with start_python(*command, str(killed)) as process:
        deadline = time.monotonic() + 300
        while not list((killed / "checkpoints").glob("[0-9]*")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (killed / "result.json").exists()
    results = [run_python(*command, str(out), timeout=300) for out in (killed, whole)]
    assert [tail(done) for done in results if done.returncode] == []
    assert json.loads(results[0].stdout)["accuracy"] == json.loads(results[1].stdout)["accuracy"]
    configuration = TrainConfig(model="mlp", epochs=2, batch_size=128).to_dict()
    both = [Checkpoints(out / "checkpoints", configuration) for out in (killed, whole)]
    assert_same_bits(*(checkpoint_arrays(checkpoints, 22) for checkpoints in both))
    assert without_times(killed / "metrics.csv") == without_times(whole / "metrics.csv")
