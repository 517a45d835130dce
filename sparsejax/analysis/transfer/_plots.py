"""Figures of a study, on matplotlib axes; no global state is changed."""

# pandas declares unions that are too wide for its results.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportReturnType=false

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

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

# Up to here an axis of relative error increase is linear, and logarithmic beyond.
_LINEAR_PERCENT = 50

# A fixed order, so that a method has the same colour in every figure of one table.
_COLORS = 10


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
    a sparse model makes fewer errors. The vertical axis is linear up to 50 % and logarithmic beyond.

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
        f"relative error increase, {statistic} over data sets, %",
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

    Points are means over seeds with their standard deviation; the dashed line is the dense model.

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
    colors = _colors(table[table["method"] != baseline])
    for ax, name in zip(flat, names, strict=False):
        part = table[table["dataset"] == name]
        ax.axhline(100 * part["dense_mean"].iloc[0], color="0.4", linestyle="--", label=baseline)
        for method, color in colors.items():
            line = part[part["method"] == method].sort_values("sparsity")
            spread = 100 * line["std"].fillna(0.0)
            ax.errorbar(line["sparsity"], 100 * line["mean"], spread, fmt="o-", ms=3, color=color, label=method)
        ax.set_title(name, fontsize="medium")
        ax.grid(alpha=0.3)
    for ax in flat[len(names) :]:
        ax.set_visible(False)
    flat[0].legend(fontsize="x-small")
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
    for method, color in _colors(table).items():
        part = table[table["method"] == method]
        x, y = 100 * part["difficulty"].to_numpy(), 100 * part["rel_err_increase"].to_numpy()
        ax.plot(x, y, "o", ms=4, color=color, label=method)
        if len(x) > 1 and np.ptp(x) > 0:
            ends = np.array([x.min(), x.max()])
            ax.plot(ends, np.polyval(np.polyfit(x, y, 1), ends), color=color, alpha=0.5)
    ax.axhline(0, color="0.4", linestyle="--")
    _percent_axis(ax)
    ax.set(xlabel="difficulty: dense full minus linear, points", ylabel="relative error increase, %")
    ax.set_title(f"{regime}, sparsity {sparsity:g}")
    ax.legend(fontsize="x-small")
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
        for method, color in _colors(table).items():
            line = part[part["method"] == method].sort_values("sparsity")
            ax.plot(100 * line["accuracy"], 100 * line["mean_acc"], "o-", ms=4, lw=0.7, color=color, label=method)
        ax.set(title=f"{regime}, {len(part)} models", xlabel="upstream accuracy, %", ylabel="mean accuracy, %")
        ax.grid(alpha=0.3)
    np.ravel(axes)[0].legend(fontsize="x-small")
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
        ax.set_yscale("linear")
        if not ax.yaxis_inverted():
            ax.invert_yaxis()
    return axes


def _lines(table: pd.DataFrame, column: str, error: str | None, label: str, axes: np.ndarray | None) -> np.ndarray:
    """A panel for each regime, a line for each method over sparsity."""
    percent = 100 if column.startswith("rel_err") else 1
    regimes = sorted(table["regime"].unique())
    axes = _panels(axes, len(regimes))
    for ax, regime in zip(np.ravel(axes), regimes, strict=False):
        for method, color in _colors(table).items():
            line = table[(table["regime"] == regime) & (table["method"] == method)].sort_values("sparsity")
            bars = None if error is None else percent * line[error].fillna(0.0)
            ax.errorbar(
                line["sparsity"], percent * line[column], bars, fmt="o-", ms=4, capsize=2, color=color, label=method
            )
        if percent == 100:
            ax.axhline(0, color="0.4", linestyle="--")
            _percent_axis(ax)
        ax.set(title=regime, xlabel="sparsity", ylabel=label)
        ax.grid(alpha=0.3)
    np.ravel(axes)[0].legend(fontsize="x-small")
    return axes


def _percent_axis(ax: Axes) -> None:
    """Scale and ticks of the vertical axis once the data is drawn: Matplotlib's default ticks leave out 20 and 50."""
    if max(map(abs, ax.get_ylim())) <= _LINEAR_PERCENT:
        return
    ax.set_yscale("symlog", linthresh=_LINEAR_PERCENT)
    sizes = [digit * 10**power for power in range(1, 5) for digit in (1, 2, 5)]
    ax.set_yticks([t for t in (*(-s for s in sizes), 0, *sizes) if ax.get_ylim()[0] <= t <= ax.get_ylim()[1]])
    ax.set_yticks([], minor=True)
    ax.yaxis.set_major_formatter("{x:g}")


def _of_arch(function: str, table: pd.DataFrame, arch: str | None) -> pd.DataFrame:
    known = sorted(table["arch"].unique())
    if arch is None and len(known) > 1:
        fail(function, "arch", "no value", f"one of {known}")
    chosen = known[0] if arch is None else arch
    if chosen not in known:
        fail(function, "arch", f"value {chosen!r}", f"one of {known}")
    return table[table["arch"] == chosen]


def _colors(table: pd.DataFrame) -> Mapping[str, str]:
    return {method: f"C{i % _COLORS}" for i, method in enumerate(sorted(table["method"].unique()))}


def _panels(axes: np.ndarray | None, count: int) -> np.ndarray:
    if axes is not None:
        return axes
    return _pyplot().subplots(1, count, figsize=(4.6 * count, 3.8), layout="constrained", squeeze=False)[1]


def _axes(ax: Axes | None, size: tuple[float, float]) -> Axes:
    return _pyplot().subplots(figsize=size, layout="constrained")[1] if ax is None else ax


def _pyplot() -> Any:
    return require("matplotlib.pyplot", "plot")
