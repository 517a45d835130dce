"""Pictures of a comparison with matplotlib, which is optional."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sparsejax._checks import fail
from sparsejax._extras import require
from sparsejax.analysis.bias.audit import _views
from sparsejax.analysis.bias.audit._inputs import Model
from sparsejax.analysis.bias.metrics._measured import nanmean
from sparsejax.analysis.bias.metrics._rates import RATES

if TYPE_CHECKING:
    from sparsejax.analysis.bias.audit._audit import Report

OVERVIEW = (
    ("accuracy", "accuracy"),
    ("auc", "AUC"),
    ("rare_value_ratio", "rare value ratio"),
    ("uncertainty", "uncertain share"),
    ("expected_calibration_error", "calibration error"),
    ("interdependence_prob", "interdependence, probabilities"),
    ("interdependence_hard", "interdependence, decisions"),
    ("bias_amplification", "bias amplification, common cells"),
)


def density(model: Model) -> float:
    """Return the fraction of weights that are left, the logarithmic axis of the overview."""
    return 1.0 - model.sparsity


def overview_series(report: Report) -> dict[str, dict[str, list[tuple[float, float, float]]]]:
    """Return metric -> strategy -> (density, mean, sd) by rising sparsity; the dense model is strategy "dense"."""
    series: dict[str, dict[str, list[tuple[float, float, float]]]] = {name: {} for name, _ in OVERVIEW}
    for mean in _views.means(report):
        if mean.thresholds == report.primary and mean.metric in series:
            strategy = "dense" if mean.model.role == "dense" else mean.model.strategy or "sparse"
            point = (density(mean.model), mean.value, mean.sd)
            series[mean.metric].setdefault(strategy, []).append(point)
    return series


def overview(report: Report, axes: Any = None) -> Any:
    """Draw the main numbers against density, with the dense level as a line and the spread over seeds as a band."""
    if axes is None:
        axes = _pyplot().subplots(2, 4, figsize=(13, 5.5), layout="constrained")[1]
    flat = np.asarray(axes).ravel()
    for ax, (metric, title) in zip(flat, OVERVIEW, strict=False):
        strategies = overview_series(report)[metric]
        for strategy, points in strategies.items():
            x, mean, sd = np.array(points).T
            if strategy == "dense":
                ax.axhline(mean[0], color="0.5", linestyle="--", label="dense")
                continue
            ax.plot(x, mean, "o-", label=strategy)
            ax.fill_between(x, mean - np.nan_to_num(sd), mean + np.nan_to_num(sd), alpha=0.2)
        ax.set(xscale="log", title=title, xlabel="weights left")
        ax.grid(alpha=0.3)
        if not ax.xaxis_inverted():
            ax.invert_xaxis()
    flat[0].legend()
    return axes


def bias_heat_map(report: Report, ax: Any, model: Model) -> Any:
    """Draw the change of bias amplification per cell; undefined cells are hatched."""
    ax = _axes(ax, (1.5 + 1.2 * len(report.pair_names), 1 + 0.3 * len(report.inputs.attribute_names)))
    values = nanmean(np.stack([r.changes["bias_amplification"].value for r in report.runs_of(model)]), axis=0).T
    limit = np.nanmax(np.abs(values)) if np.isfinite(values).any() else 1.0
    image = ax.imshow(values, cmap="PuOr_r", vmin=-limit, vmax=limit, aspect="auto")
    for i, j in np.argwhere(np.isnan(values)):
        ax.add_patch(_rectangle(j, i))
    for i, j in np.argwhere(~np.isnan(values)):
        ax.text(j, i, f"{values[i, j]:+.3f}", ha="center", va="center", fontsize=7)
    ax.set_xticks(range(len(report.pair_names)), report.pair_names)
    ax.set_yticks(range(len(report.inputs.attribute_names)), report.inputs.attribute_names)
    ax.set_title(f"change of bias amplification, {model.label}")
    ax.figure.colorbar(image, ax=ax)
    return ax


def group_arrows(report: Report, ax: Any, metric: str, model: Model) -> Any:
    """Draw a rate in each level, from dense to sparse, mean over attributes and seeds."""
    if metric not in RATES:
        fail("Report.plot_groups", "metric", f"value {metric!r}", f"one of {RATES}")
    ax = _axes(ax, (6, 1 + 0.4 * len(report.frame.subsets)))
    levels = [f"{group} = {level}" if group else "all" for group, level in report.frame.subsets]
    ends = [
        nanmean(np.stack([nanmean(run.measures[metric].value, axis=1) for run in report.runs_of(m)]), axis=0)
        for m in (report.inputs.dense, model)
    ]
    for row, (start, end) in enumerate(zip(*ends, strict=True)):
        if np.isfinite([start, end]).all():
            ax.annotate("", (end, row), (start, row), arrowprops={"arrowstyle": "->"})
            ax.plot([start], [row], "o", color="0.4")
            ax.plot([end], [row], ".", color="C1")
    ax.set_yticks(range(len(levels)), levels)
    ax.set(xlabel=metric.replace("_", " "), title=f"dense to {model.label}")
    ax.grid(alpha=0.3)
    return ax


def reliability(report: Report, ax: Any) -> Any:
    """Draw observed frequency against predicted probability, all attributes together."""
    ax = _axes(ax, (4.5, 4.5))
    ax.plot([0, 1], [0, 1], color="0.6", linestyle=":")
    view = report.reliability.where(attribute="")
    bins = report.settings.n_bins
    for index, model in enumerate(report.models):
        at = slice(index * bins, (index + 1) * bins)
        ax.plot(view["mean_prob"][at], view["mean_label"][at], "o-", ms=3, label=model.label)
    ax.set(xlabel="predicted probability", ylabel="observed frequency")
    ax.legend()
    return ax


def _axes(ax: Any, size: tuple[float, float]) -> Any:
    return _pyplot().subplots(figsize=size, layout="constrained")[1] if ax is None else ax


def _rectangle(column: int, row: int) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, hatch="////", edgecolor="0.6", linewidth=0)


def _pyplot() -> Any:
    return require("matplotlib.pyplot", "Report.plot")
