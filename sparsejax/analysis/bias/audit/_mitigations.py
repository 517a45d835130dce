"""Countermeasures, before and after."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from sparsejax.analysis._arrays import NumberLike, read_number
from sparsejax.analysis.bias.audit._comparison import Comparison, EvaluatedRun
from sparsejax.analysis.bias.audit._frame import count_subsets, measures
from sparsejax.analysis.bias.audit._table import Table
from sparsejax.analysis.bias.metrics._counts import indicators
from sparsejax.analysis.bias.metrics._measured import Measured, nanmean
from sparsejax.analysis.bias.metrics._overrides import ABSTAINED, Source, override_predictions
from sparsejax.analysis.bias.metrics._uncertainty import uncertain_cells

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
    """One countermeasure on one run: the numbers of a row."""

    name: str
    overridden: float
    accuracy: float
    bias: Measured
    gaps: tuple[float, float]


def mitigations(comparison: Comparison, w: NumberLike | None = None) -> Table:
    """Tabulate countermeasures before and after: thresholds, overrides of the exposed decisions, both.

    Args:
      comparison: the comparison.
      w: half width of the band of probabilities in which decisions are overridden; that of `compare` if None.

    Returns:
      A table: sparsity, strategy, countermeasure, overridden (share of cells), accuracy, bias_amplification (mean
      over the ``cells`` that are defined in every row and seed; abstention, which loses some, does not count),
      mean absolute gaps. Means over seeds. The rows "override: label" are an upper bound by construction.
    """
    band = comparison.settings.uncertainty_band if w is None else read_number("BiasAudit.mitigations", "w", w)
    dense = comparison.runs_of(comparison.inputs.dense)
    masks = [uncertain_cells("BiasAudit.mitigations", run.model.logits[run.seed], band, "logits") for run in dense]
    # The dense model is the reference that a countermeasure tries to restore.
    blocks = [(0.0, "dense", [[_evaluate(comparison, "none", run.y_pred, 0.0)] for run in dense])]
    for model in comparison.inputs.sparse:
        calibrated = comparison.runs_of(model, "calibrated") if comparison.has_calibrated else []
        per_seed = []
        for run in comparison.runs_of(model):
            mask = masks[comparison.inputs.dense_seed(model, run.seed)]
            variants = list(_variants(comparison, run, mask, ""))
            if calibrated and comparison.primary != "calibrated":
                variants += list(_variants(comparison, calibrated[run.seed], mask, "thresholds"))
            per_seed.append(variants)
        blocks.append((model.sparsity, model.strategy, per_seed))
    # Abstaining takes samples away, and with them cells; that must not shrink what the other rows are compared on.
    everything = [variant for _, _, seeds in blocks for variants in seeds for variant in variants]
    deciding = [variant.bias.value for variant in everything if "abstain" not in variant.name]
    common = np.asarray(np.isfinite(np.stack(deciding)).all(axis=0))
    rows = [row for sparsity, strategy, seeds in blocks for row in _rows(sparsity, strategy, seeds, common)]
    return Table.of(COLUMNS, rows)


def _variants(comparison: Comparison, run: EvaluatedRun, mask: np.ndarray, prefix: str) -> Iterator[_Variant]:
    t, dense = comparison.inputs.y_true, comparison.dense_run(run)
    start = prefix or "none"
    yield _evaluate(comparison, start, run.y_pred, 0.0)
    join = f"{prefix} + " if prefix else ""
    known = mask & ~np.isnan(t)
    sources: tuple[tuple[Source, np.ndarray], ...] = (("dense", mask), ("label", known), ("abstain", mask))
    for source, where in sources:
        changed = override_predictions(run.y_pred, where, source=source, dense_pred=dense.y_pred, y_true=t)
        yield _evaluate(comparison, f"{join}override: {source}", changed.y_pred, changed.share)


def _evaluate(comparison: Comparison, name: str, y_pred: np.ndarray, share: float) -> _Variant:
    # An abstention is neither right nor wrong: the cell counts as one without a label.
    t = np.where(y_pred == ABSTAINED, np.nan, comparison.inputs.y_true)
    counts = count_subsets(indicators(t, y_pred == 1), comparison.frame)
    result = measures(counts, comparison.frame, comparison.settings.min_count, comparison.settings.min_rel_gap)
    gaps = tuple(
        float(nanmean(np.abs(result[f"{rate}_gap"].value))) for rate in ("false_positive_rate", "false_negative_rate")
    )
    accuracy = float(nanmean(result["accuracy"].value[0]))
    return _Variant(name, share, accuracy, result["bias_amplification"], (gaps[0], gaps[1]))


def _rows(
    sparsity: float, strategy: str, seeds: list[list[_Variant]], common: np.ndarray
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
