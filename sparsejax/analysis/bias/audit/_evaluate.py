"""The evaluation of one model, one seed and one set of thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from sparsejax.analysis.bias.audit._comparison import EvaluatedRun, Interval, ScoreMeasures, Settings
from sparsejax.analysis.bias.audit._frame import Frame, count_subsets, measures, raw_measures
from sparsejax.analysis.bias.audit._inputs import Inputs, ModelOutputs
from sparsejax.analysis.bias.metrics._amplification_other import directional_terms
from sparsejax.analysis.bias.metrics._arrays import sigmoid
from sparsejax.analysis.bias.metrics._bootstrap import percentile_interval, resamples
from sparsejax.analysis.bias.metrics._counts import indicators
from sparsejax.analysis.bias.metrics._flips import FlipCoverage, flip_coverage
from sparsejax.analysis.bias.metrics._interdependence import interdependence
from sparsejax.analysis.bias.metrics._measured import Measured, divide, measured, nanmean
from sparsejax.analysis.bias.metrics._rates import RATES, auc
from sparsejax.analysis.bias.metrics._reliability import ece_of_table, reliability_table
from sparsejax.analysis.bias.metrics._systematic import log2
from sparsejax.analysis.bias.metrics._uncertainty import uncertain_cells, uncertainty_score

HIGH_UNCERTAINTY = 0.1
Resampled = Mapping[str, np.ndarray]


def measure_scores(inputs: Inputs, model: ModelOutputs, seed: int, settings: Settings) -> ScoreMeasures:
    """Measure the scores of a run, before any decision."""
    z, t = model.logits[seed], inputs.y_true
    known = ~np.isnan(t)
    buckets = reliability_table(t, sigmoid(z), n_bins=settings.n_bins)
    high = divide((uncertain_cells("compare", z, HIGH_UNCERTAINTY, "logits") & known).sum(axis=0), known.sum(axis=0))
    none = (known.sum(axis=0) == 0, "no_labels")
    result = {
        "auc": auc(t, z),
        "expected_calibration_error": measured(ece_of_table(buckets), none),
        "high_uncertainty": measured(high, none),
        "interdependence_prob": interdependence(z, on="prob"),
    }
    return ScoreMeasures(uncertain_cells("compare", z, settings.uncertainty_band, "logits"), buckets, result)


def evaluate(
    inputs: Inputs,
    frame: Frame,
    settings: Settings,
    model: ModelOutputs,
    seed: int,
    scores: ScoreMeasures,
    thresholds: tuple[str, np.ndarray],
) -> tuple[EvaluatedRun, Resampled]:
    """Measure one set of decisions; return the run without its changes, and the values on each resample."""
    name, theta = thresholds
    y_pred = model.logits[seed] > theta
    flags = indicators(inputs.y_true, y_pred, scores.uncertain)
    counts = count_subsets(flags, frame)
    result = measures(counts, frame, settings.min_count, settings.min_rel_gap)
    ratio = result["rare_value_ratio"]
    result["tcb"] = Measured(log2(ratio.value), ratio.reason)
    result["interdependence_hard"] = interdependence(y_pred, on="values")
    ones = frame.members[[one for one, _ in frame.rows]]
    terms = directional_terms(inputs.y_true, y_pred, ones, frame.positive)
    result["bias_amplification_directional"] = Measured(
        np.where(frame.is_self, np.nan, terms.value).T, np.where(frame.is_self, "self", terms.reason).T
    )
    resampled = _resample(inputs, frame, settings, flags) if settings.n_boot else {}
    intervals, mean_intervals = {}, {}
    for key, values in resampled.items():
        intervals[key] = _interval(values, result[key])
        if key in RATES:
            defined = np.where(np.isnan(result[key].value)[:, None], np.nan, values)
            mean_intervals[key] = percentile_interval(nanmean(defined, axis=-1), -1)
    everything = {**result, **scores.measures}
    return EvaluatedRun(
        model, seed, name, y_pred, everything, counts.total, counts.positives, intervals, mean_intervals
    ), resampled


def _resample(inputs: Inputs, frame: Frame, settings: Settings, flags: np.ndarray) -> Resampled:
    parts = [
        raw_measures(count_subsets(flags, frame, weights), frame)
        for weights in resamples(len(flags), inputs.clusters, settings.n_boot, settings.random_state)
    ]
    return {key: np.concatenate([part[key] for part in parts], axis=-2) for key in parts[0]}


def _interval(values: np.ndarray, point: Measured) -> Interval:
    """Return the interval over resamples, and none where there is no value."""
    low, high = percentile_interval(values, -2)
    undefined = np.isnan(point.value)
    return np.where(undefined, np.nan, low), np.where(undefined, np.nan, high)


def with_changes(run: EvaluatedRun, dense: EvaluatedRun, values: Resampled, dense_values: Resampled) -> EvaluatedRun:
    """Return the run with its changes from the dense run."""
    changes, intervals = {}, {}
    for key, value in run.measures.items():
        base = dense.measures[key]
        reason = np.where(base.reason != "", base.reason, value.reason)
        with np.errstate(invalid="ignore"):
            change = value.value - base.value
        changes[key] = Measured(change, np.where(np.isnan(change) & (reason == ""), "both_infinite", reason))
        if key in ("false_positive_rate", "false_negative_rate"):
            relative = measured(divide(value.value - base.value, base.value), (base.value == 0, "zero_reference"))
            relative.reason[reason != ""] = reason[reason != ""]
            changes[f"{key}_relative"] = relative
        if key in values:
            intervals[key] = _interval(values[key] - dense_values[key], changes[key])
    return replace(run, changes=changes, change_intervals=intervals)


def cover(run: EvaluatedRun, dense: EvaluatedRun, scores: ScoreMeasures) -> FlipCoverage:
    """Return how the flips between two runs overlap with the cells on which the first was uncertain."""
    score = uncertainty_score(dense.model.logits[dense.seed])
    return flip_coverage(dense.y_pred != run.y_pred, scores.uncertain, score)
