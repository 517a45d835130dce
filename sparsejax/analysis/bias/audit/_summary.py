"""A comparison in words: its limits, the safe sparsity, and the main numbers as text."""

from __future__ import annotations

import numpy as np

from sparsejax._table import text_table
from sparsejax.analysis.bias.audit._comparison import Comparison
from sparsejax.analysis.bias.audit._views import means
from sparsejax.analysis.bias.metrics._measured import divide


def safe_sparsity(comparison: Comparison) -> tuple[float | None, str]:
    """Return the largest sparsity up to which no effect on decisions was measured, and the reason.

    No effect: on average over seeds, no more decisions flip than between dense models that differ in the seed.

    Returns:
      (sparsity, explanation); None without the control, or if the lowest sparsity is already above it.
    """
    if not comparison.churn:
        return None, "no control: pass two or more dense seeds to know how many decisions flip without pruning"
    limit = float(np.mean([coverage.flip_rate for coverage in comparison.churn]))
    largest = None
    for index, model in sorted(enumerate(comparison.inputs.sparse, start=1), key=lambda item: item[1].sparsity):
        rate = np.mean([comparison.flip_coverage[index, run.seed].flip_rate for run in comparison.runs_of(model)])
        if rate > limit:
            if largest is None:
                return None, f"{model.label} flips {rate:.2%} of the decisions, dense seeds {limit:.2%}"
            break
        largest = model
    assert largest is not None
    return largest.sparsity, f"up to {largest.label} no more decisions flip than between dense seeds ({limit:.2%})"


def warnings(comparison: Comparison) -> list[str]:
    """List what limits the comparison: cells lost, small groups, no control, no training labels."""
    inputs, notes = comparison.inputs, []
    if inputs.y_train is None:
        notes.append("No training labels: the evaluation split gives the direction of bias and the rarer value.")
    elif inputs.train_groups is None and inputs.groups:
        notes.append("No training groups: the evaluation split gives the direction of bias amplification.")
    if not comparison.churn:
        notes.append("No churn control: with a single dense seed, flips may be no more than those between two seeds.")
    if inputs.y_val is None:
        notes.append("No validation split: no calibrated thresholds and no risk ranking.")
    frame = comparison.frame
    for (group, level), size in zip(frame.subsets[1:], frame.members[1:].sum(axis=1), strict=True):
        if size < comparison.settings.min_count:
            notes.append(f"Small group: {group} = {level} has {int(size)} samples.")
    return [*notes, *_undefined(comparison)]


def _undefined(comparison: Comparison) -> list[str]:
    """List warnings about cells without a value."""
    notes, inputs = [], comparison.inputs
    for model in comparison.models:
        reasons = [run.measures["bias_amplification"].reason for run in comparison.runs_of(model)]
        lost = int((np.stack(reasons) == "no_predicted_positives").sum())
        if lost:
            cells = "(attribute, group, seed) cells"
            notes.append(f"Cells lost: {model.label} predicts nothing positive in {lost} {cells}.")
    values = np.stack([run.measures["bias_amplification"].value for run in comparison.runs])
    if values.size and np.isnan(values).any(axis=0).all():
        notes.append("No cell of bias amplification is defined in every run: read bias_amplification_per_run instead.")
    rate = divide((inputs.y_true == 1).sum(axis=0), (~np.isnan(inputs.y_true)).sum(axis=0))
    single = [name for name, r in zip(inputs.attribute_names, rate, strict=True) if not 0 < r < 1]
    if single:
        notes.append(f"One class only in the evaluation split: {', '.join(single)}.")
    return notes


def main_numbers(comparison: Comparison, metrics: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Return one row of text per model: its label, and the mean of each metric at the primary thresholds."""
    cells = {
        (mean.model.label, mean.metric): f"{mean.value:.4f}"
        for mean in means(comparison)
        if mean.thresholds == comparison.primary
    }
    return [(model.label, *(cells.get((model.label, name), "-") for name in metrics)) for model in comparison.models]


def summary(comparison: Comparison) -> str:
    """Return a text table of the main numbers."""
    names = ("accuracy", "auc", "uncertainty", "rare_value_ratio", "bias_amplification")
    return text_table(("", *names), main_numbers(comparison, names))
