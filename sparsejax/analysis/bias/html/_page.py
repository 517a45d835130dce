"""The whole page, and a compact form of it for notebooks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sparsejax.analysis._page import page_template
from sparsejax.analysis.bias.audit import _plots, _summary
from sparsejax.analysis.bias.audit._comparison import Comparison
from sparsejax.analysis.bias.audit._inputs import ModelOutputs
from sparsejax.analysis.bias.html import _sections
from sparsejax.analysis.bias.html._gallery import gallery_data
from sparsejax.analysis.bias.html._svg import svg

_MAIN = ("accuracy", "auc", "uncertainty", "rare_value_ratio", "expected_calibration_error", "bias_amplification")


def page(comparison: Comparison, *, hash_ids: bool, folder: Path | None = None) -> str:
    """Return the page; with a ``folder``, the images of the gallery are files written there."""
    inputs = comparison.inputs
    return _template("page.html").render(
        # Nothing may be requested: style, script and images are in the page, or the images are files beside it.
        image_sources="data:" if folder is None else "data: 'self'",
        facts=_sections.facts(comparison),
        warnings=_summary.warnings(comparison),
        overview_charts=_overview_charts(comparison),
        overview_table=_sections.overview_table(comparison),
        has_groups=bool(inputs.groups),
        has_risk=inputs.y_val is not None and bool(comparison.frame.pairs),
        n_boot=comparison.settings.n_boot,
        panels=[_panel(comparison, model, index) for index, model in enumerate(inputs.sparse)],
        safe_sparsity=_summary.safe_sparsity(comparison),
        flips=_sections.flip_table(comparison),
        exemplars=_sections.exemplar_table(comparison),
        mitigations=_sections.mitigation_table(comparison),
        gallery=gallery_data(comparison, hash_ids=hash_ids, folder=folder),
    )


def fragment(comparison: Comparison) -> str:
    """Return the main numbers as a small table, with the warnings."""
    rows, notes = _summary.main_numbers(comparison, _MAIN), _summary.warnings(comparison)
    return _template("fragment.html").render(metrics=_MAIN, rows=rows, warnings=notes)


def _template(name: str) -> Any:
    return page_template("BiasAudit.to_html", Path(__file__).parent / "templates", name)


def _overview_charts(comparison: Comparison) -> list[tuple[str, str]]:
    """Return title and chart of each main number; no chart without a defined value."""
    charts = []
    for metric, series in _plots.overview_series(comparison).items():
        title, sparse = dict(_plots.OVERVIEW)[metric], set(series) - {"dense"}

        def draw(ax: Any, title: str = title, series: Any = series, several: bool = len(sparse) > 1) -> None:
            _plots.draw_metric(ax, title, series)
            if several:
                ax.legend()

        charts.append((title, svg(draw, metric, 300, 190) if sparse else ""))
    return charts


def _panel(comparison: Comparison, model: ModelOutputs, index: int) -> dict[str, Any]:
    """Return charts and tables of one sparse model."""
    models = (comparison.inputs.dense, model)
    panel: dict[str, Any] = {"label": model.label, "attributes": _sections.attribute_table(comparison, model)}
    if comparison.inputs.groups:
        subsets = comparison.frame.subsets
        height, left = 30 * len(subsets) + 70, min(220, 35 + 6 * max(len(f"{g}{level}") for g, level in subsets))
        panel["group_charts"] = [
            svg(lambda ax, m=m: _plots.plot_groups(comparison, ax, metric=m, model=model), name, 460, height, left=left)
            for m, name in (("false_positive_rate", f"fpr-{index}"), ("false_negative_rate", f"fnr-{index}"))
        ]
        panel |= {"heat": _sections.heat_map(comparison, model), "groups": _sections.group_table(comparison, model)}
    if comparison.inputs.y_val is not None and comparison.frame.pairs:
        panel["risk"], panel["agreement"] = _sections.risk_table(comparison, model)
    curve = svg(lambda ax: _plots.plot_reliability(comparison, ax, models=models), f"reliability-{index}", 300, 300)
    histograms = [
        (each.label, svg(lambda ax, e=each, k=k: _plots.draw_histogram(ax, e, k), f"histogram-{index}-{k}", 300, 160))
        for k, each in enumerate(models)
    ]
    return panel | {"reliability": curve, "histograms": histograms}
