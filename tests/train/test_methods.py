"""AC/DC and sparse-to-sparse runs: two programs, the sparse kernels where the plan says so, and the right numbers."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import re
from contextlib import contextmanager
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from flax import nnx

from helpers.small_run import ACDC, RIGL, final_arrays, make_model
from sparsejax.models import ConvNet
from sparsejax.nn import SparseConv
from sparsejax.train import TrainPhase, TrainRun
from sparsejax.train._state import sparsity
from sparsejax.train.checkpoints._arrays import masks_in
from sparsejax.train.log._metrics import read_metrics

SIZE = 3 * 3 * 4 * 8
KEPT = SIZE - round(0.8 * SIZE)


@contextmanager
def compilations():
    """Collect the names of the training steps that are compiled in the block."""
    found: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record):
            match = re.match(r"Compiling jit\((train_step|stored_step)\)", record.getMessage())
            found.extend(match.groups() if match else ())

    handler, logger = Handler(), logging.getLogger("jax")
    logger.addHandler(handler)
    try:
        with jax.log_compiles(True):
            yield found
    finally:
        logger.removeHandler(handler)


def walk(config, dataset, out, model=None) -> SimpleNamespace:
    """Train, and note after every step in which form the network is."""
    run = TrainRun(config, out, dataset=dataset, model=model or make_model(), checkpoint_every=1000)
    forms, supports, released = [], {}, None
    with compilations() as compiled:
        for last in run.states():
            convs = last.model.convs[1:]
            forms.append((last.is_stored, type(convs[0]), [conv.kernel.size for conv in convs]))
            supports[last.step] = last.support
            if last.step == 6:
                released = np.array(convs[0].kernel[...]), nnx.state(nnx.clone(last.optimizer))
    return SimpleNamespace(
        run=run,
        rows=read_metrics(run.dir.metrics),
        last=last,
        forms=forms[1:],
        supports=supports,
        released=released,
        compiled=sorted(compiled),
    )


@pytest.fixture(scope="module")
def acdc(dataset, tmp_path_factory):
    return walk(ACDC, dataset, tmp_path_factory.mktemp("acdc"))


@pytest.fixture(scope="module")
def rigl(dataset, tmp_path_factory):
    return walk(RIGL, dataset, tmp_path_factory.mktemp("rigl"))


@pytest.fixture(params=["acdc", "rigl"])
def walked(request):
    return request.getfixturevalue(request.param)


def test_two_programs_however_often_the_mask_changes(walked):
    assert sum(phase.name == "sparse" for phase in walked.run.plan.phases) >= 3
    assert walked.compiled == ["stored_step", "train_step"]


def test_sparse_phases_hold_the_stored_weights_alone(walked):
    plan = walked.run.plan
    stored, dense = (True, SparseConv, [KEPT]), (False, nnx.Conv, [SIZE])
    assert walked.forms == [stored if plan.is_stored(step) else dense for step in range(plan.total)]
    trace = final_arrays(walked.run)["optimizer/opt_state/inner/1/0/trace/convs/1/kernel/value"]
    assert trace.shape == (KEPT,) and np.any(trace)
    assert sparsity(walked.last) == pytest.approx(1 - KEPT / SIZE)


def test_the_same_weights_as_dense_training_under_masks(walked, dataset, tmp_path):
    """Every step through the wrapper on dense weights is the oracle: no kernel of ours, no change of storage."""
    masked = TrainRun(walked.run.config, tmp_path, dataset=dataset, model=make_model())
    masked.plan = dataclasses.replace(masked.plan, phases=(TrainPhase("prune", 0, masked.plan.total),))
    *_, last = masked.states()
    expected, conv = last.model.convs[1].kernel[...], walked.last.model.convs[1]
    np.testing.assert_array_equal(conv.pattern.mask(), expected != 0)
    np.testing.assert_allclose(conv.pattern.scatter(conv.kernel[...]), expected, rtol=2e-3, atol=2e-4)
    for got, want in zip(walked.rows, read_metrics(masked.dir.metrics), strict=True):
        assert got.loss == pytest.approx(want.loss, rel=1e-3)
        assert (got.sparsity, got.mask_change) == (want.sparsity, want.mask_change)
        assert got.forward_flops == want.forward_flops


def test_mask_changes_of_acdc(acdc):
    pairs = itertools.pairwise(acdc.supports[step]["convs/1"] for step in (3, 9, 14))
    expected = [(old & ~new).sum() / KEPT for old, new in pairs]
    changes = {row.step: row.mask_change for row in acdc.rows if row.mask_change is not None}
    # Compressed after steps 3, 9 and 14, all weights free after 6 and 12.
    assert list(changes) == [9, 14]
    assert list(changes.values()) == pytest.approx(expected)
    assert 0 < changes[9] < 1
    assert [row.sparsity > 0 for row in acdc.rows] == [3 <= s < 6 or 9 <= s < 12 or s >= 14 for s in range(1, 17)]


def test_released_weights_start_at_zero_without_momentum(acdc):
    kernel, optimizer = acdc.released
    assert not np.any(kernel[~acdc.supports[6]["convs/1"]]) and np.any(kernel)
    momentum = jax.tree.leaves(optimizer["opt_state"]["inner"][1][0]["trace"])
    assert len(momentum) > 5 and not any(np.any(moment) for moment in momentum)
    assert optimizer["opt_state"]["inner"][1][1]["count"][...] == 6


def test_rigl_skips_the_optimizer_where_it_changes_the_mask(rigl):
    arrays, total = final_arrays(rigl.run), rigl.run.plan.total
    assert arrays["optimizer/opt_state/step/value"] == total
    assert arrays["optimizer/opt_state/inner/1/1/count/value"] == total - 3


def test_mask_changes_of_rigl(rigl):
    changes = {row.step: row.mask_change for row in rigl.rows if row.mask_change is not None}
    assert list(changes) == [4, 8, 12]
    assert all(change <= 0.3 for change in changes.values()) and changes[4] > 0
    assert {row.sparsity for row in rigl.rows} == {round(1 - KEPT / SIZE, 6)}


@pytest.mark.parametrize("method", ["set", "static"])
def test_other_sparse_to_sparse_runs(method, dataset, tmp_path):
    found = walk(dataclasses.replace(RIGL, method=method), dataset, tmp_path)
    changes = [row.mask_change for row in found.rows if row.mask_change is not None]
    assert len(changes) == (3 if method == "set" else 0) and all(0 < change <= 0.3 for change in changes)
    assert found.compiled == (["stored_step", "train_step"] if method == "set" else ["stored_step"])
    assert found.last.is_stored and found.last.model.convs[1].kernel.size == KEPT


def test_one_threshold_for_all_layers(dataset, tmp_path):
    """Counts of the layers move, their room only if it must."""
    model = ConvNet(10, in_features=1, widths=(4, 8, 8), rngs=nnx.Rngs(0))
    found = walk(dataclasses.replace(ACDC, scope="global"), dataset, tmp_path, model)
    size = 288 + 576
    counts = [[int(mask.sum()) for mask in found.supports[step].values()] for step in (3, 9, 14)]
    assert all(sum(kept) == size - round(0.8 * size) for kept in counts)
    assert len({tuple(kept) for kept in counts}) > 1
    room = [sizes for is_stored, _, sizes in found.forms if is_stored]
    assert len({tuple(sizes) for sizes in room}) == found.compiled.count("stored_step")
    assert found.compiled.count("train_step") == 1
    arrays = final_arrays(found.run)
    for path, kept, capacity in zip(found.supports[14], counts[-1], room[-1], strict=True):
        values = arrays[f"model/{path}/kernel/value"]
        assert kept <= capacity == len(values) and not np.any(values[kept:])
        assert masks_in(arrays)[path].sum() == kept
