"""The whole page, and a compact form of it for notebooks."""

from __future__ import annotations

from functools import cache
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from sparsejax.analysis.bias.audit import _views
from sparsejax.analysis.bias.html._attributes import attributes, groups
from sparsejax.analysis.bias.html._criteria import criteria, reliability
from sparsejax.analysis.bias.html._gallery import gallery
from sparsejax.analysis.bias.html._markup import DASH
from sparsejax.analysis.bias.html._overview import header, overview

if TYPE_CHECKING:
    from sparsejax.analysis.bias.audit._audit import Report

# Nothing may be fetched: style and script are in the page, and so are pictures, unless they are files beside it.
_POLICY = "default-src 'none'; img-src {images}; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
_MENU = ("Overview", "Attributes", "Groups", "Reliability", "Criteria", "Gallery")


@cache
def _asset(name: str) -> str:
    return files("sparsejax.analysis.bias.html").joinpath(name).read_text(encoding="utf-8")


def page(report: Report, *, hash_ids: bool, folder: Path | None = None) -> str:
    """Return the page; where a ``folder`` is given, the pictures of the gallery are files written there."""
    policy = _POLICY.format(images="data:" if folder is None else "data: 'self'")
    menu = "".join(f'<li><a href="#{name.lower()}">{name}</a></li>' for name in _MENU)
    last = len(report.inputs.sparse) - 1
    options = "".join(
        f'<option value="{i}"{" selected" if i == last else ""}>{escape(model.label)}</option>'
        for i, model in enumerate(report.inputs.sparse)
    )
    body = "".join(
        (
            overview(report),
            attributes(report),
            groups(report),
            reliability(report),
            criteria(report),
            gallery(report, hash_ids=hash_ids, folder=folder),
        )
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        '<title>Bias audit of a pruned model</title><link rel="icon" href="data:,">'
        f"<style>{_asset('report.css')}</style></head><body>"
        f'<a class="skip" href="#overview">Skip to the results</a>{header(report)}'
        f'<nav aria-label="Sections"><ul>{menu}</ul>'
        f'<label>Sparse model <select id="model">{options}</select></label></nav>'
        f"<main>{body}</main><footer><p>Group and attribute names are those of the data. Labels of people are "
        "annotations by others, not facts about a person.</p></footer>"
        f"<script>{_asset('report.js')}</script></body></html>\n"
    )


def fragment(report: Report) -> str:
    """Return the main numbers as a small table, with the warnings."""
    names = ("accuracy", "auc", "uncertainty", "rare_value_ratio", "expected_calibration_error", "bias_amplification")
    values = {
        (mean.model.label, mean.metric): f"{mean.value:.4f}"
        for mean in _views.means(report)
        if mean.thresholds == report.primary
    }
    heads = "".join(f"<th>{escape(name.replace('_', ' '))}</th>" for name in names)
    rows = "".join(
        f"<tr><th>{escape(model.label)}</th>"
        + "".join(f"<td>{values.get((model.label, name), DASH)}</td>" for name in names)
        + "</tr>"
        for model in report.models
    )
    notes = "".join(f"<li>{escape(note)}</li>" for note in report.warnings)
    return f"<table><thead><tr><th></th>{heads}</tr></thead><tbody>{rows}</tbody></table><ul>{notes}</ul>"
