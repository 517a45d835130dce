"""The tidy table: every number of every run, one per row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from sparsejax.analysis.bias.audit._comparison import Comparison, EvaluatedRun, Interval
from sparsejax.analysis.bias.audit._table import Table
from sparsejax.analysis.bias.metrics._measured import Measured

_RUN = ("model", "sparsity", "strategy", "seed", "thresholds")
_NUMBERS = ("value", "n", "n_pos", "ci_low", "ci_high", "reason")
COLUMNS = (*_RUN, "attribute", "group", "level", "metric", *_NUMBERS)


def all_numbers(comparison: Comparison) -> Table:
    """Tabulate every number of every run, one per row.

    Columns: model, sparsity, strategy, seed, thresholds, attribute, group, level, metric, value, n, n_pos, ci_low,
    ci_high, reason. ``group`` and ``level`` are empty for a number over all samples; for gaps and bias
    amplification ``level`` is side 1. Metrics that end in "_change" are sparse minus dense of the same seed.
    """
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for run in comparison.runs:
        model = run.model
        of_run = (model.role, model.sparsity, model.strategy, comparison.inputs.seeds[run.seed], run.thresholds)
        for name, value, interval in _measures(run):
            _extend(columns, comparison, run, name, value, interval)
            size = value.value.size
            for column, item in zip(_RUN, of_run, strict=True):
                columns[column] += [item] * size
    return Table(columns)


def _measures(run: EvaluatedRun) -> Iterator[tuple[str, Measured, Interval | None]]:
    for name, value in run.measures.items():
        yield name, value, run.intervals.get(name)
    for name, value in run.changes.items():
        yield f"{name}_change", value, run.change_intervals.get(name)


def _rows_of(comparison: Comparison, name: str, value: Measured) -> tuple[list[tuple[str, str]], list[int]]:
    """Return (group, level) of each row of a measure, and the subset whose sample counts go with it.

    One row over all samples for [K]; otherwise the pairs, with the counts of all samples, or the subsets.
    """
    if value.value.ndim == 1:
        return [("", "")], [0]
    if name.startswith("bias_amplification") or "_gap" in name:
        groups, pairs = comparison.inputs.groups, comparison.frame.pairs
        return [(groups[p.group].name, groups[p.group].levels[p.level]) for p in pairs], [0] * len(pairs)
    return list(comparison.frame.subsets), list(range(len(comparison.frame.subsets)))


def _extend(
    columns: dict[str, list[Any]],
    comparison: Comparison,
    run: EvaluatedRun,
    name: str,
    value: Measured,
    interval: Interval | None,
) -> None:
    where, at = _rows_of(comparison, name, value)
    attributes = comparison.inputs.attribute_names
    undefined = np.full(value.value.shape, np.nan)
    low, high = (undefined, undefined) if interval is None else interval
    numbers = (value.value, run.n[at].astype(int), run.n_pos[at].astype(int), low, high, value.reason)
    for column, array in zip(_NUMBERS, numbers, strict=True):
        columns[column] += array.ravel().tolist()
    columns["attribute"] += list(attributes) * len(where)
    columns["group"] += [group for group, _ in where for _ in attributes]
    columns["level"] += [level for _, level in where for _ in attributes]
    columns["metric"] += [name] * value.value.size
