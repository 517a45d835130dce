"""Reliability, the criteria that need the dense model only, and the countermeasures."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from sparsejax.analysis.bias.audit import _views
from sparsejax.analysis.bias.audit._inputs import Model
from sparsejax.analysis.bias.html._attributes import per_model
from sparsejax.analysis.bias.html._markup import (
    Scale,
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
from sparsejax.analysis.bias.metrics._measured import nanmean

if TYPE_CHECKING:
    from sparsejax.analysis.bias.audit._audit import Report

_SIZE, _EDGE = 300, 40


def reliability(report: Report) -> str:
    """Reliability curves and histograms of the predictions, dense and sparse."""
    words = (
        "Observed frequency against predicted probability, all attributes and seeds together; on the diagonal, "
        "probabilities mean what they say. ● dense, ■ sparse. Below: how often each probability is predicted."
    )
    return section(
        "reliability",
        "Reliability",
        paragraph(words),
        per_model(report, lambda model: _reliability_panel(report, model)),
    )


def _reliability_panel(report: Report, model: Model) -> str:
    models = (report.inputs.dense, model)
    view, bins = report.reliability.where(attribute=""), report.settings.n_bins
    at_x, at_y = Scale(0, 1, _EDGE, _SIZE - 10), Scale(0, 1, _SIZE - _EDGE, 10)
    parts = [line(at_x(0), at_y(0), at_x(1), at_y(1), "dense-line")]
    for tick in (0.0, 0.5, 1.0):
        parts += [
            text(at_x(tick), _SIZE - _EDGE + 15, f"{tick:g}", "small"),
            text(_EDGE - 6, at_y(tick) + 4, f"{tick:g}", "small", "end"),
        ]
    said = []
    for index, each in enumerate(models):
        start = report.models.index(each) * bins
        rows = [
            (view["mean_prob"][i], view["mean_label"][i], view["count"][i])
            for i in range(start, start + bins)
            if view["count"][i]
        ]
        parts.append(polyline([(at_x(p), at_y(f)) for p, f, _ in rows], f"series s{index}"))
        for p, f, n in rows:
            tip = f"{each.label}: predicted {p:.3f}, observed {f:.3f}, {n} cells"
            parts.append(marker(index, at_x(p), at_y(f), f"mark s{index}", tip))
            said.append(tip)
    curve = svg(_SIZE, _SIZE, f"Reliability, dense and {model.label}", "; ".join(said), *parts)
    histograms = "".join(_histogram(report, each, index) for index, each in enumerate(models))
    first = f'<figure class="chart"><figcaption>reliability</figcaption>{curve}</figure>'
    return f'<div class="charts">{first}{histograms}</div>'


def _histogram(report: Report, model: Model, index: int) -> str:
    shares = _views.prediction_histogram(report, model)
    width, height = 300, 160
    at_x, at_y = Scale(0, 1, _EDGE, width - 10), Scale(0, float(shares.max()), height - 30, 10)
    bars = []
    for b, share in enumerate(shares):
        left, right = at_x(b / len(shares)) + 0.5, at_x((b + 1) / len(shares)) - 0.5
        tip = f"p from {b / len(shares):.2f}: {100 * share:.2f} % of cells"
        bars.append(
            f'<rect class="mark s{index}" x="{left:.1f}" y="{at_y(float(share)):.1f}" width="{right - left:.1f}" '
            f'height="{height - 30 - at_y(float(share)):.1f}"><title>{tip}</title></rect>'
        )
    axis = [text(at_x(tick), height - 14, f"{tick:g}", "small") for tick in (0.0, 0.5, 1.0)]
    axis.append(text(_EDGE - 6, at_y(float(shares.max())) + 8, f"{shares.max():.2g}", "small", "end"))
    middle = float(shares[len(shares) // 10 : -(len(shares) // 10)].sum())
    described = f"{100 * middle:.1f} % of the cells between 0.1 and 0.9"
    picture = svg(width, height, f"Predicted probabilities, {model.label}", described, *bars, *axis)
    return f'<figure class="chart"><figcaption>predictions, {model.label}: {described}</figcaption>{picture}</figure>'


def criteria(report: Report) -> str:
    """What the dense model foretells, and what can be done."""
    sparsity, why = report.safe_sparsity()
    advice = "No measurable effect" if sparsity is not None else "First advice"
    parts = [
        paragraph(f"{advice}: {why}."),
        "<h3>Exposed samples and flips</h3>",
        paragraph(
            "Coverage is the share of the changed decisions on which the dense model had been uncertain. Rows named "
            "churn are the control: two dense models that differ in the seed alone."
        ),
        _flip_table(report),
        _exemplar_table(report),
        "<h3>Risk ranking</h3>",
        _risk(report),
        "<h3>Countermeasures</h3>",
        paragraph(
            "Means over seeds; bias amplification is over the cells defined in every row. An override replaces the "
            "sparse decision on the exposed samples and needs the dense output for each of them. Overriding with the "
            "label is an upper bound by construction; abstaining leaves those samples undecided and out of the numbers."
        ),
        _mitigation_table(report),
    ]
    return section("criteria", "Criteria and countermeasures", *parts)


def _flip_table(report: Report) -> str:
    names = ("model", "seed", "flip rate", "uncertain share", "coverage", "flip rate inside", "outside", "AUC")
    more = ("right → wrong", "wrong → right", "to the commoner value")
    keys = ("flip_rate", "uncertain_share", "coverage", "flip_rate_inside", "flip_rate_outside", "auc")
    tail = ("right_to_wrong", "wrong_to_right", "to_common")
    rows = [(row["model"], row["seed"], *(number(row[key], 4) for key in (*keys, *tail))) for row in report.flips]
    return table("Flips and their coverage", (*names, *more), rows)


def _exemplar_table(report: Report) -> str:
    rows = [
        (
            row["model"],
            whole(row["count"]),
            number(row["share"], 4),
            number(row["dense_accuracy_on_pie"], 4),
            number(row["dense_accuracy"], 4),
        )
        for row in report.exemplars.where(attribute="")
    ]
    if not rows:
        return ""
    names = ("model", "PIE cells", "share", "dense accuracy on PIE", "dense accuracy overall")
    words = paragraph(
        "Pruning identified exemplars: the majority over seeds says something else than that of the dense seeds."
    )
    return words + table("Pruning identified exemplars (PIE)", names, rows)


def _risk(report: Report) -> str:
    if report.inputs.y_val is None or not report.frame.pairs:
        return paragraph("Needs a validation split and groups.")
    words = paragraph(
        "Exploratory: relative gap of the training frequencies times the uncertain share among validation samples with "
        "the rarer value, from the dense model alone. Read it as a ranking; no cut-off is supported."
    )
    return words + per_model(report, lambda model: _risk_table(report, model))


def _risk_table(report: Report, model: Model) -> str:
    found = report.risk
    changes = nanmean(np.stack([r.changes["bias_amplification"].value for r in report.runs_of(model)]), axis=0).T
    rows = []
    for i, attribute in enumerate(report.inputs.attribute_names):
        for p, name in enumerate(report.pair_names):
            if math.isnan(found.risk[i, p]) or report.frame.is_self[i, p]:
                continue
            rows.append(
                (
                    attribute,
                    name,
                    number(found.risk[i, p]),
                    number(found.relative_gap[i, p]),
                    number(found.uncertainty_rare[i]),
                    number(found.rare_rate[i]),
                    number(changes[i, p], 4, signed=True),
                )
            )
    rows.sort(key=lambda row: -float(row[2].value))
    both = np.isfinite(found.risk) & np.isfinite(changes) & ~report.frame.is_self
    correlation = spearman(found.risk[both], changes[both])
    said = (
        ""
        if math.isnan(correlation)
        else f"Rank correlation with the measured change: {correlation:.2f} ({both.sum()} cells)."
    )
    names = (
        "attribute",
        "group",
        "risk",
        "relative gap",
        "uncertain, rarer value",
        "rate of the rarer value",
        "Δ BA measured",
    )
    return table(f"Risk ranking against the change to {model.label}", names, rows) + paragraph(said)


def spearman(first: np.ndarray, second: np.ndarray) -> float:
    """Return the rank correlation; NaN for fewer than three pairs or constant ranks.

    >>> spearman(np.array([1.0, 2.0, 3.0]), np.array([1.0, 4.0, 9.0]))
    1.0
    """
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    from scipy.stats import spearmanr  # a dependency of jax

    return float(np.asarray(spearmanr(first, second))[0])


def _mitigation_table(report: Report) -> str:
    rows = []
    for row in report.mitigations():
        label = "dense" if row["strategy"] == "dense" else _label(row)
        rows.append(
            (
                label,
                row["countermeasure"],
                number(row["overridden"]),
                number(row["accuracy"], 4),
                number(row["bias_amplification"], 4, signed=True),
                whole(row["cells"]),
                number(row["absolute_false_positive_rate_gap"], 4),
                number(row["absolute_false_negative_rate_gap"], 4),
            )
        )
    names = ("model", "countermeasure", "overridden", "accuracy", "BA", "cells", "|FPR gap|", "|FNR gap|")
    return table("Countermeasures, before and after", names, rows)


def _label(row: dict[str, float | str]) -> str:
    level = "sparse" if math.isnan(float(row["sparsity"])) else f"{100 * float(row['sparsity']):.4g} %"
    return f"{level} {row['strategy']}".strip()
