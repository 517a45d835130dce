"""The attribute table, the heat map of bias amplification, and the groups."""

from __future__ import annotations

import math
from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from sparsejax.analysis.bias.audit._evaluate import Run
from sparsejax.analysis.bias.audit._inputs import Model
from sparsejax.analysis.bias.audit._views import mean_interval
from sparsejax.analysis.bias.html._markup import (
    MINUS,
    Scale,
    details,
    line,
    marker,
    number,
    paragraph,
    section,
    svg,
    table,
    text,
    whole,
)
from sparsejax.analysis.bias.metrics._measured import REASONS, divide, nanmean

if TYPE_CHECKING:
    from sparsejax.analysis.bias.audit._audit import Report

_RATES = (("false_positive_rate", "FPR"), ("false_negative_rate", "FNR"))


def per_model(report: Report, render: Callable[[Model], str]) -> str:
    """Return one panel per sparse model, of which the choice at the top of the page shows one."""
    last = len(report.inputs.sparse) - 1
    return "".join(
        f'<div class="panel" data-model="{i}"{"" if i == last else " hidden"}><h3>{escape(model.label)}</h3>'
        f"{render(model)}</div>"
        for i, model in enumerate(report.inputs.sparse)
    )


def _mean(runs: list[Run], name: str, *, changes: bool = False) -> np.ndarray:
    """Mean over seeds, [K] or the full shape for pairs."""
    found = [(run.changes if changes else run.measures)[name].value for run in runs]
    with np.errstate(invalid="ignore"):
        return nanmean(np.stack(found), axis=0)


def _reason(runs: list[Run], name: str, at: tuple[int, ...], *, changes: bool = False) -> str:
    """The first reason over seeds."""
    reasons = [str((run.changes if changes else run.measures)[name].reason[at]) for run in runs]
    return next((reason for reason in reasons if reason), "")


def attributes(report: Report) -> str:
    """One row per attribute, and attributes by groups."""
    words = (
        "Means over seeds. The rare value ratio is below 1 where the rarer value is predicted too seldom. Δ is sparse "
        "minus dense. A dash is an undefined number; its tooltip says why. Column heads sort."
    )
    explanation = (
        "Change of bias amplification: ▲ the sparse model exaggerates the training data's association more than the "
        "dense one, ▼ less. Hatched cells are undefined, with the reason."
    )
    return section(
        "attributes",
        "Attributes",
        paragraph(words),
        per_model(report, lambda model: _attribute_table(report, model)),
        "<h3>Heat map</h3>",
        paragraph(explanation) if report.frame.pairs else paragraph("No groups were given."),
        per_model(report, lambda model: _heat_map(report, model)) if report.frame.pairs else "",
    )


def _attribute_table(report: Report, model: Model) -> str:
    dense, sparse = report.runs_of(report.inputs.dense), report.runs_of(model)
    known = ~np.isnan(report.inputs.y_true)
    positive = divide((report.inputs.y_true == 1).sum(axis=0), known.sum(axis=0))
    flips = np.mean(
        [(r.y_pred != dense[report.inputs.dense_seed(model, r.seed)].y_pred).mean(axis=0) for r in sparse], axis=0
    )
    columns = []
    for name in ("accuracy", "auc", "uncertainty", "rare_value_ratio"):
        for runs in (dense, sparse):
            values = _mean(runs, name)
            columns.append((name, runs, values[0] if values.ndim == 2 else values))
    changes = _mean(sparse, "bias_amplification", changes=True)
    largest = np.fmax.reduce(changes, axis=0) if len(changes) else np.full(len(positive), np.nan)
    rows = []
    for i, attribute in enumerate(report.inputs.attribute_names):
        numbers = [
            number(values[i], reason=_reason(runs, name, (0, i) if runs[0].measures[name].value.ndim == 2 else (i,)))
            for name, runs, values in columns
        ]
        rows.append((attribute, number(positive[i]), *numbers, number(flips[i]), number(largest[i], 4, signed=True)))
    names = ["attribute", "positive"]
    for name in ("accuracy", "AUC", "uncertain", "rare ratio"):
        names += [f"{name}, dense", f"{name}, sparse"]
    return table(f"Attributes, dense against {model.label}", [*names, "flip rate", "largest Δ BA"], rows)


def _heat_map(report: Report, model: Model) -> str:
    runs = report.runs_of(model)
    values = _mean(runs, "bias_amplification", changes=True)
    limit = float(np.nanmax(np.abs(values))) if np.isfinite(values).any() else 1.0
    heads = "".join(f'<th scope="col">{escape(name)}</th>' for name in report.pair_names)
    body = []
    for i, attribute in enumerate(report.inputs.attribute_names):
        cells = "".join(
            _heat_cell(values[p, i], limit or 1.0, _reason(runs, "bias_amplification", (p, i), changes=True))
            for p in range(len(report.pair_names))
        )
        body.append(f'<tr><th scope="row">{escape(attribute)}</th>{cells}</tr>')
    caption = f"Change of bias amplification, dense to {model.label}"
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table class="heat">'
        f'<caption>{escape(caption)}</caption><thead><tr><th scope="col">attribute</th>{heads}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _heat_cell(value: float, limit: float, reason: str) -> str:
    if math.isnan(value):
        short = reason.replace("_", " ") or "undefined"
        return f'<td class="undefined" title="{escape(REASONS.get(reason, "undefined"))}">{escape(short)}</td>'
    symbol = "▲" if value > 0 else "▼" if value < 0 else "="
    side = "up" if value > 0 else "down"
    note = f" ({reason.replace('_', ' ')} in some seeds)" if reason else ""
    shown = f"{value:+.4f}".replace("-", MINUS)
    strength = f"{100 * abs(value) / limit:.0f}%"
    return f'<td class="{side}" style="--strength:{strength}">{symbol} {shown}{escape(note)}</td>'


def groups(report: Report) -> str:
    """Error rates per level of each group."""
    if not report.inputs.groups:
        return section("groups", "Groups", paragraph("No groups were given."))
    intervals = (
        "Bars are 95 % intervals over samples, their ends averaged over seeds."
        if report.settings.n_boot
        else "No intervals (n_boot = 0)."
    )
    words = (
        "False positive and false negative rates in each group, mean over attributes and seeds: ○ dense, ▶ sparse. "
        f"{intervals} Per attribute in the table below each picture."
    )
    return section("groups", "Groups", paragraph(words), per_model(report, lambda model: _group_panel(report, model)))


def _group_panel(report: Report, model: Model) -> str:
    pictures = "".join(_arrows(report, model, metric, short) for metric, short in _RATES)
    rows = []
    dense, sparse = report.runs_of(report.inputs.dense), report.runs_of(model)
    for metric, short in _RATES:
        before, after, change = _mean(dense, metric), _mean(sparse, metric), _mean(sparse, metric, changes=True)
        relative = _mean(sparse, f"{metric}_relative", changes=True)
        low, high = mean_interval([run.change_intervals.get(metric) for run in sparse], change)
        for s, (group, level) in enumerate(report.frame.subsets[1:], start=1):
            for i, attribute in enumerate(report.inputs.attribute_names):
                why = _reason(sparse, metric, (s, i), changes=True)
                rows.append(
                    (
                        attribute,
                        f"{group} = {level}",
                        short,
                        whole(int(dense[0].n[s, i])),
                        number(before[s, i], reason=_reason(dense, metric, (s, i))),
                        number(after[s, i], reason=_reason(sparse, metric, (s, i))),
                        number(change[s, i], signed=True, reason=why),
                        number(low[s, i], signed=True),
                        number(high[s, i], signed=True),
                        number(100 * relative[s, i], 1, signed=True),
                    )
                )
    names = ("attribute", "group", "rate", "n", "dense", "sparse", "Δ", "Δ low", "Δ high", "Δ, % of dense")
    numbers = table(f"Error rates by group, dense against {model.label}", names, rows)
    return f'<div class="charts">{pictures}</div>{details("Per attribute", numbers)}'


def _arrows(report: Report, model: Model, metric: str, short: str) -> str:
    labels = [f"{group} = {level}" if group else "all" for group, level in report.frame.subsets]
    models = (report.inputs.dense, model)
    ends = [
        nanmean(np.stack([nanmean(run.measures[metric].value, axis=1) for run in report.runs_of(m)]), axis=0)
        for m in models
    ]
    bars = [mean_interval([r.mean_intervals.get(metric) for r in report.runs_of(m)], ends[0]) for m in models]
    known = [v for v in np.concatenate([*ends, *(np.concatenate(b) for b in bars)]) if math.isfinite(v)]
    if not known:
        return paragraph(f"{short}: no defined value.")
    width, left, row = 460, 150, 30
    height = row * len(labels) + 50
    pad = 0.05 * (max(known) - min(known))
    at = Scale(min(known) - pad, max(known) + pad, left, width - 20)
    parts = [
        line(at(x), 20, at(x), height - 30, "grid") + text(at(x), height - 14, f"{x:.4g}", "small") for x in at.ticks()
    ]
    said = []
    for index, label in enumerate(labels):
        y = 34 + row * index
        parts.append(text(left - 10, y + 4, label, "", "end"))
        start, end = float(ends[0][index]), float(ends[1][index])
        if not (math.isfinite(start) and math.isfinite(end)):
            parts.append(text(left + 10, y + 4, "undefined", "small", "start"))
            continue
        for bar, offset in zip(bars, (-5, 5), strict=True):
            if math.isfinite(bar[0][index]):
                parts.append(
                    line(at(bar[0][index]), y + offset, at(bar[1][index]), y + offset, f"bar s{int(offset > 0)}")
                )
        tip = f"{label}: {start:.4f} to {end:.4f}"
        parts.append(line(at(start), y, at(end), y, "arrow"))
        parts.append(marker(0, at(start), y, "mark hollow", tip))
        direction = 1 if end >= start else -1
        parts.append(_head(at(end), y, direction, tip))
        said.append(tip)
    picture = svg(width, height, f"{short}, dense to {model.label}", "; ".join(said), *parts)
    return f'<figure class="chart"><figcaption>{short}</figcaption>{picture}</figure>'


def _head(x: float, y: float, direction: int, tip: str) -> str:
    points = " ".join(f"{x + dx * direction:.1f},{y + dy:.1f}" for dx, dy in ((4, 0), (-5, -5), (-5, 5)))
    return f'<polygon class="mark s1" points="{points}"><title>{escape(tip)}</title></polygon>'
