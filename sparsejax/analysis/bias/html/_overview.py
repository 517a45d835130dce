"""The head of the page, and the main numbers against sparsity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from sparsejax.analysis.bias.audit import _views
from sparsejax.analysis.bias.audit._plots import OVERVIEW, overview_series
from sparsejax.analysis.bias.html._markup import (
    MINUS,
    Scale,
    details,
    line,
    marker,
    number,
    paragraph,
    polyline,
    section,
    svg,
    table,
    text,
    whole,
)

if TYPE_CHECKING:
    from sparsejax.analysis.bias.audit._audit import Report

_WIDTH, _HEIGHT = 300, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 12, 24, 34
Points = Sequence[tuple[float, float, float]]


def header(report: Report) -> str:
    """What was compared, how, and what limits it."""
    inputs, settings = report.inputs, report.settings
    n, attributes = inputs.y_true.shape
    seeds = {model.label: len(model.logits) for model in report.models}
    sparsities = ", ".join(
        model.label if math.isnan(model.sparsity) else f"{model.label} (sparsity {model.sparsity:.6g})"
        for model in inputs.sparse
    )
    groups = "; ".join(f"{g.name}: {', '.join(g.levels)}" for g in inputs.groups) or "none"
    val = "none" if inputs.y_val is None else f"{len(inputs.y_val)} samples"
    train = "none" if inputs.y_train is None else f"{len(inputs.y_train)} samples"
    boot = f"{settings.n_boot} resamples" if settings.n_boot else "none"
    facts = {
        "Models": f"dense against {sparsities}",
        "Seeds": ", ".join(f"{name}: {count}" for name, count in seeds.items()),
        "Evaluation split": f"{n} samples, {attributes} attributes",
        "Validation split": val,
        "Training split": train,
        "Groups": groups,
        "Thresholds": _thresholds(report),
        "Uncertain": f"|p {MINUS} 0.5| < {settings.uncertainty_band:g}",
        "Intervals": f"95 %, {boot}" + (", whole clusters" if inputs.clusters is not None else ""),
        "Minimum counts": f"{settings.min_count}; least relative gap {settings.min_rel_gap:g}",
    }
    listed = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts.items())
    notes = "".join(f"<li>{escape(note)}</li>" for note in report.warnings)
    warned = f'<div class="warnings"><h2>⚠ Read this first</h2><ul>{notes}</ul></div>' if notes else ""
    return f"<header><h1>Bias audit of a pruned model</h1><dl>{listed}</dl>{warned}</header>"


def _thresholds(report: Report) -> str:
    meaning = {
        "default": "p > 0.5",
        "calibrated": "fitted on the validation split, one per attribute",
        "given": "as given",
    }[report.primary]
    more = "; those fitted on validation are evaluated beside them" if report.has_calibrated else ""
    return meaning + (more if report.primary != "calibrated" else "")


def overview(report: Report) -> str:
    """Small pictures and the table behind them."""
    pictures = "".join(_chart(title, overview_series(report)[metric]) for metric, title in OVERVIEW)
    rows = [
        (
            mean.model.label,
            mean.thresholds,
            mean.metric.replace("_", " "),
            number(mean.value, 4),
            number(mean.sd, 4),
            whole(mean.seeds),
            "" if mean.cells is None else whole(mean.cells),
            "" if mean.lost is None else whole(mean.lost),
        )
        for mean in _views.means(report)
    ]
    names = ("model", "thresholds", "metric", "mean", "sd over seeds", "seeds", "cells", "cells lost")
    words = (
        "Means over attributes and seeds against the share of weights that is left (logarithmic). The dashed line is "
        "the dense model; bars are one standard deviation over seeds. Bias amplification is over the cells that are "
        "defined in every run."
    )
    all_numbers = details("All numbers", table("Means over attributes and seeds", names, rows))
    return section("overview", "Overview", paragraph(words), f'<div class="charts">{pictures}</div>', all_numbers)


def _chart(title: str, series: dict[str, list[tuple[float, float, float]]]) -> str:
    curves = {
        name: [(x, y, sd) for x, y, sd in points if math.isfinite(x) and math.isfinite(y)]
        for name, points in series.items()
    }
    dense = [y for _, y, _ in curves.pop("dense", [])]
    curves = {name: points for name, points in curves.items() if points}
    ends = [
        y + d * sd for points in curves.values() for _, y, s in points for sd in [np.nan_to_num(s)] for d in (-1, 1)
    ]
    if not curves:
        return f'<figure class="chart"><figcaption>{escape(title)}</figcaption><p>No defined value.</p></figure>'
    xs = [x for points in curves.values() for x, _, _ in points]
    low, high = min(ends + dense), max(ends + dense)
    pad = 0.08 * (high - low)
    at_x = Scale(max(xs), min(xs), _LEFT + 8, _WIDTH - _RIGHT - 8, log=True)
    at_y = Scale(low - pad, high + pad, _HEIGHT - _BOTTOM, _TOP)
    parts = [_grid(at_y), *_x_axis(at_x, xs)]
    for y in dense[:1]:
        parts.append(line(_LEFT, at_y(y), _WIDTH - _RIGHT, at_y(y), "dense-line"))
        parts.append(text(_WIDTH - _RIGHT, at_y(y) - 4, "dense", "small", "end"))
    said = [f"dense {dense[0]:.4f}"] if dense else []
    for index, (name, points) in enumerate(curves.items()):
        parts.append(polyline([(at_x(x), at_y(y)) for x, y, _ in points], f"series s{index % 4}"))
        for x, y, sd in points:
            tip = f"{name}, {100 * (1 - x):.4g} % zeros: {y:.4f}" + (f" ± {sd:.4f}" if math.isfinite(sd) else "")
            if math.isfinite(sd):
                parts.append(line(at_x(x), at_y(y - sd), at_x(x), at_y(y + sd), f"bar s{index % 4}"))
            parts.append(marker(index, at_x(x), at_y(y), f"mark s{index % 4}", tip))
            said.append(tip)
    legend = (
        "".join(f"<li>{'●■▲◆'[i % 4]} {escape(name)}</li>" for i, name in enumerate(curves)) if len(curves) > 1 else ""
    )
    picture = svg(_WIDTH, _HEIGHT, title, "; ".join(said), *parts)
    shown = f'<ul class="legend">{legend}</ul>' if legend else ""
    return f'<figure class="chart"><figcaption>{escape(title)}</figcaption>{picture}{shown}</figure>'


def _grid(at_y: Scale) -> str:
    return "".join(
        line(_LEFT, at_y(y), _WIDTH - _RIGHT, at_y(y), "grid")
        + text(_LEFT - 5, at_y(y) + 3.5, f"{y:.4g}", "small", "end")
        for y in at_y.ticks()
    )


def _x_axis(at_x: Scale, xs: list[float]) -> list[str]:
    parts, last = [], -math.inf
    for x in sorted(set(xs), reverse=True):
        if at_x(x) - last > 26:  # room for the text
            parts.append(text(at_x(x), _HEIGHT - _BOTTOM + 14, f"{100 * x:.3g}", "small"))
            last = at_x(x)
    parts.append(text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 4, "weights left, %", "small"))
    return parts
