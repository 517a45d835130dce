"""The paper's bar plots, and distances as heat maps. Needs matplotlib."""

# pandas declares unions that are too wide for its results.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from sparsejax._checks import fail
from sparsejax.analysis._arrays import read_numbers
from sparsejax.analysis._frames import require_columns
from sparsejax.analysis.multisource._adversaries import PAPER_LABELS
from sparsejax.analysis.multisource._inputs import Labels, read_labels
from sparsejax.analysis.multisource.study._methods import ABLATIONS, METHODS
from sparsejax.analysis.multisource.study._tables import labels

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = ("dataset", "learner", "classifier", "method", "adversary", "metric")


def _colour(method: str) -> str:
    """The same colour in every figure."""
    known = (*METHODS, *ABLATIONS)
    return f"C{known.index(method) % 10}" if method in known else "0.5"


def plot_bars(
    summary: pd.DataFrame, dataset: str, learner: str, classifier: str = "linear", methods: Sequence[str] | None = None
) -> Figure:
    """Draw bars of accuracy and fairness for each adversary and method, with one standard deviation as whiskers.

    The vertical axes span the bars, whiskers and lines: they start above 0.

    Args:
      summary: data frame of `summarise`, or of published results.
      dataset, learner, classifier: which of them.
      methods: names, in the order of the bars; None for all but "oracle" and "original", which do
        not depend on the adversary: their means are lines.

    Returns:
      A matplotlib figure: accuracy above, fairness (1 - demographic parity violation) below.

    Raises:
      ValueError: nothing in ``summary`` for these.
    """
    import matplotlib.pyplot as plt

    require_columns("plot_bars", "summary", summary, (*_COLUMNS, "mean", "std"))
    keys = {"dataset": dataset, "learner": learner, "classifier": classifier}
    chosen: Any = summary[(summary[list(keys)] == list(keys.values())).all(axis=1)]
    if chosen.empty:
        fail("plot_bars", "summary", f"no rows for {', '.join(keys.values())}", "results of that combination")
    clean = [m for m in ("oracle", "original") if m in set(chosen["method"])]
    bars = [m for m in dict.fromkeys(chosen["method"]) if m not in clean] if methods is None else list(methods)
    shown = dict(zip(chosen["method"], labels(chosen), strict=True)) | {
        m: m for m in bars if m not in set(chosen["method"])
    }
    adversaries = [name for name in PAPER_LABELS if name in set(chosen["adversary"])]
    figure, axes = plt.subplots(2, 1, figsize=(9, 4.6), sharex=True, layout="constrained")
    width = 0.8 / max(len(bars), 1)
    for ax, metric, title in zip(axes, ("accuracy", "dp_violation"), ("accuracy", "fairness"), strict=True):
        values = chosen[chosen["metric"] == metric].set_index(["method", "adversary"])

        def of(method: str, adversary: str, values: Any = values, metric: str = metric) -> tuple[float, float]:
            if (method, adversary) not in values.index:
                return np.nan, np.nan
            mean, std = values.loc[(method, adversary), ["mean", "std"]]
            return (1 - mean if metric == "dp_violation" else mean), std

        drawn = [of(method, "none")[0] for method in clean]
        for place, method in enumerate(bars):
            mean, std = np.array([of(method, adversary) for adversary in adversaries]).T
            x = np.arange(len(adversaries)) + (place - (len(bars) - 1) / 2) * width
            ax.bar(x, mean, width, yerr=std, label=shown[method], color=_colour(method), error_kw={"linewidth": 0.7})
            drawn += [*(mean - std), *(mean + std)]
        for method, style in zip(clean, ("--", ":"), strict=False):
            ax.axhline(of(method, "none")[0], color="black", linestyle=style, linewidth=0.8, label=method)
        ax.set_ylim(*_limits(drawn))
        ax.set_ylabel(title)
    axes[0].set_title(f"{dataset}, {classifier}, learner {learner}")
    axes[0].legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    axes[1].set_xticks(range(len(adversaries)), [PAPER_LABELS[name] for name in adversaries])
    return figure


def _limits(drawn: Sequence[float]) -> tuple[float, float]:
    """Ends of an axis of shares: the message is in the differences, so only what is drawn, with a margin, is shown."""
    finite = np.asarray(drawn)[np.isfinite(drawn)]
    if not finite.size:
        return 0.0, 1.0
    margin = 0.05 * max(finite.max() - finite.min(), 0.1)
    return max(0.0, finite.min() - margin), min(1.0 + margin, finite.max() + margin)


def plot_scores(
    scores: ArrayLike,
    sources: Labels = None,
    malicious: ArrayLike = (),
    ax: Axes | None = None,
    title: str = "",
) -> Axes:
    """Draw a heat map of a matrix of distances between sources, such as ``d_scores_`` of `FLEA`.

    Args:
      scores: float[N, N].
      sources: N labels; None for positions.
      malicious: labels to print in red: those known to be manipulated, or those that were dropped.
      ax: axes to draw on; None makes a figure.
      title: of the axes.

    Returns:
      The matplotlib axes.

    Raises:
      ValueError: the matrix is not square, or has not as many rows as there are labels.
    """
    import matplotlib.pyplot as plt

    matrix = read_numbers("plot_scores", "scores", scores)
    names = np.arange(len(matrix)) if sources is None else read_labels("plot_scores", "sources", sources)
    marked = read_labels("plot_scores", "malicious", malicious).tolist() if np.size(malicious) else []
    if matrix.shape != (len(names), len(names)):
        fail("plot_scores", "scores", f"shape {matrix.shape}", f"({len(names)}, {len(names)}), one row per source")
    ax = plt.subplots(layout="constrained")[1] if ax is None else ax
    image = ax.imshow(matrix, cmap="viridis", vmin=0)
    ax.figure.colorbar(image, ax=ax, shrink=0.8)
    for ticks in (ax.set_xticks(range(len(names)), names), ax.set_yticks(range(len(names)), names)):
        for tick, label in zip(ticks, names, strict=True):
            tick.label1.set_color("red" if label in marked else "black")
    ax.set_title(title)
    return ax
