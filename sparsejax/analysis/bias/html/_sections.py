"""Facts and tables of the page, from a comparison."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from sparsejax.analysis.bias.audit import _mitigations, _views
from sparsejax.analysis.bias.audit._comparison import Comparison, EvaluatedRun
from sparsejax.analysis.bias.audit._inputs import ModelOutputs, level_name
from sparsejax.analysis.bias.html._cells import MINUS, Cell, SortableTable, number, sortable, whole
from sparsejax.analysis.bias.metrics._measured import REASONS, divide, nanmean

_MEANING = {
    "default": "p > 0.5",
    "calibrated": "fitted on the validation split, one per attribute",
    "custom": "set by the caller",
}


def facts(comparison: Comparison) -> dict[str, str]:
    """Return what was compared, and how."""
    inputs, settings = comparison.inputs, comparison.settings
    n, attributes = inputs.y_true.shape
    sparsities = ", ".join(
        model.label if math.isnan(model.sparsity) else f"{model.label} (sparsity {model.sparsity:.6g})"
        for model in inputs.sparse
    )
    thresholds = _MEANING[comparison.primary]
    if comparison.has_calibrated and comparison.primary != "calibrated":
        thresholds += "; those fitted on validation are evaluated beside them"
    intervals = f"95 %, {settings.n_boot} resamples" if settings.n_boot else "none"
    return {
        "Models": f"dense against {sparsities}",
        "Seeds": ", ".join(f"{model.label}: {len(model.logits)}" for model in comparison.models),
        "Evaluation split": f"{n} samples, {attributes} attributes",
        "Validation split": "none" if inputs.y_val is None else f"{len(inputs.y_val)} samples",
        "Training split": "none" if inputs.y_train is None else f"{len(inputs.y_train)} samples",
        "Groups": "; ".join(f"{g.name}: {', '.join(g.levels)}" for g in inputs.groups) or "none",
        "Thresholds": thresholds,
        "Uncertain": f"|p {MINUS} 0.5| < {settings.uncertainty_band:g}",
        "Intervals": intervals + (", whole clusters" if inputs.clusters is not None else ""),
        "Minimum counts": f"{settings.min_count}; least relative gap {settings.min_rel_gap:g}",
    }


def overview_table(comparison: Comparison) -> SortableTable:
    """Return every mean over attributes and seeds."""
    rows = [
        (
            *(mean.model.label, mean.thresholds, mean.metric.replace("_", " ")),
            *(
                number(mean.value, 4, reason=mean.reason),
                number(mean.sd, 4),
                whole(mean.seeds),
                whole(mean.cells),
                whole(mean.lost),
            ),
        )
        for mean in _views.means(comparison)
    ]
    names = ("model", "thresholds", "metric", "mean", "sd over seeds", "seeds", "cells", "cells lost")
    return sortable("Means over attributes and seeds", names, rows)


def _mean(runs: list[EvaluatedRun], name: str, *, changes: bool = False) -> np.ndarray:
    """Return the mean over seeds in the shape of the measure."""
    values = [(run.changes if changes else run.measures)[name].value for run in runs]
    with np.errstate(invalid="ignore"):
        return nanmean(np.stack(values), axis=0)


def _reason(runs: list[EvaluatedRun], name: str, at: tuple[int, ...], *, changes: bool = False) -> str:
    """Return the first reason over seeds."""
    reasons = (str((run.changes if changes else run.measures)[name].reason[at]) for run in runs)
    return next((reason for reason in reasons if reason), "")


def _dense_and_sparse(comparison: Comparison, model: ModelOutputs) -> tuple[list[EvaluatedRun], list[EvaluatedRun]]:
    return comparison.runs_of(comparison.inputs.dense), comparison.runs_of(model)


def attribute_table(comparison: Comparison, model: ModelOutputs) -> SortableTable:
    """Return one row per attribute, dense against one sparse model."""
    dense, sparse = _dense_and_sparse(comparison, model)
    t = comparison.inputs.y_true
    positive = divide((t == 1).sum(axis=0), (~np.isnan(t)).sum(axis=0))
    flips = np.mean([(run.y_pred != comparison.dense_run(run).y_pred).mean(axis=0) for run in sparse], axis=0)
    changes = _mean(sparse, "bias_amplification", changes=True)
    largest = np.fmax.reduce(changes, axis=0) if len(changes) else np.full(len(positive), np.nan)
    rows: list[list[Cell | str]] = [
        [name, number(p)] for name, p in zip(comparison.inputs.attribute_names, positive, strict=True)
    ]
    for name in ("accuracy", "auc", "uncertainty", "rare_value_ratio"):
        for runs in (dense, sparse):
            values = _mean(runs, name)
            for i, row in enumerate(rows):
                at = (i,) if values.ndim == 1 else (0, i)
                row.append(number(values[at], reason=_reason(runs, name, at)))
    for row, flip, change in zip(rows, flips, largest, strict=True):
        row += [number(flip), number(change, 4, signed=True)]
    pairs = [
        f"{name}, {which}" for name in ("accuracy", "AUC", "uncertain", "rare ratio") for which in ("dense", "sparse")
    ]
    names = ("attribute", "positive", *pairs, "flip rate", "largest Δ BA")
    return sortable(f"Attributes, dense against {model.label}", names, rows)


class HeatMap(NamedTuple):
    """Changes of bias amplification: names of the pairs, and (attribute, cells) per row; a title is its colour."""

    caption: str
    header: tuple[str, ...]
    rows: list[tuple[str, list[Cell]]]


def heat_map(comparison: Comparison, model: ModelOutputs) -> HeatMap:
    """Return the change of bias amplification, attributes by pairs of sides."""
    runs = comparison.runs_of(model)
    values = _mean(runs, "bias_amplification", changes=True)
    limit = float(np.nanmax(np.abs(values))) if np.isfinite(values).any() else 1.0
    rows = []
    for i, attribute in enumerate(comparison.inputs.attribute_names):
        reasons = [_reason(runs, "bias_amplification", (p, i), changes=True) for p in range(len(values))]
        cells = [_heat_cell(value, limit or 1.0, reason) for value, reason in zip(values[:, i], reasons, strict=True)]
        rows.append((attribute, cells))
    return HeatMap(f"Change of bias amplification, dense to {model.label}", comparison.pair_names, rows)


def _heat_cell(value: float, limit: float, reason: str) -> Cell:
    words = reason.replace("_", " ")
    if math.isnan(value):
        return Cell(words or "undefined", "", "undefined", REASONS.get(reason, "undefined"))
    symbol = "▲" if value > 0 else "▼" if value < 0 else "="
    text = f"{symbol} {value:+.4f}".replace("-", MINUS) + (f" ({words} in some seeds)" if reason else "")
    return Cell(text, f"{100 * abs(value) / limit:.0f}%", "up" if value > 0 else "down")


def group_table(comparison: Comparison, model: ModelOutputs) -> SortableTable:
    """Return error rates per attribute and level of each group, dense against one sparse model."""
    dense, sparse = _dense_and_sparse(comparison, model)
    rows = []
    for metric, short in (("false_positive_rate", "FPR"), ("false_negative_rate", "FNR")):
        before, after, change = _mean(dense, metric), _mean(sparse, metric), _mean(sparse, metric, changes=True)
        relative = 100 * _mean(sparse, f"{metric}_relative", changes=True)
        low, high = _views.mean_interval([run.change_intervals.get(metric) for run in sparse], change)
        for s, (group, level) in enumerate(comparison.frame.subsets[1:], start=1):
            for i, attribute in enumerate(comparison.inputs.attribute_names):
                at = (s, i)
                numbers = (
                    number(before[at], reason=_reason(dense, metric, at)),
                    number(after[at], reason=_reason(sparse, metric, at)),
                    number(change[at], signed=True, reason=_reason(sparse, metric, at, changes=True)),
                    *(number(each[at], signed=True) for each in (low, high)),
                    number(relative[at], 1, signed=True),
                )
                rows.append((attribute, f"{group} = {level}", short, whole(int(dense[0].n[at])), *numbers))
    names = ("attribute", "group", "rate", "n", "dense", "sparse", "Δ", "Δ low", "Δ high", "Δ, % of dense")
    return sortable(f"Error rates by group, dense against {model.label}", names, rows)


def flip_table(comparison: Comparison) -> SortableTable:
    """Return flips per sparse run and of the control."""
    keys = ("flip_rate", "uncertain_share", "coverage", "flip_rate_inside", "flip_rate_outside", "auc")
    kinds = ("right_to_wrong", "wrong_to_right", "to_common")
    rows = [
        (row["model"], row["seed"], *(number(row[key], 4, reason=row["reason"]) for key in (*keys, *kinds)))
        for row in _views.flips(comparison)
    ]
    names = ("model", "seed", "flip rate", "uncertain share", "coverage", "flip rate inside", "outside", "AUC")
    more = ("right → wrong", "wrong → right", "to the commoner value")
    return sortable("Flips and their coverage", (*names, *more), rows)


def exemplar_table(comparison: Comparison) -> SortableTable | None:
    """Return pruning identified exemplars over all attributes; None unless both models are populations."""
    keys = ("share", "dense_accuracy_on_pie", "dense_accuracy")
    rows = [
        (row["model"], whole(row["count"]), *(number(row[key], 4) for key in keys))
        for row in _views.exemplars(comparison).where(attribute="")
    ]
    names = ("model", "PIE cells", "share", "dense accuracy on PIE", "dense accuracy overall")
    return sortable("Pruning identified exemplars (PIE)", names, rows) if rows else None


def risk_table(comparison: Comparison, model: ModelOutputs) -> tuple[SortableTable, str]:
    """Return the risk ranking beside the measured change, and a sentence on how well they agree."""
    ranking = _views.risk(comparison)
    changes = _mean(comparison.runs_of(model), "bias_amplification", changes=True).T
    shown = ~np.isnan(ranking.risk) & ~comparison.frame.is_self
    rows = [
        (
            *(comparison.inputs.attribute_names[i], comparison.pair_names[p]),
            *(number(ranking.risk[i, p]), number(ranking.relative_gap[i, p]), number(ranking.uncertainty_rare[i])),
            *(number(ranking.rare_rate[i]), number(changes[i, p], 4, signed=True)),
        )
        for i, p in sorted(np.argwhere(shown).tolist(), key=lambda at: -ranking.risk[at[0], at[1]])
    ]
    both = shown & np.isfinite(ranking.risk) & np.isfinite(changes)
    correlation = spearman(ranking.risk[both], changes[both])
    sentence = f"Rank correlation with the measured change: {correlation:.2f} ({both.sum()} cells)."
    names = ("attribute", "group", "risk", "relative gap", "uncertain, rarer value", "rate of the rarer value")
    caption = f"Risk ranking against the change to {model.label}"
    return sortable(caption, (*names, "Δ BA measured"), rows), "" if math.isnan(correlation) else sentence


def spearman(first: np.ndarray, second: np.ndarray) -> float:
    """Return the rank correlation; NaN for fewer than three pairs or constant ranks.

    >>> spearman(np.array([1.0, 2.0, 3.0]), np.array([1.0, 4.0, 9.0]))
    1.0
    """
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    from scipy.stats import spearmanr  # a dependency of jax

    return float(np.asarray(spearmanr(first, second))[0])


def mitigation_table(comparison: Comparison) -> SortableTable:
    """Return countermeasures, before and after."""
    rows = []
    for row in _mitigations.mitigations(comparison):
        is_dense = row["strategy"] == "dense"
        rows.append(
            (
                *("dense" if is_dense else level_name(row["sparsity"], row["strategy"]), row["countermeasure"]),
                *(number(row["overridden"]), number(row["accuracy"], 4)),
                *(number(row["bias_amplification"], 4, signed=True), whole(row["cells"])),
                *(number(row[f"absolute_false_{kind}_rate_gap"], 4) for kind in ("positive", "negative")),
            )
        )
    names = ("model", "countermeasure", "overridden", "accuracy", "BA", "cells", "|FPR gap|", "|FNR gap|")
    return sortable("Countermeasures, before and after", names, rows)
