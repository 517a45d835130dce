"""Charts of a comparison, drawn with matplotlib (optional): in a notebook, and as SVG in the page."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsejax._checks import fail
from sparsejax._extras import require
from sparsejax.analysis.bias.audit._comparison import Comparison
from sparsejax.analysis.bias.audit._inputs import ModelOutputs
from sparsejax.analysis.bias.audit._views import mean_interval, means, reliability
from sparsejax.analysis.bias.metrics._arrays import sigmoid
from sparsejax.analysis.bias.metrics._measured import nanmean
from sparsejax.analysis.bias.metrics._rates import RATES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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
_GREY = "0.5"
Point = tuple[float, float, float]


def _style(index: int) -> dict[str, Any]:
    """Return colour, marker and dashes of a series, so that no series differs by its colour alone."""
    return {"color": f"C{index % 4}", "marker": "os^D"[index % 4], "linestyle": ("-", "--", ":", "-.")[index % 4]}


def overview_series(comparison: Comparison) -> dict[str, dict[str, list[Point]]]:
    """Return metric -> strategy -> (density, mean, sd) by rising sparsity; the dense model is strategy "dense"."""
    series: dict[str, dict[str, list[Point]]] = {name: {} for name, _ in OVERVIEW}
    for mean in means(comparison):
        if mean.thresholds == comparison.primary and mean.metric in series:
            strategy = "dense" if mean.model.role == "dense" else mean.model.strategy or "sparse"
            point = (1.0 - mean.model.sparsity, mean.value, mean.sd)
            if np.isfinite(point[:2]).all():
                series[mean.metric].setdefault(strategy, []).append(point)
    return series


def draw_metric(ax: Axes, title: str, series: dict[str, list[Point]]) -> None:
    """Draw one metric against density, with the dense level as a line and the spread over seeds as bars."""
    described, ticks = [], []
    ax.set_xscale("log")
    densities = sorted({x for name, each in series.items() if name != "dense" for x, _, _ in each})
    if densities:  # before anything is drawn: the limits that a single density implies are one point
        ax.set_xlim(1.1 * densities[-1], densities[0] / 1.1)
    for index, (strategy, points) in enumerate((name, each) for name, each in series.items() if name != "dense"):
        x, mean, sd = np.array(points).T
        ax.errorbar(x, mean, np.nan_to_num(sd), label=strategy, markersize=4, linewidth=1.5, **_style(index))
        described += [f"{strategy}, {100 * (1 - d):.4g} % zeros: {m:.4f}" for d, m, _ in points]
    for _, mean, _ in series.get("dense", []):
        ax.axhline(mean, color=_GREY, linestyle="--", label="dense")
        described.append(f"dense: {mean:.4f}")
    ax.set(title=title, xlabel="weights left, %", label="; ".join(described))
    for x in densities:
        if not ticks or math.log(x / ticks[-1]) > math.log(densities[-1] / densities[0]) / 8:
            ticks.append(x)
    ax.set_xticks(ticks, [f"{100 * x:.3g}" for x in ticks])
    ax.minorticks_off()
    ax.grid(alpha=0.3)


def plot_overview(comparison: Comparison, axes: np.ndarray | None = None) -> np.ndarray:
    """Draw the main numbers against density, see `BiasAudit.overall`; return an array of matplotlib axes."""
    if axes is None:
        axes = _pyplot().subplots(2, 4, figsize=(13, 5.5), layout="constrained")[1]
    series, drawn = overview_series(comparison), np.asarray(axes)
    flat = drawn.ravel()
    for ax, (metric, title) in zip(flat, OVERVIEW, strict=False):
        draw_metric(ax, title, series[metric])
    flat[min(3, len(flat) - 1)].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return drawn


def plot_bias(comparison: Comparison, ax: Axes | None = None, *, model: ModelOutputs | None = None) -> Axes:
    """Draw the change of bias amplification, attributes by groups; return the matplotlib axes.

    Undefined cells are hatched. The model is the one of highest sparsity unless another is passed.
    """
    model = model or comparison.inputs.sparse[-1]
    names = comparison.inputs.attribute_names
    ax = _axes(ax, (1.5 + 1.2 * len(comparison.pair_names), 1 + 0.3 * len(names)))
    values = nanmean(np.stack([r.changes["bias_amplification"].value for r in comparison.runs_of(model)]), axis=0).T
    limit = np.nanmax(np.abs(values)) if np.isfinite(values).any() else 1.0
    image = ax.imshow(values, cmap="PuOr_r", vmin=-limit, vmax=limit, aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        if np.isnan(value):
            ax.add_patch(_rectangle(j, i))
        else:
            color = "white" if abs(value) > 0.7 * limit else "black"
            ax.text(j, i, f"{value:+.3f}", ha="center", va="center", fontsize=7, color=color)
    ax.set_xticks(range(len(comparison.pair_names)), comparison.pair_names, parse_math=False)
    ax.set_yticks(range(len(names)), names, parse_math=False)
    ax.set_title(f"change of bias amplification, {model.label}", parse_math=False)
    ax.figure.colorbar(image, ax=ax)
    return ax


def plot_groups(
    comparison: Comparison,
    ax: Axes | None = None,
    *,
    metric: str = "false_negative_rate",
    model: ModelOutputs | None = None,
) -> Axes:
    """Draw a rate per group as arrows from dense to sparse; return the matplotlib axes.

    Means over attributes and seeds; bars are 95 % intervals if `compare` resampled. The model is the one of highest
    sparsity unless another is passed.
    """
    if metric not in RATES:
        fail("BiasAudit.plot_groups", "metric", f"value {metric!r}", f"one of {RATES}")
    model = model or comparison.inputs.sparse[-1]
    levels = [f"{group} = {level}" if group else "all" for group, level in comparison.frame.subsets]
    ax = _axes(ax, (6, 1 + 0.4 * len(levels)))
    ends = []
    for index, each in enumerate((comparison.inputs.dense, model)):
        runs = comparison.runs_of(each)
        values = nanmean(np.stack([nanmean(run.measures[metric].value, axis=1) for run in runs]), axis=0)
        low, high = mean_interval([run.mean_intervals.get(metric) for run in runs], values)
        ax.hlines(np.arange(len(levels)) + (0.2 if index else -0.2), low, high, color=f"C{index}")
        ends.append(values)
    described = []
    for row, (level, start, end) in enumerate(zip(levels, *ends, strict=True)):
        if np.isfinite([start, end]).all():
            ax.annotate("", (end, row), (start, row), arrowprops={"arrowstyle": "->", "shrinkA": 0, "shrinkB": 0})
            shown = ("dense", model.label) if not described else ("", "")  # once in the legend
            ax.plot([start], [row], "o", color="C0", fillstyle="none", label=shown[0])
            ax.plot([end], [row], "s", color="C1", markersize=4, label=shown[1])
            described.append(f"{level}: {start:.4f} to {end:.4f}")
    ax.set_yticks(range(len(levels)), levels, parse_math=False)
    ax.set(xlabel=metric.replace("_", " "), ylim=(len(levels) - 0.5, -0.5), label="; ".join(described))
    ax.set_title(f"dense to {model.label}", parse_math=False)
    ax.grid(alpha=0.3)
    if described:
        for text in ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0)).get_texts():
            text.set_parse_math(False)
    return ax


def plot_reliability(
    comparison: Comparison, ax: Axes | None = None, *, models: tuple[ModelOutputs, ...] | None = None
) -> Axes:
    """Draw observed frequency against predicted probability, all attributes together; return the matplotlib axes."""
    ax = _axes(ax, (4.5, 4.5))
    ax.plot([0, 1], [0, 1], color=_GREY, linestyle=":")
    view, bins = reliability(comparison).where(attribute=""), comparison.settings.n_bins
    described = []
    for index, model in enumerate(comparison.models if models is None else models):
        start = bins * comparison.models.index(model)
        prob, rate = (np.array(view[name][start : start + bins]) for name in ("mean_prob", "mean_label"))
        filled = ~np.isnan(prob)
        ax.plot(prob[filled], rate[filled], label=model.label, markersize=4, **_style(index))
        pairs = (f"predicted {p:.3f}, observed {r:.3f}" for p, r in zip(prob[filled], rate[filled], strict=True))
        described.append(f"{model.label}: {'; '.join(pairs)}")
    ax.set(xlabel="predicted probability", ylabel="observed frequency", label=". ".join(described))
    for text in ax.legend().get_texts():
        text.set_parse_math(False)
    return ax


def draw_histogram(ax: Axes, model: ModelOutputs, index: int, bins: int = 20) -> None:
    """Draw the share of predicted probabilities in equal buckets, over all cells and seeds."""
    counts = np.zeros(bins)
    for z in model.logits:
        counts += np.bincount(np.minimum((sigmoid(z).ravel() * bins).astype(int), bins - 1), minlength=bins)
    shares = counts / counts.sum()
    ax.bar(np.arange(bins) / bins, shares, width=0.9 / bins, align="edge", color=f"C{index}")
    middle = 100 * float(shares[bins // 10 : -(bins // 10)].sum())
    ax.set(xlabel="predicted probability", label=f"{middle:.1f} % of the cells between 0.1 and 0.9")


def _axes(ax: Axes | None, size: tuple[float, float]) -> Axes:
    return _pyplot().subplots(figsize=size, layout="constrained")[1] if ax is None else ax


def _rectangle(column: int, row: int) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, hatch="////", edgecolor="0.6", linewidth=0)


def _pyplot() -> Any:
    return require("matplotlib.pyplot", "BiasAudit.plot")
