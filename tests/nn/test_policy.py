"""The policies of ``sparsify`` and its report."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sparsejax import sparsify
from sparsejax.nn import SparseLinear
from sparsejax.nn import _convert as convert
from sparsejax.nn._policy import record_inputs, time_layers


def rows(report):
    return {row.path: row for row in report.rows}


def test_measured_replaces_what_was_faster(net, images, monkeypatch):
    model, masks = net
    asked = []

    def timing(dense, sparse, calls):
        assert sparse.pattern.shape == dense.kernel.shape
        asked.append(calls)
        return (3.0, 1.5) if isinstance(dense, nnx.Conv) else (1.0, 2.0)

    monkeypatch.setattr(convert, "time_layers", timing)
    sparse, report = sparsify(model, masks, policy="measured", sample_input=images)
    found = rows(report)
    assert found["blocks/0/conv1"].action == "sparse"
    assert found["blocks/0/conv1"].reason == "measured 2.00x faster"
    assert (found["blocks/0/conv1"].dense_ms, found["blocks/0/conv1"].sparse_ms) == (3.0, 1.5)
    assert found["heads/a"].action == "dense"
    assert found["heads/a"].reason == "measured 2.00x slower"
    assert found["stem"].dense_ms is None  # no candidate, not timed
    assert type(sparse.heads["a"]) is nnx.Linear
    assert len(asked) == len(masks)
    assert [call.shape for calls in asked for call in calls].count((5, 8, 8, 6)) == 4


def test_a_layer_that_is_not_called_stays_dense(net, images):
    model, masks = net
    model.unused = nnx.Linear(9, 9, rngs=nnx.Rngs(0))
    mask = {"unused": np.eye(9, dtype=bool)}
    _, report = sparsify(model, mask, sample_input=images, skip=tuple(masks))
    assert rows(report)["unused"].reason == "not called by the model on sample_input"


def test_recording_computes_and_changes_nothing(net, images):
    model, _ = net
    before = nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.RngKey)))
    calls = record_inputs(model, images)
    assert calls["stem"] == [jax.ShapeDtypeStruct((5, 8, 8, 2), jnp.float32)]
    assert calls["blocks/0/conv1"] == [jax.ShapeDtypeStruct((5, 8, 8, 6), jnp.float32)]  # called twice alike
    assert calls["fc"] == [jax.ShapeDtypeStruct((5, 9), jnp.float32)]
    after = nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.RngKey)))
    jax.tree.map(np.testing.assert_array_equal, after, before)
    assert type(model.stem) is nnx.Conv
    assert model.dropout.deterministic is False


def test_recording_takes_several_inputs_and_sees_every_shape():
    class Two(nnx.Module):
        def __init__(self):
            self.linear = nnx.Linear(3, 3, rngs=nnx.Rngs(0))

        def __call__(self, a, b):
            return self.linear(a).sum() + self.linear(b).sum()

    calls = record_inputs(Two(), (jnp.ones((2, 3)), jnp.ones((4, 3))))
    assert [call.shape for call in calls["linear"]] == [(2, 3), (4, 3)]


@pytest.mark.parametrize(
    ("dense", "shape"),
    [
        (nnx.Linear(6, 5, rngs=nnx.Rngs(0)), (4, 6)),
        (nnx.Linear(6, 5, rngs=nnx.Rngs(0)), (6,)),
        (nnx.Linear(6, 5, rngs=nnx.Rngs(0)), (2, 3, 6)),
        (nnx.Conv(2, 3, (3, 3), rngs=nnx.Rngs(0)), (2, 5, 6, 2)),
        (nnx.Conv(2, 3, (3,), rngs=nnx.Rngs(0)), (2, 3, 6, 2)),
        (nnx.Conv(2, 3, (3, 3), rngs=nnx.Rngs(0)), (5, 6, 2)),
    ],
)
def test_timing_runs_both_forms(dense, shape):
    sparse, _ = sparsify(dense, min_sparsity=0.0, policy="always")
    dense_ms, sparse_ms = time_layers(dense, sparse, [jax.ShapeDtypeStruct(shape, jnp.float32)])
    assert dense_ms > 0
    assert sparse_ms > 0


def test_measured_really_measures():
    """One big, very sparse layer: forty times fewer products must be faster on any machine."""
    mask = np.random.default_rng(0).random((1024, 1024)) < 0.005
    model = nnx.Linear(1024, 1024, rngs=nnx.Rngs(0))
    sparse, report = sparsify(model, {"": mask}, sample_input=jnp.ones((128, 1024)))
    (row,) = report.rows
    assert row.dense_ms > row.sparse_ms > 0
    assert type(sparse) is SparseLinear


def test_rule_goes_by_kind_and_sparsity():
    class Two(nnx.Module):
        def __init__(self):
            self.conv = nnx.Conv(4, 25, (1,), rngs=nnx.Rngs(0))
            self.linear = nnx.Linear(4, 25, rngs=nnx.Rngs(0))

    mask = np.zeros((4, 25), bool)
    mask.flat[:22] = True  # sparsity 0.78
    _, report = sparsify(Two(), {"conv": mask[None], "linear": mask}, min_sparsity=0.5, policy="rule")
    found = rows(report)
    assert (found["conv"].action, found["linear"].action) == ("sparse", "dense")
    assert found["linear"].reason == "rule: below 0.8"
    _, report = sparsify(Two(), {"conv": mask[None]}, min_sparsity=0.8, policy="rule")
    assert rows(report)["conv"].reason == "sparsity below 0.8"


def test_the_report_is_an_aligned_table_and_dictionaries(net):
    model, masks = net
    _, report = sparsify(model, masks, policy="always")
    lines = str(report).splitlines()
    assert len(lines) == 1 + len(report.rows)
    assert re.split(r"  +", lines[0]) == [
        "path",
        "kind",
        "shape",
        "sparsity",
        "action",
        "dense ms",
        "sparse ms",
        "reason",
    ]
    start = lines[0].index("reason")
    for line, row in zip(lines[1:], report.rows, strict=True):
        assert line[start:] == row.reason
    (fc,) = [d for d in report.to_dicts() if d["path"] == "fc"]
    assert fc["kind"] == "Linear"
    assert fc["shape"] == (9, 3)
    assert fc["sparsity"] == 0.0
    assert fc["action"] == "dense"
    with pytest.raises(AttributeError):
        report.rows = ()
