"""The policies of ``sparsify`` and its report."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sparsejax import sparsify
from sparsejax.nn import SparseLinear, record_inputs
from sparsejax.nn import _convert as convert
from sparsejax.nn import _policy as policy
from sparsejax.nn._policy import compile_step, time_layers
from sparsejax.nn.cost_model import Work, dense_terms, seconds, sparse_terms


def rows(report):
    return {row.path: row for row in report.rows}


def test_measured_replaces_what_was_faster(net, images, monkeypatch):
    model, masks = net
    asked = []

    def timing(dense, sparse, calls):
        assert sparse.pattern.shape == dense.kernel.shape
        asked.append(calls)
        return (3e-3, 1.5e-3) if isinstance(dense, nnx.Conv) else (1e-3, 2e-3)

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


def test_a_convolution_in_bfloat16_over_float32_images_is_measured():
    conv = nnx.Conv(3, 8, (3, 3), dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    mask = {"layers/0": np.ones((3, 3, 3, 8), bool)}
    sparse, _ = sparsify(nnx.Sequential(conv), mask, min_sparsity=0.0, policy="always")
    call = jax.ShapeDtypeStruct((4, 6, 6, 3), jnp.float32)
    for batch_minor in (False, True):
        step, operands = compile_step(sparse.layers[0], call, batch_minor=batch_minor)
        y, _ = step(*operands)
        assert y.dtype == jnp.bfloat16 and operands[2].dtype == jnp.bfloat16


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
    dense_s, sparse_s = time_layers(dense, sparse, [jax.ShapeDtypeStruct(shape, jnp.float32)])
    assert dense_s > 0
    assert sparse_s > 0


def test_measured_really_measures():
    """One big, very sparse layer: forty times fewer products must be faster on any machine."""
    mask = np.random.default_rng(0).random((1024, 1024)) < 0.005
    model = nnx.Linear(1024, 1024, rngs=nnx.Rngs(0))
    sparse, report = sparsify(model, {"": mask}, sample_input=jnp.ones((128, 1024)))
    (row,) = report.rows
    assert row.dense_ms > row.sparse_ms > 0
    assert type(sparse) is SparseLinear


@pytest.mark.parametrize(
    ("dense", "shape"),
    [
        (nnx.Linear(48, 40, rngs=nnx.Rngs(0)), (32, 48)),
        (nnx.Linear(48, 40, rngs=nnx.Rngs(0)), (4, 8, 48)),
        (nnx.Conv(8, 12, (3, 3), rngs=nnx.Rngs(0)), (16, 6, 6, 8)),
        (nnx.Conv(8, 12, (3, 3), strides=2, rngs=nnx.Rngs(0)), (16, 6, 6, 8)),
        (nnx.Conv(8, 12, (3,), rngs=nnx.Rngs(0)), (16, 9, 8)),
        (nnx.Conv(8, 12, (3,), rngs=nnx.Rngs(0)), (2, 8, 9, 8)),
    ],
)
def test_the_timed_sparse_step_moves_no_activation(dense, shape):
    """The sparse form is charged for its products only: its step has no copy and no transposition."""
    sparse, _ = sparsify(dense, min_sparsity=0.0, policy="always")
    step, operands = compile_step(
        sparse, jax.ShapeDtypeStruct(shape, jnp.float32), batch_minor=isinstance(dense, nnx.Conv)
    )
    text = step.lower(*operands).compile().as_text()
    assert "custom-call" in text
    assert [line for line in text.splitlines() if " copy(" in line or " transpose(" in line] == []
    y, (_, dx) = step(*operands)
    np.testing.assert_allclose(y, dense(operands[2]), rtol=1e-4, atol=1e-5)
    assert dx.shape[1:] == shape[-len(dx.shape) + 1 :]
    assert dx.size == np.prod(shape)


class Two(nnx.Module):
    """Layers of both kinds, each called on the whole input."""

    def __init__(self):
        self.conv = nnx.Conv(64, 96, (3, 3), rngs=nnx.Rngs(0))
        self.linear = nnx.Linear(64, 96, rngs=nnx.Rngs(0))

    def __call__(self, x):
        return self.conv(x) + self.linear(x)


def two_masks(sparsity):
    random = np.random.default_rng(0)
    return {"conv": random.random((3, 3, 64, 96)) >= sparsity, "linear": random.random((64, 96)) >= sparsity}


def modelled(work, table):
    terms = {"dense": dense_terms(work), "sparse": sparse_terms(work)}
    return tuple(seconds({name: terms[form][name] for name in table[form]}, table[form]) for form in terms)


def test_rule_goes_by_the_prediction_at_nominal_size(monkeypatch):
    even = {"dense": {"multiply_adds": 0.01}, "sparse": {"vector_multiply_adds": 0.8}}  # 80 %
    monkeypatch.setattr(policy, "predict", lambda work: modelled(work, even))
    for sparsity, action, word in ((0.75, "dense", "slower"), (0.85, "sparse", "faster")):
        _, report = sparsify(Two(), two_masks(sparsity), min_sparsity=0.0, policy="rule")
        for row in report.rows:
            assert row.action == action
            assert re.fullmatch(rf"rule: predicted at nominal size \d+\.\d\dx {word}", row.reason)
            assert row.dense_ms is row.sparse_ms is None
    _, report = sparsify(Two(), two_masks(0.5), min_sparsity=0.8, policy="rule")
    assert rows(report)["conv"].reason == "sparsity below 0.8"


def test_rule_asks_the_model_about_the_inputs_of_the_layer(monkeypatch):
    asked = []

    def predict(work):
        asked.append(work)
        return (3.0, 2.0) if work.kind == "conv" else (1.0, 2.0)

    monkeypatch.setattr(policy, "predict", predict)
    masks = two_masks(0.9)
    _, report = sparsify(Two(), masks, policy="rule", sample_input=jnp.ones((5, 7, 6, 64)))
    found = rows(report)
    assert (found["conv"].action, found["conv"].reason) == ("sparse", "rule: predicted 1.50x faster")
    assert (found["linear"].action, found["linear"].reason) == ("dense", "rule: predicted 2.00x slower")
    assert asked == [
        Work((3, 3, 64, 96), masks["conv"].sum(), (5, 7, 6, 64), (5, 7, 6, 96), False),
        Work((64, 96), masks["linear"].sum(), (5, 7, 6, 64), (5, 7, 6, 96), False),
    ]


@pytest.mark.parametrize(
    ("layer", "x", "y", "strided"),
    [
        (nnx.Linear(5, 3, rngs=nnx.Rngs(0)), (4096, 5), (4096, 3), False),
        (nnx.Conv(5, 3, (3, 3), strides=(1, 2), rngs=nnx.Rngs(0)), (64, 32, 32, 5), (64, 32, 16, 3), True),
        (nnx.Conv(5, 3, (20,), kernel_dilation=2, padding=0, rngs=nnx.Rngs(0)), (64, 78, 5), (64, 39 + 1, 3), False),
    ],
)
def test_rule_without_an_input_assumes_a_nominal_one(monkeypatch, layer, x, y, strided):
    asked = []
    monkeypatch.setattr(policy, "predict", lambda work: asked.append(work) or (2.0, 1.0))
    sparsify(layer, min_sparsity=0.0, policy="rule")
    assert asked == [Work(layer.kernel.shape, layer.kernel.size, x, y, strided)]


def test_rule_leaves_alone_what_is_not_called_and_adds_up_several_inputs(monkeypatch):
    class Uses(nnx.Module):
        def __init__(self):
            self.linear, self.unused = nnx.Linear(3, 3, rngs=nnx.Rngs(0)), nnx.Linear(3, 3, rngs=nnx.Rngs(0))

        def __call__(self, a, b):
            return self.linear(a).sum() + self.linear(b).sum()

    times = {2: (1.0, 2.0), 4: (5.0, 1.0)}
    monkeypatch.setattr(policy, "predict", lambda work: times[work.batch])
    inputs = (jnp.ones((2, 3)), jnp.ones((4, 3)))
    _, report = sparsify(Uses(), min_sparsity=0.0, policy="rule", sample_input=inputs)
    assert rows(report)["linear"].reason == "rule: predicted 2.00x faster"
    assert rows(report)["unused"].reason == "not called by the model on sample_input"


def test_the_report_is_an_aligned_table_and_dictionaries(net):
    model, masks = net
    _, report = sparsify(model, masks, policy="always")
    lines = str(report).splitlines()
    assert len(lines) == 2 + len(report.rows)  # a header, and a summary at the end
    assert re.split(r"  +", lines[0]) == [
        "path",
        "kind",
        "shape",
        "sparsity",
        "action",
        "dense ms",
        "sparse ms",
        "layout",
        "reason",
    ]
    start = lines[0].index("reason")
    for line, row in zip(lines[1:-1], report.rows, strict=True):
        assert line[start:] == row.reason
    (fc,) = [d for d in report.to_dicts() if d["path"] == "fc"]
    assert fc["kind"] == "Linear"
    assert fc["shape"] == (9, 3)
    assert fc["sparsity"] == 0.0
    assert fc["action"] == "dense"
    with pytest.raises(AttributeError):
        report.rows = ()
