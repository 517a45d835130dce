"""What a run does in its phases, and what it leaves."""

from __future__ import annotations

import json
import math
import sys

import jax
import numpy as np
import pytest
from flax import nnx

from helpers.small_run import CONFIG, StopAfter, make_model
from sparsejax import pruning
from sparsejax.nn import Pattern, SparseConv, pattern_masks
from sparsejax.train import TrainConfig, TrainRun, bind_step
from sparsejax.train._state import Storage, TrainState, sparse_masks, sparsity
from sparsejax.train.log._metrics import read_metrics


@pytest.fixture(scope="module")
def result(run):
    run.dir.claim(run.config, resume=False)
    return run.fit()


def test_the_result_is_sparse_where_it_should_be(result):
    conv = result.model.convs[1]
    size = math.prod(conv.pattern.shape)
    assert isinstance(conv, SparseConv)
    assert conv.kernel.shape == (size - round(0.8 * size),)
    assert type(result.model.convs[0]) is nnx.Conv
    assert type(result.model.fc) is nnx.Linear
    assert result.sparsity == pytest.approx(0.8, abs=1 / size)


def test_metrics_follow_the_phases(run, result):
    rows = read_metrics(run.dir.metrics)
    assert [row.step for row in rows] == list(range(1, 19))
    assert [row.phase for row in rows] == ["dense"] * 4 + ["prune"] * 7 + ["sparse"] * 7
    assert [row.epoch for row in rows] == [0] * 6 + [1] * 6 + [2] * 6
    sparsities = [row.sparsity for row in rows]
    assert sparsities == sorted(sparsities)
    assert sparsities[3] == 0 and sparsities[10] == sparsities[17] == pytest.approx(0.8, abs=0.01)
    assert 0 < sparsities[7] < 0.8
    assert [row.step for row in rows if row.accuracy is not None] == [4, 6, 11, 12, 18]
    assert rows[-1].accuracy == result.accuracy
    assert [row.step for row in rows if row.forward_flops is not None] == [4, 6, 11, 12, 18]
    assert [row.step for row in rows if row.mask_change is not None] == [11]  # the second mask is the first to change


def test_files_of_a_run(run, result):
    assert json.loads(run.dir.result.read_text()) == result.to_dict()
    assert run.dir.plot.read_bytes().startswith(b"\x89PNG")
    assert {name: time.steps for name, time in result.phases.items()} == {"dense": 4, "prune": 7, "sparse": 7}
    assert result.seconds == pytest.approx(sum(row.ms for row in read_metrics(run.dir.metrics)) / 1e3)
    assert result.steady_seconds < result.seconds


def test_without_matplotlib_the_picture_is_left_out(run, result, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    files = {path: path.read_bytes() for path in (run.dir.result, run.dir.plot)}
    for path in files:
        path.unlink()
    with pytest.warns(UserWarning, match=r"curves.png' is left out, because matplotlib is missing.*sparsejax\[all\]"):
        again = run.fit()
    assert not run.dir.plot.exists() and run.dir.result.exists() and again.accuracy == result.accuracy
    for path, content in files.items():
        path.write_bytes(content)


def test_the_cost_of_a_step_is_reported(result):
    dense, sparse = result.comparison.dense, result.comparison.sparse
    kernel = 3 * 3 * 4 * 8
    assert dense.parameter_bytes - sparse.parameter_bytes == 4 * (kernel - result.model.convs[1].kernel.size)
    assert dense.optimizer_bytes - sparse.optimizer_bytes == 4 * (kernel - result.model.convs[1].kernel.size)
    assert dense.pattern_bytes == 0
    assert sparse.pattern_bytes == sum(x.nbytes for x in jax.tree.leaves(nnx.state(result.model, Pattern)))
    assert result.bytes["parameter_bytes"] == sparse.parameter_bytes
    assert result.bytes["pattern_bytes"] == sparse.pattern_bytes
    # The wrapper's state: a byte of mask per stored weight, four bytes each for its count, its step and the change.
    assert result.bytes["optimizer_bytes"] == sparse.optimizer_bytes + result.model.convs[1].kernel.size + 4 * 5
    assert dense.ms > 0 and sparse.ms > 0


def test_the_plan_and_the_estimate_are_reported_once(run):
    run.dir.claim(run.config, resume=False)
    report = StopAfter(0)
    run.fit(report)
    plan, estimate = report.notes
    assert plan.startswith("18 steps: 4 dense, 7 prune, 7 sparse\n") and "58  sparse phases" in plan
    forward = (15530 - 2 * (288 - 58) * 16) / 15530
    assert plan.endswith(f"forward pass of the sparse network {forward:.2f}, training {(11 + 7 * forward) / 18:.2f}")
    assert estimate.startswith("13 steps left")


def test_storage_keeps_weights_momentum_and_counters_both_ways(dataset, tmp_path):
    run = TrainRun(CONFIG, tmp_path, dataset=dataset, model=make_model())
    model, optimizer = run._model, run._optimizer
    images, labels = dataset.train_images[:16], dataset.train_labels[:16]
    step = bind_step(model, optimizer)
    for _ in range(11):
        step(images, labels)
    storage = Storage(run.kept_dense, run.capacity)
    dense = TrainState(model, optimizer, 11, False, sparse_masks(optimizer))
    sparse = storage.to_stored(dense)
    mask = np.asarray(pruning.get_mask(optimizer.opt_state)["convs"][1]["kernel"][...])
    pattern = sparse.model.convs[1].pattern
    np.testing.assert_array_equal(pattern_masks(sparse.model)["convs/1"], mask)
    np.testing.assert_array_equal(sparse.support["convs/1"], mask)
    np.testing.assert_array_equal(pattern.scatter(sparse.model.convs[1].kernel[...]), model.convs[1].kernel[...])
    old, new = (tuned.opt_state.inner[1][0].trace for tuned in (optimizer, sparse.optimizer))
    np.testing.assert_array_equal(new["convs"][1]["kernel"][...], pattern.gather(old["convs"][1]["kernel"][...]))
    assert np.any(new["convs"][1]["kernel"][...])
    assert (sparse.step, sparse.is_stored, sparsity(sparse)) == (11, True, pytest.approx(1 - mask.mean(), abs=1e-6))

    back = storage.to_dense(sparse)
    assert not back.is_stored
    for got, expected in ((back.model, model), (back.optimizer, optimizer)):
        assert nnx.graphdef(got) == nnx.graphdef(expected)  # or the program would be compiled again
        jax.tree.map(np.testing.assert_array_equal, nnx.as_pure(nnx.state(got)), nnx.as_pure(nnx.state(expected)))


def test_a_dense_run_is_the_baseline(dataset, tmp_path):
    config = TrainConfig(method="dense", epochs=1, batch_size=32)
    result = TrainRun(config, tmp_path, dataset=dataset, model=make_model()).fit()
    assert (result.sparsity, result.comparison, set(result.phases)) == (0.0, None, {"dense"})
    assert type(result.model.convs[1]) is nnx.Conv


def test_training_changes_a_copy_of_the_model(initial, run, result):
    model, before = initial
    for kept in (model, run._model):
        jax.tree.map(np.testing.assert_array_equal, nnx.state(kept, nnx.Param), before)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sparsity", 0.0),
        ("sparsity", 1.0),
        ("epochs", 0),
        ("batch_size", 0),
        ("seed", -1),
        ("learning_rate", math.nan),
        ("momentum", 1.0),
        ("weight_decay", -1.0),
        ("dense_fraction", -0.1),
        ("prune_fraction", 0.0),
        ("method", "granet"),
        ("scope", "row"),
        ("phase_fraction", 0.0),
        ("phase_fraction", 0.6),
        ("update_every", 0),
    ],
)
def test_bad_configurations_name_the_field(field, value):
    with pytest.raises(ValueError, match=rf"TrainConfig: {field} has value .*; expected"):
        TrainConfig(**{field: value})


def test_fractions_must_leave_sparse_steps():
    with pytest.raises(ValueError, match="sum 1; expected a sum below 1"):
        TrainConfig(dense_fraction=0.5, prune_fraction=0.5)


def test_a_checkpoint_period_below_one(dataset, tmp_path):
    with pytest.raises(ValueError, match="checkpoint_every has value 0"):
        TrainRun(CONFIG, tmp_path, dataset=dataset, model=make_model(), checkpoint_every=0)
