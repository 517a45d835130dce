"""Figures of a study, on matplotlib axes; no global state is changed."""

# pandas declares unions that are too wide for its results.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportReturnType=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sparsejax._checks import fail
from sparsejax._extras import require
from sparsejax.analysis.transfer.tables._aggregate import aggregate
from sparsejax.analysis.transfer.tables._cells import ANY_ERROR, cells
from sparsejax.analysis.transfer.tables._ranks import rank_methods
from sparsejax.analysis.transfer.tables._relations import task_difficulty
from sparsejax.analysis.transfer.tables._results import check_upstream

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

# Methods of the published study have their own colour and marker in every figure; others get the next free ones.
_STUDY_METHODS = ("AC/DC", "GMP", "WoodFisher", "STR", "RigL ERK 1x", "RigL ERK 5x", "LTH-T", "M-FAC", "Dense")
_MARKERS = "os^Dv<>PX*"
_FAR = 2.0  # interquartile ranges beyond the quartiles from which a point is drawn on the edge of the axis
_STRETCH = 2.0  # how much longer than for the other points an axis may be before far ones go to the edge
_APART = 0.018  # of the range of sparsities: between the bars of two methods at the same one
_NARROW = 0.035  # of the axis: the values of points that are nearer are written at different heights
_LABEL = 16  # points, the length of such a value


def plot_relative_error(
    results: pd.DataFrame,
    *,
    arch: str | None = None,
    baseline: str = "Dense",
    statistic: str = "mean",
    axes: np.ndarray | None = None,
    **options: Any,
) -> np.ndarray:
    """Draw the relative error increase against sparsity: a panel for each regime, a line for each method.

    Points are means over data sets with their standard error, or medians. The dashed line is the dense model; below it
    a sparse model makes fewer errors. Points far from all others are drawn on the edge of the axis, with their value;
    methods at the same sparsity a little beside each other.

    Args:
      results: one row for each run.
      arch: network; the only one if None.
      baseline: the dense method.
      statistic: "mean", with error bars, or "median".
      axes: one for each regime, in the order of their names; made if None.
      **options: ``min_error`` and ``below``, as for `cells`.

    Returns:
      The axes, an array.
    """
    if statistic not in ("mean", "median"):
        fail("plot_relative_error", "statistic", f"value {statistic!r}", "'mean' or 'median'")
    table = _of_arch("plot_relative_error", aggregate(results, baseline=baseline, **options), arch)
    return _lines(
        table[table["method"] != baseline],
        f"rel_err_{statistic}",
        "rel_err_sem" if statistic == "mean" else None,
        f"relative error increase, %\n({statistic} over data sets)",
        axes,
    )


def plot_datasets(
    results: pd.DataFrame,
    *,
    regime: str,
    arch: str | None = None,
    baseline: str = "Dense",
    axes: np.ndarray | None = None,
    columns: int = 4,
) -> np.ndarray:
    """Draw accuracy against sparsity, a panel for each data set, a line for each method.

    Points are means over seeds with their standard deviation; the dashed line is the dense model. Points far from all
    others are drawn on the edge of the axis, with their value; methods at the same sparsity a little beside each other.

    Args:
      results: one row for each run.
      regime: "linear" or "full".
      arch: network; the only one if None.
      baseline: the dense method.
      axes: at least one for each data set, in the order of their names; made if None.
      columns: panels in a row.

    Returns:
      The axes, an array.
    """
    table = _of_arch("plot_datasets", cells(results, baseline=baseline, min_error=ANY_ERROR), arch)
    table = table[table["regime"] == regime]
    names = sorted(table["dataset"].unique())
    if not names:
        fail("plot_datasets", "regime", f"value {regime!r}", "one that is in the table")
    if axes is None:
        rows = -(-len(names) // columns)
        size = (2.6 * columns, 2.1 * rows)
        axes = _pyplot().subplots(rows, columns, figsize=size, layout="constrained", sharex=True, squeeze=False)[1]
    flat = np.asarray(axes).ravel()
    styles, levels = styles_of(table[table["method"] != baseline]), table.loc[table["method"] != baseline, "sparsity"]
    for ax, name in zip(flat, names, strict=False):
        part = table[table["dataset"] == name]
        ax.axhline(100 * part["dense_mean"].iloc[0], color="0.4", linestyle="--", label=baseline)
        points = [_Point(np.nan, 100 * part["dense_mean"].iloc[0], 0.0, "0.4")]
        for place, (method, style) in enumerate(styles.items()):
            line = part[part["method"] == method].sort_values("sparsity")
            x = _beside(line["sparsity"], levels, place, len(styles))
            y, spread = 100 * line["mean"], 100 * line["std"].fillna(0.0)
            ax.errorbar(x, y, spread, **style._asdict(), ms=4, label=method)
            points += [_Point(*at, style.color) for at in zip(x, y, spread, strict=True)]
        _keep_far_points_on_the_edge(ax, points)
        ax.set_title(name, fontsize="medium")
        ax.grid(alpha=0.3)
    for ax in flat[len(names) :]:
        ax.set_visible(False)
    handles, texts = flat[0].get_legend_handles_labels()
    flat[0].figure.legend(handles, texts, loc="outside right upper", fontsize="small")
    flat[0].set_ylabel("accuracy, %")
    flat[0].figure.supxlabel("sparsity")
    return axes


def plot_tasks(
    results: pd.DataFrame, *, regime: str, arch: str | None = None, baseline: str = "Dense", ax: Axes | None = None
) -> Axes:
    """Draw the accuracy difference to the dense model as a heat map: models by rows, data sets by columns.

    Returns:
      The axes. Colours saturate at ten points.
    """
    table = _of_arch("plot_tasks", cells(results, baseline=baseline, min_error=ANY_ERROR), arch)
    table = table[(table["regime"] == regime) & (table["method"] != baseline)]
    if table.empty:
        fail("plot_tasks", "regime", f"value {regime!r}", "one that is in the table, with a sparse model")
    wide = 100 * table.pivot(index=["method", "sparsity"], columns="dataset", values="acc_diff")
    ax = _axes(ax, (2.5 + 0.7 * wide.shape[1], 1 + 0.28 * len(wide)))
    image = ax.imshow(wide.to_numpy(), cmap="PuOr", vmin=-10, vmax=10, aspect="auto")
    for (i, j), value in np.ndenumerate(wide.to_numpy()):
        if np.isfinite(value):
            color = "white" if abs(value) > 7 else "black"
            ax.text(j, i, f"{value:+.1f}", ha="center", va="center", fontsize=7, color=color)
    ax.set_xticks(range(wide.shape[1]), wide.columns, rotation=60, ha="right")
    ax.set_yticks(range(len(wide)), [f"{method} {sparsity:g}" for method, sparsity in wide.index])
    ax.set_title(f"accuracy minus {baseline}, points, {regime}")
    ax.figure.colorbar(image, ax=ax)
    return ax


def plot_difficulty(
    results: pd.DataFrame,
    *,
    regime: str,
    sparsity: float,
    arch: str | None = None,
    baseline: str = "Dense",
    ax: Axes | None = None,
) -> Axes:
    """Draw the relative error increase of each data set against its difficulty, with a least-squares line per method.

    Returns:
      The axes.
    """
    table = _of_arch("plot_difficulty", cells(results, baseline=baseline, min_error=ANY_ERROR), arch)
    difficulty = task_difficulty(results, baseline=baseline).set_index(["arch", "dataset"])["difficulty"]
    table = table.join(difficulty, on=["arch", "dataset"]).dropna(subset=["difficulty"])
    table = table[(table["regime"] == regime) & (table["sparsity"] == sparsity) & (table["method"] != baseline)]
    if table.empty:
        fail("plot_difficulty", "sparsity", f"value {sparsity:g} in {regime!r}", "a level in the table")
    ax = _axes(ax, (5, 3.6))
    points: list[_Point] = []
    for method, (color, marker) in styles_of(table).items():
        part = table[table["method"] == method]
        x, y = 100 * part["difficulty"].to_numpy(), 100 * part["rel_err_increase"].to_numpy()
        ax.plot(x, y, marker, ms=4, color=color, label=method)
        points += [_Point(*at, 0.0, color) for at in zip(x, y, strict=True)]
        if len(x) > 1 and np.ptp(x) > 0:
            ends = np.array([x.min(), x.max()])
            ax.plot(ends, np.polyval(np.polyfit(x, y, 1), ends), color=color, alpha=0.5)
    ax.axhline(0, color="0.4", linestyle="--")
    _keep_far_points_on_the_edge(ax, points)
    ax.set(xlabel="difficulty: dense full minus linear, points", ylabel="relative error increase, %")
    ax.set_title(f"{regime}, sparsity {sparsity:g}")
    _legend(ax)
    ax.grid(alpha=0.3)
    return ax


def plot_upstream(
    results: pd.DataFrame, upstream: pd.DataFrame, *, arch: str | None = None, axes: np.ndarray | None = None
) -> np.ndarray:
    """Draw mean transfer accuracy against upstream accuracy, a panel for each regime, a point for each model.

    Args:
      results: one row for each run.
      upstream: columns ``arch``, ``method``, ``sparsity``, ``accuracy``.
      arch: network; the only one if None.
      axes: one for each regime; made if None.

    Returns:
      The axes, an array.
    """
    table = _of_arch("plot_upstream", aggregate(results, min_error=ANY_ERROR), arch)
    table = table.merge(check_upstream("plot_upstream", upstream), on=["arch", "method", "sparsity"])
    if table.empty:
        fail("plot_upstream", "upstream", "no model of the results", "the same names and sparsities")
    regimes = sorted(table["regime"].unique())
    axes = _panels(axes, len(regimes))
    for ax, regime in zip(np.ravel(axes), regimes, strict=False):
        part = table[table["regime"] == regime]
        for method, style in styles_of(table).items():
            line = part[part["method"] == method].sort_values("sparsity")
            ax.plot(100 * line["accuracy"], 100 * line["mean_acc"], **style._asdict(), ms=5, lw=0.7, label=method)
        ax.set(title=f"{regime}, {len(part)} models", xlabel="upstream accuracy, %", ylabel="mean accuracy, %")
        ax.grid(alpha=0.3)
    _legend(np.ravel(axes)[len(regimes) - 1])
    return axes


def plot_ranks(
    results: pd.DataFrame, *, arch: str | None = None, tolerance: float = 0.0, axes: np.ndarray | None = None
) -> np.ndarray:
    """Draw the mean rank of each method against sparsity, a panel for each regime; 1, the best, is on top.

    Returns:
      The axes, an array.
    """
    table = _of_arch("plot_ranks", rank_methods(results, tolerance=tolerance), arch)
    axes = _lines(table, "mean_rank", None, "mean rank", axes)
    for ax in np.ravel(axes):
        if not ax.yaxis_inverted():
            ax.invert_yaxis()
    return axes


def _lines(table: pd.DataFrame, column: str, error: str | None, label: str, axes: np.ndarray | None) -> np.ndarray:
    """A panel for each regime, a line for each method over sparsity."""
    percent = 100 if column.startswith("rel_err") else 1
    regimes = sorted(table["regime"].unique())
    axes = _panels(axes, len(regimes))
    for ax, regime in zip(np.ravel(axes), regimes, strict=False):
        points: list[_Point] = []
        styles = styles_of(table)
        for place, (method, style) in enumerate(styles.items()):
            line = table[(table["regime"] == regime) & (table["method"] == method)].sort_values("sparsity")
            value = percent * line[column]
            bars = 0.0 * value if error is None else percent * line[error].fillna(0.0)
            x = _beside(line["sparsity"], table["sparsity"], place, len(styles))
            shown = None if error is None else bars
            ax.errorbar(x, value, shown, **style._asdict(), ms=5, capsize=2, label=method)
            points += [_Point(*at, style.color) for at in zip(x, value, bars, strict=True)]
        if percent == 100:
            ax.axhline(0, color="0.4", linestyle="--")
            _keep_far_points_on_the_edge(ax, points)
        ax.set(title=regime, xlabel="sparsity")
        ax.locator_params(axis="x", nbins=5)
        ax.grid(alpha=0.3)
    np.ravel(axes)[0].set_ylabel(label)
    _legend(np.ravel(axes)[len(regimes) - 1])
    return axes


def _beside(levels: pd.Series, every: pd.Series, place: int, count: int) -> pd.Series:
    """Move a method's points a little to the side, so that the bars of several at the same sparsity are all seen."""
    return levels + (place - (count - 1) / 2) * _APART * max(every.max() - every.min(), 0.05)


def _legend(ax: Axes) -> None:
    """Put the legend beside the axes."""
    ax.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.02, 1.0), borderaxespad=0.0)


def _of_arch(function: str, table: pd.DataFrame, arch: str | None) -> pd.DataFrame:
    known = sorted(table["arch"].unique())
    if arch is None and len(known) > 1:
        fail(function, "arch", "no value", f"one of {known}")
    chosen = known[0] if arch is None else arch
    if chosen not in known:
        fail(function, "arch", f"value {chosen!r}", f"one of {known}")
    return table[table["arch"] == chosen]


class _Style(NamedTuple):
    color: str
    marker: str


def styles_of(table: pd.DataFrame) -> Mapping[str, _Style]:
    """Colour and marker of each method."""
    present = sorted(table["method"].unique())
    order = [*_STUDY_METHODS, *(name for name in present if name not in _STUDY_METHODS)]
    places = {name: order.index(name) for name in present}
    return {name: _Style(f"C{at % 10}", _MARKERS[at % len(_MARKERS)]) for name, at in places.items()}


class _Point(NamedTuple):
    x: float  # NaN: a level across the axis, which is always shown
    value: float
    error: float
    color: str


def _keep_far_points_on_the_edge(ax: Axes, points: Sequence[_Point]) -> None:
    """Fit the vertical axis to most points and their bars; those far from them are drawn on its edge, with their value.

    Args:
      ax: with everything drawn.
      points: all of them.
    """
    x, values, errors = np.array([p[:3] for p in points if np.isfinite(p.value)]).reshape(-1, 3).T
    if len(values) < 4:
        return
    first, third = np.percentile(values, [25, 75])
    reach = _FAR * max(third - first, 1e-9)
    near = (values >= first - reach) & (values <= third + reach) | np.isnan(x)
    if np.ptp(values) <= _STRETCH * np.ptp(values[near]):
        return
    low, high = (values - errors)[near].min(), (values + errors)[near].max()
    room = 0.12 * max(high - low, 1e-9)
    low, high = low - room, high + room
    bottom, top = low - room * (values < low).any(), high + room * (values > high).any()
    ax.set_ylim(bottom, top)
    width = max(ax.get_xlim()) - min(ax.get_xlim())
    last, step = {"v": -np.inf, "^": -np.inf}, {"v": 0, "^": 0}
    for x, value, _, color in sorted(points):
        if not bottom <= value <= top and np.isfinite(value):
            below = value < low
            at, marker = (low - 0.3 * room, "v") if below else (high + 0.3 * room, "^")
            ax.plot([x], [at], marker=marker, ms=6, color=color, clip_on=False, linestyle="")
            step[marker] = (step[marker] + 1) % 3 if x - last[marker] < _NARROW * width else 0
            last[marker] = x
            style = {"fontsize": 7, "color": color, "rotation": 90, "ha": "center"}  # neighbours do not overlap
            style["bbox"] = {"facecolor": "white", "edgecolor": "none", "pad": 0.3}
            away = 4 + _LABEL * step[marker]
            above, va = (away, "bottom") if below else (-away, "top")
            ax.annotate(f"{value:.0f}", (x, at), (0, above), textcoords="offset points", va=va, **style)


def _panels(axes: np.ndarray | None, count: int) -> np.ndarray:
    if axes is not None:
        return axes
    return _pyplot().subplots(1, count, figsize=(4.6 * count, 3.8), layout="constrained", squeeze=False)[1]


def _axes(ax: Axes | None, size: tuple[float, float]) -> Axes:
    return _pyplot().subplots(figsize=size, layout="constrained")[1] if ax is None else ax


def _pyplot() -> Any:
    return require("matplotlib.pyplot", "plot")
