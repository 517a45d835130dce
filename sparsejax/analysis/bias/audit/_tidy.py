"""The tidy table: every number of every run, one per row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsejax.analysis.bias.audit._evaluate import Interval, Run
from sparsejax.analysis.bias.audit._table import Table
from sparsejax.analysis.bias.metrics._measured import Measured

if TYPE_CHECKING:
    from sparsejax.analysis.bias.audit._audit import Report

COLUMNS = (
    "model",
    "sparsity",
    "strategy",
    "seed",
    "thresholds",
    "attribute",
    "group",
    "level",
    "metric",
    "value",
    "n",
    "n_pos",
    "ci_low",
    "ci_high",
    "reason",
)


def labels_of(report: Report, name: str, value: Measured) -> list[tuple[str, str]]:
    """Return (group, level) of each row of a measure: one for [K], the subsets or the pairs otherwise."""
    if value.value.ndim == 1:
        return [("", "")]
    if name.startswith("bias_amplification") or "_gap" in name:
        groups = report.inputs.groups
        return [(groups[p.group].name, groups[p.group].levels[p.level]) for p in report.frame.pairs]
    return list(report.frame.subsets)


def table(report: Report) -> Table:
    """Flatten all runs."""
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for run in report.runs:
        head = (
            run.model.role,
            run.model.sparsity,
            run.model.strategy,
            report.inputs.seeds[run.seed],
            run.thresholds,
        )
        for name, value, interval in _measures(run):
            _extend(columns, report, run, head, name, value, interval)
    return Table(columns)


def _measures(run: Run) -> Iterator[tuple[str, Measured, Interval | None]]:
    for name, value in run.measures.items():
        yield name, value, run.intervals.get(name)
    for name, value in run.changes.items():
        yield f"{name}_change", value, run.change_intervals.get(name)


def _extend(
    columns: dict[str, list[Any]],
    report: Report,
    run: Run,
    head: tuple[Any, ...],
    name: str,
    value: Measured,
    interval: Interval | None,
) -> None:
    where = labels_of(report, name, value)
    names = report.inputs.attribute_names
    rows, count = len(where), len(where) * len(names)
    nan = np.full(count, np.nan)
    at = _subset_rows(report, name, value)
    for column, item in zip(COLUMNS[:5], head, strict=True):
        columns[column] += [item] * count
    columns["attribute"] += list(names) * rows
    columns["group"] += [group for group, _ in where for _ in names]
    columns["level"] += [level for _, level in where for _ in names]
    columns["metric"] += [name] * count
    columns["value"] += value.value.ravel().tolist()
    columns["n"] += run.n[at].astype(int).ravel().tolist()
    columns["n_pos"] += run.n_pos[at].astype(int).ravel().tolist()
    columns["ci_low"] += (nan if interval is None else interval[0].ravel()).tolist()
    columns["ci_high"] += (nan if interval is None else interval[1].ravel()).tolist()
    columns["reason"] += value.reason.ravel().tolist()


def _subset_rows(report: Report, name: str, value: Measured) -> list[int]:
    """Which subset's sample counts go with each row: all samples, the level, or all samples again for pairs."""
    subsets = len(report.frame.subsets)
    is_rate = value.value.ndim == 2 and not name.startswith("bias_amplification") and "_gap" not in name
    return list(range(subsets)) if is_rate else [0] * (1 if value.value.ndim == 1 else len(value.value))
