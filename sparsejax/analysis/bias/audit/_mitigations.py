"""Countermeasures, before and after."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sparsejax.analysis.bias.audit._evaluate import Run
from sparsejax.analysis.bias.audit._frame import count_subsets, measures
from sparsejax.analysis.bias.audit._table import Table
from sparsejax.analysis.bias.metrics._counts import indicators
from sparsejax.analysis.bias.metrics._measured import Measured, nanmean
from sparsejax.analysis.bias.metrics._overrides import ABSTAINED, Source, override_predictions
from sparsejax.analysis.bias.metrics._uncertainty import uncertain_cells

if TYPE_CHECKING:
    from sparsejax.analysis.bias.audit._audit import Report

COLUMNS = (
    "sparsity",
    "strategy",
    "countermeasure",
    "overridden",
    "accuracy",
    "bias_amplification",
    "cells",
    "absolute_false_positive_rate_gap",
    "absolute_false_negative_rate_gap",
)


class _Variant(NamedTuple):
    """One countermeasure on one run: what is needed for a row."""

    name: str
    overridden: float
    accuracy: float
    bias: Measured
    gaps: tuple[float, float]


def mitigations(report: Report, band: float) -> Table:
    """Return one row per sparse model and countermeasure, means over seeds."""
    dense = report.runs_of(report.inputs.dense)
    calibrated_dense = report.runs_of(report.inputs.dense, "calibrated") if report.has_calibrated else []
    masks = [uncertain_cells("Report.mitigations", run.model.logits[run.seed], band, "logits") for run in dense]
    found: list[tuple[float, str, list[list[_Variant]]]] = []
    # The dense model is the reference that a countermeasure wants to get back to.
    references = [[_evaluate(report, "none", run.y_pred, 0.0)] for run in dense]
    found.append((0.0, "dense", references))
    for model in report.inputs.sparse:
        calibrated = report.runs_of(model, "calibrated") if report.has_calibrated else []
        per_seed = []
        for run in report.runs_of(model):
            base = report.inputs.dense_seed(model, run.seed)
            variants = list(_variants(report, run, dense[base], masks[base], ""))
            if calibrated and report.primary != "calibrated":
                other = calibrated[run.seed]
                variants += list(_variants(report, other, calibrated_dense[base], masks[base], "thresholds"))
            per_seed.append(variants)
        found.append((model.sparsity, model.strategy, per_seed))
    everything = [variant for _, _, seeds in found for variants in seeds for variant in variants]
    # Abstaining takes samples away, and with them cells; that must not shrink what the other rows are compared on.
    deciding = [variant.bias.value for variant in everything if "abstain" not in variant.name]
    common = np.isfinite(np.stack(deciding)).all(axis=0)
    rows = [row for sparsity, strategy, seeds in found for row in _rows(sparsity, strategy, seeds, common)]
    return Table.of(COLUMNS, rows)


def _variants(report: Report, run: Run, dense: Run, mask: np.ndarray, prefix: str) -> Iterator[_Variant]:
    t = report.inputs.y_true
    start = prefix or "none"
    yield _evaluate(report, start, run.y_pred, 0.0)
    join = f"{prefix} + " if prefix else ""
    known = mask & ~np.isnan(t)
    sources: tuple[tuple[Source, np.ndarray], ...] = (("dense", mask), ("label", known), ("abstain", mask))
    for source, where in sources:
        changed = override_predictions(run.y_pred, where, source=source, dense_pred=dense.y_pred, y_true=t)
        yield _evaluate(report, f"{join}override: {source}", changed.y_pred, changed.share)


def _evaluate(report: Report, name: str, y_pred: np.ndarray, share: float) -> _Variant:
    # An abstention is neither right nor wrong: the cell counts as one without a label.
    t = np.where(y_pred == ABSTAINED, np.nan, report.inputs.y_true)
    counts = count_subsets(indicators(t, y_pred == 1), report.frame)
    found = measures(counts, report.frame, report.settings.min_count, report.settings.min_rel_gap)
    gaps = tuple(
        float(nanmean(np.abs(found[f"{rate}_gap"].value))) for rate in ("false_positive_rate", "false_negative_rate")
    )
    accuracy = float(nanmean(found["accuracy"].value[0]))
    return _Variant(name, share, accuracy, found["bias_amplification"], (gaps[0], gaps[1]))


def _rows(
    sparsity: float, strategy: str, seeds: list[list[_Variant]], common: Any
) -> Iterator[tuple[float | str | int, ...]]:
    for same in zip(*seeds, strict=True):
        bias = np.array([v.bias.value[common] for v in same])
        defined = ~np.isnan(bias).any(axis=0)
        numbers = np.array([(v.overridden, v.accuracy) for v in same]).mean(axis=0)
        gaps = nanmean(np.array([v.gaps for v in same]), axis=0)
        yield (
            sparsity,
            strategy,
            same[0].name,
            float(numbers[0]),
            float(numbers[1]),
            float(nanmean(bias[:, defined])),
            int(defined.sum()),
            float(gaps[0]),
            float(gaps[1]),
        )
