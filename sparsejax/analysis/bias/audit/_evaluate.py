"""One model, one seed, one set of thresholds: every number about it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from sparsejax.analysis.bias.audit._frame import Frame, count_subsets, measures, raw_measures
from sparsejax.analysis.bias.audit._inputs import Inputs, Model
from sparsejax.analysis.bias.metrics._amplification_other import directional_terms
from sparsejax.analysis.bias.metrics._arrays import sigmoid
from sparsejax.analysis.bias.metrics._bootstrap import percentile_interval, resamples
from sparsejax.analysis.bias.metrics._counts import indicators
from sparsejax.analysis.bias.metrics._flips import FlipCoverage, flip_coverage
from sparsejax.analysis.bias.metrics._interdependence import interdependence
from sparsejax.analysis.bias.metrics._measured import Measured, divide, measured, nanmean
from sparsejax.analysis.bias.metrics._rates import RATES, auc
from sparsejax.analysis.bias.metrics._reliability import ReliabilityTable, ece_of_table, reliability_table
from sparsejax.analysis.bias.metrics._systematic import log2
from sparsejax.analysis.bias.metrics._uncertainty import uncertain_cells, uncertainty_score

HIGH_UNCERTAINTY = 0.1
Interval = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Settings:
    """The numbers that `compare` takes, see there."""

    uncertainty_band: float
    min_count: int
    min_rel_gap: float
    n_bins: int
    n_boot: int
    random_state: int


@dataclass
class Run:
    """What was measured.

    Attributes:
      model: whose outputs.
      seed: index of the run in its population.
      thresholds: "default", "calibrated" or "given".
      theta: float64[K].
      y_pred: bool[n, K].
      measures: name -> `Measured`, of shape [K] (attributes), [S, K] (rates by subset) or [P, K] (pairs of sides).
      intervals: name -> (low, high) of the same shape, for those that are functions of counts.
      changes: name -> `Measured`, sparse minus dense, for sparse models.
      change_intervals: name -> (low, high) of the change, on the same resamples for both models.
      mean_intervals: rate -> (low, high) of its mean over attributes, [S].
      n: number of labelled samples [S, K].
      n_pos: number of true positives [S, K].
    """

    model: Model
    seed: int
    thresholds: str
    theta: np.ndarray
    y_pred: np.ndarray
    measures: dict[str, Measured]
    n: np.ndarray
    n_pos: np.ndarray
    intervals: dict[str, Interval] = field(default_factory=dict)
    changes: dict[str, Measured] = field(default_factory=dict)
    change_intervals: dict[str, Interval] = field(default_factory=dict)
    mean_intervals: dict[str, Interval] = field(default_factory=dict)
    resampled: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Outputs:
    """What does not depend on thresholds, for one model and seed.

    Attributes:
      uncertain: bool[n, K].
      reliability: the table of all buckets.
      measures: name -> `Measured` [K].
    """

    uncertain: np.ndarray
    reliability: ReliabilityTable
    measures: dict[str, Measured]


def measure_outputs(inputs: Inputs, model: Model, seed: int, settings: Settings) -> Outputs:
    """Measure what the scores say before any decision."""
    z, t = model.logits[seed], inputs.y_true
    known = ~np.isnan(t)
    table = reliability_table(t, sigmoid(z), n_bins=settings.n_bins)
    high = divide((uncertain_cells("compare", z, HIGH_UNCERTAINTY, "logits") & known).sum(axis=0), known.sum(axis=0))
    none = (known.sum(axis=0) == 0, "no_labels")
    found = {
        "auc": auc(t, z),
        "expected_calibration_error": measured(ece_of_table(table), none),
        "high_uncertainty": measured(high, none),
        "interdependence_prob": interdependence(z, on="prob"),
    }
    return Outputs(uncertain_cells("compare", z, settings.uncertainty_band, "logits"), table, found)


def measure_run(
    inputs: Inputs,
    frame: Frame,
    settings: Settings,
    model: Model,
    seed: int,
    outputs: Outputs,
    thresholds: tuple[str, np.ndarray],
) -> Run:
    """Measure everything about one set of decisions."""
    name, theta = thresholds
    y_pred = model.logits[seed] > theta
    flags = indicators(inputs.y_true, y_pred, outputs.uncertain)
    counts = count_subsets(flags, frame)
    found = measures(counts, frame, settings.min_count, settings.min_rel_gap)
    ratio = found["rare_value_ratio"]
    found["tcb"] = Measured(log2(ratio.value), ratio.reason)
    found["interdependence_hard"] = interdependence(y_pred, on="values")
    ones = frame.members[[one for one, _ in frame.rows]]
    terms = directional_terms(inputs.y_true, y_pred, ones, frame.positive)
    found["bias_amplification_directional"] = Measured(
        np.where(frame.is_self, np.nan, terms.value).T, np.where(frame.is_self, "self", terms.reason).T
    )
    run = Run(model, seed, name, theta, y_pred, found | outputs.measures, counts.total, counts.positives)
    if settings.n_boot:
        run.resampled = _resample(inputs, frame, settings, flags)
        for key, values in run.resampled.items():
            run.intervals[key] = _masked(percentile_interval(values, -2), found[key])
            if key in RATES:
                defined = np.where(np.isnan(found[key].value)[:, None], np.nan, values)
                run.mean_intervals[key] = percentile_interval(nanmean(defined, axis=-1), -1)
    return run


def _resample(inputs: Inputs, frame: Frame, settings: Settings, flags: np.ndarray) -> dict[str, np.ndarray]:
    parts = [
        raw_measures(count_subsets(flags, frame, weights), frame)
        for weights in resamples(len(flags), inputs.clusters, settings.n_boot, settings.random_state)
    ]
    return {key: np.concatenate([part[key] for part in parts], axis=-2) for key in parts[0]}


def _masked(interval: Interval, value: Measured) -> Interval:
    """No interval where there is no value."""
    return (
        np.where(np.isnan(value.value), np.nan, interval[0]),
        np.where(np.isnan(value.value), np.nan, interval[1]),
    )


def add_changes(run: Run, dense: Run) -> None:
    """Fill in what changed from the dense run to this one."""
    for key, value in run.measures.items():
        base = dense.measures[key]
        reason = np.where(base.reason != "", base.reason, value.reason)
        with np.errstate(invalid="ignore"):
            run.changes[key] = Measured(value.value - base.value, reason)
        if key in ("false_positive_rate", "false_negative_rate"):
            relative = measured(divide(value.value - base.value, base.value), (base.value == 0, "zero_reference"))
            relative.reason[reason != ""] = reason[reason != ""]
            run.changes[f"{key}_relative"] = relative
        if key in run.resampled:
            interval = percentile_interval(run.resampled[key] - dense.resampled[key], -2)
            run.change_intervals[key] = _masked(interval, run.changes[key])


def cover(run: Run, dense: Run, outputs: Outputs) -> FlipCoverage:
    """Return how the flips between two runs overlap with the cells on which the first was uncertain."""
    score = uncertainty_score(dense.model.logits[dense.seed])
    return flip_coverage(dense.y_pred != run.y_pred, outputs.uncertain, score)
