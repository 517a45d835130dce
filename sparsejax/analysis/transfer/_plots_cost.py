"""Accuracy against the time of inference."""

# pandas declares unions that are too wide for its results.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportReturnType=false

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sparsejax._extras import require
from sparsejax.analysis._frames import require_columns
from sparsejax.analysis.transfer._plots import styles_of

if TYPE_CHECKING:
    import pandas as pd

_WIDE = 20.0  # ratio of times from which the axis is logarithmic
_COLUMNS = ("method", "sparsity", "batch_size", "milliseconds", "accuracy")


def pareto_front(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that no other row beats: none is as fast and more accurate, or faster and as accurate.

    Args:
      table: columns ``milliseconds`` and ``accuracy``, of one batch size.

    Returns:
      Those rows, the fastest first.

    Raises:
      ValueError: a missing column.
    """
    require_columns("pareto_front", "table", table, ("milliseconds", "accuracy"))
    ordered = table.sort_values(["milliseconds", "accuracy"], ascending=[True, False], kind="stable")
    before = ordered["accuracy"].cummax().shift(fill_value=-np.inf)
    return ordered[ordered["accuracy"] > before]


def plot_pareto(table: pd.DataFrame) -> np.ndarray:
    """Draw accuracy against the time of one inference: a panel for each batch size, a point for each network.

    The line joins the networks that no other one beats in both.

    Args:
      table: columns method, sparsity, batch_size, milliseconds, accuracy (a fraction).

    Returns:
      The axes, an array.

    Raises:
      ValueError: a missing column.
    """
    require_columns("plot_pareto", "table", table, _COLUMNS)
    pyplot = require("matplotlib.pyplot", "plot_pareto")
    sizes = sorted(table["batch_size"].unique())
    axes = pyplot.subplots(1, len(sizes), figsize=(4.6 * len(sizes), 3.8), layout="constrained", squeeze=False)[1]
    for ax, size in zip(axes.ravel(), sizes, strict=True):
        part = table[table["batch_size"] == size]
        front = pareto_front(part)
        ax.plot(front["milliseconds"], 100 * front["accuracy"], color="0.6", lw=1, zorder=0, label="not beaten")
        for method, (color, marker) in styles_of(table).items():
            points = part[part["method"] == method]
            ax.plot(points["milliseconds"], 100 * points["accuracy"], marker, color=color, ms=6, label=method)
            for row in points.itertuples():
                at = (row.milliseconds, 100 * row.accuracy)
                ax.annotate(f"{row.sparsity:g}", at, (5, 3), textcoords="offset points", fontsize=7)
        ax.set(title=f"batch {size}", xlabel="milliseconds of one call", ylabel="accuracy, %")
        times = part["milliseconds"].to_numpy()
        if np.max(times) > _WIDE * np.min(times):
            ax.set_xscale("log")
        ax.grid(alpha=0.3)
    axes.ravel()[-1].legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.02, 1.0), borderaxespad=0.0)
    return axes
