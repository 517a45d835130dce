"""AC/DC and sparse-to-sparse runs: two programs, the sparse kernels where the plan says so, and the right numbers."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import re
from contextlib import contextmanager

import jax
import numpy as np
import pytest
from flax import nnx
from small_run import ACDC, RIGL, StopAfter, final_arrays, make_model

from sparsejax.nn import SparseConv
from sparsejax.train import Phase, Run
from sparsejax.train._checkpoint import masks_in
from sparsejax.train._metrics import read_metrics

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


def walk(run):
    """Train from the start; the form of the network after every step, and what was compiled."""
    run.dir.claim(run.config, resume=False)
    jax.clear_caches()
    forms = []
    with compilations() as compiled:
        for state in run.states():
            forms.append((state.is_stored, type(state.model.convs[1]), state.model.convs[1].kernel.size))
    return forms[1:], sorted(compiled), run.finish(state)


def make_run(config, dataset, out):
    return Run(config, out, dataset=dataset, model=make_model(), checkpoint_every=1000)


@pytest.fixture(scope="module", params=[ACDC, RIGL], ids=["acdc", "rigl"])
def walked(request, dataset, tmp_path_factory):
    run = make_run(request.param, dataset, tmp_path_factory.mktemp("walk"))
    return run, *walk(run)


def test_two_programs_however_often_the_mask_changes(walked):
    run, _, compiled, _ = walked
    assert sum(phase.name == "sparse" for phase in run.plan.phases) >= 3
    assert compiled == ["stored_step", "train_step"]


def test_sparse_phases_hold_the_stored_weights_alone(walked):
    run, forms, _, result = walked
    stored, dense = (True, SparseConv, KEPT), (False, nnx.Conv, SIZE)
    assert forms == [stored if run.plan.is_stored(step) else dense for step in range(run.plan.total)]
    trace = final_arrays(run)["optimizer/opt_state/inner/1/0/trace/convs/1/kernel/value"]
    assert trace.shape == (KEPT,) and np.any(trace)
    assert result.sparsity == pytest.approx(1 - KEPT / SIZE)


def test_the_same_weights_as_dense_training_under_masks(walked, dataset, tmp_path):
    """Every step through the wrapper on dense weights is the oracle: no kernel of ours, no change of storage."""
    run = walked[0]
    masked = make_run(run.config, dataset, tmp_path)
    masked.plan = dataclasses.replace(run.plan, phases=(Phase("prune", 0, run.plan.total),))
    expected = masked.fit().model.convs[1].kernel[...]
    conv = walked[3].model.convs[1]
    np.testing.assert_array_equal(conv.pattern.mask(), expected != 0)
    np.testing.assert_allclose(conv.pattern.scatter(conv.kernel[...]), expected, rtol=2e-3, atol=2e-4)
    for got, want in zip(read_metrics(run.dir.metrics), read_metrics(masked.dir.metrics), strict=True):
        assert got.loss == pytest.approx(want.loss, rel=1e-3)
        assert (got.sparsity, got.mask_change) == (want.sparsity, want.mask_change)
        assert got.forward_flops == want.forward_flops


def test_mask_changes_of_acdc(dataset, tmp_path):
    run = make_run(ACDC, dataset, tmp_path)
    supports = []
    for state in run.states():
        if state.is_stored and (not supports or state.support is not supports[-1]):
            supports.append(state.support)
    rows = read_metrics(run.dir.metrics)
    changes = [row.mask_change for row in rows if row.mask_change is not None]
    pairs = itertools.pairwise(support["convs/1"] for support in supports)
    expected = [(old & ~new).sum() / KEPT for old, new in pairs]
    assert len(supports) == 3 and changes == pytest.approx(expected)
    assert 0 < changes[0] < 1
    # Compressed after steps 3, 9 and 14, all weights free after 6 and 12.
    assert [row.sparsity > 0 for row in rows] == [3 <= s < 6 or 9 <= s < 12 or s >= 14 for s in range(1, 17)]
    assert [row.step for row in rows if row.mask_change is not None] == [9, 14]


def test_released_weights_start_at_zero_without_momentum(dataset, tmp_path):
    run = make_run(ACDC, dataset, tmp_path)
    for state in run.states():
        if state.step == 6:
            kernel, mask = state.model.convs[1].kernel[...], state.support["convs/1"]
            assert not np.any(np.asarray(kernel)[~mask]) and np.any(kernel)
            moments = jax.tree.leaves(nnx.as_pure(state.optimizer.opt_state).inner[1][0].trace)
            assert len(moments) > 5 and not any(np.any(moment) for moment in moments)
            assert int(state.optimizer.opt_state.inner[1][1].count[...]) == 6
            break


def test_rigl_skips_the_optimizer_where_it_changes_the_mask(walked):
    run = walked[0]
    counts = final_arrays(run)
    skipped = sum(phase.name == "update" for phase in run.plan.phases) if run.config.method == "rigl" else 0
    assert counts["optimizer/opt_state/inner/1/1/count/value"] == run.plan.total - skipped
    assert counts["optimizer/opt_state/step/value"] == run.plan.total


@pytest.mark.parametrize("method", ["set", "static"])
def test_other_sparse_to_sparse_runs(method, dataset, tmp_path):
    run = make_run(dataclasses.replace(RIGL, method=method), dataset, tmp_path)
    result = run.fit(report := StopAfter(0))
    assert {row.sparsity for row in report.rows} == {pytest.approx(1 - KEPT / SIZE)}
    changes = [row.mask_change for row in report.rows if row.mask_change is not None]
    assert len(changes) == (3 if method == "set" else 0) and all(0 < change <= 0.3 for change in changes)
    assert isinstance(result.model.convs[1], SparseConv)
    assert set(result.phases) == ({"sparse", "update"} if method == "set" else {"sparse"})


def test_one_threshold_for_all_layers(dataset, tmp_path):
    """Counts of the layers move, their capacity only if it must."""
    from sparsejax.models import ConvNet

    config = dataclasses.replace(ACDC, scope="global")
    model = ConvNet(10, in_features=1, widths=(4, 8, 8), rngs=nnx.Rngs(0))
    run = Run(config, tmp_path, dataset=dataset, model=model, checkpoint_every=1000)
    room, kept = [], []
    with compilations() as compiled:
        for state in run.states():
            if state.is_stored:
                convs = state.model.convs[1:]
                room.append([conv.pattern.nse for conv in convs])
                kept.append([int(conv.pattern.indptr[-1]) for conv in convs])
    total = (288 + 576) - round(0.8 * (288 + 576))
    assert all(sum(counts) == total for counts in kept) and len({tuple(counts) for counts in kept}) > 1
    assert all(n <= c for counts, sizes in zip(kept, room, strict=True) for n, c in zip(counts, sizes, strict=True))
    assert len({tuple(sizes) for sizes in room}) == compiled.count("stored_step")
    assert compiled.count("train_step") == 1
    arrays = final_arrays(run)
    padded = arrays["model/convs/1/kernel/value"][kept[-1][0] :]
    assert not np.any(padded)
    assert int(masks_in(arrays)["convs/1"].sum()) == kept[-1][0]
