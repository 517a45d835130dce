"""Relations: difficulty of a task, accuracy upstream, and the order of methods under the other regime."""

# pandas declares unions that are too wide for its results.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsejax._checks import fail
from sparsejax._extras import require
from sparsejax.analysis.transfer.tables._cells import ANY_ERROR, cells
from sparsejax.analysis.transfer.tables._results import MODEL, check_upstream

if TYPE_CHECKING:
    import pandas as pd


def task_difficulty(results: pd.DataFrame, *, baseline: str = "Dense") -> pd.DataFrame:
    """Return what full fine-tuning gains over a linear classifier, for the dense model.

    difficulty = dense accuracy under "full" - dense accuracy under "linear"

    Args:
      results: one row for each run, with both regimes of the dense method.
      baseline: the dense method.

    Returns:
      Data frame, one row for each (arch, dataset), hardest first: ``linear``, ``full``, ``difficulty``.

    Raises:
      ValueError: no data set with both regimes.
    """
    table = cells(results, baseline=baseline, min_error=ANY_ERROR)
    dense = table[table["method"] == baseline]
    wide = dense.pivot(index=["arch", "dataset"], columns="regime", values="mean")
    if not {"linear", "full"} <= set(wide.columns) or wide.dropna().empty:
        fail(
            "task_difficulty", "results", f"regimes {sorted(wide.columns)} of {baseline!r}", "both 'linear' and 'full'"
        )
    wide = wide[["linear", "full"]].dropna().reset_index()
    wide.columns.name = None
    wide["difficulty"] = (wide["full"] - wide["linear"]).round(9)
    return wide.sort_values(["arch", "difficulty"], ascending=[True, False], ignore_index=True)


def difficulty_correlation(
    results: pd.DataFrame, *, baseline: str = "Dense", **options: float | str | None
) -> pd.DataFrame:
    """Correlate the relative error increase with the difficulty of the task, for each model, over data sets.

    Negative: the model gains most (or loses least) on hard tasks.

    Args:
      results: one row for each run.
      baseline: the dense method.
      **options: ``min_error`` and ``below``, as for `cells`.

    Returns:
      Data frame, one row for each sparse model: ``n_datasets``, ``pearson_r``, ``pearson_p``, ``spearman_rho``,
      ``spearman_p``, and the least-squares ``slope`` of r on difficulty. Models on fewer than three data sets are left
      out. A correlation with a constant side is NaN.
    """
    difficulty = task_difficulty(results, baseline=baseline)
    table = cells(results, baseline=baseline, **options)
    return correlate_cells(table[table["method"] != baseline], difficulty)


def correlate_cells(table: pd.DataFrame, difficulty: pd.DataFrame) -> pd.DataFrame:
    """Return what `difficulty_correlation` returns, from the tables of `cells` and `task_difficulty`."""
    stats = require("scipy.stats", "difficulty_correlation")
    table = table.join(difficulty.set_index(["arch", "dataset"])["difficulty"], on=["arch", "dataset"])
    rows = []
    for key, part in table.dropna(subset=["difficulty", "rel_err_increase"]).groupby(MODEL, sort=True):
        if len(part) < 3:
            continue
        x, y = part["difficulty"].to_numpy(), part["rel_err_increase"].to_numpy()
        row = dict(zip(MODEL, key, strict=True)) | {"n_datasets": len(part)}
        row |= _correlation("pearson_r", "pearson_p", stats.pearsonr, x, y)
        row |= _correlation("spearman_rho", "spearman_p", stats.spearmanr, x, y)
        rows.append(row | {"slope": stats.linregress(x, y).slope if np.ptp(x) > 0 else np.nan})
    return require("pandas", "difficulty_correlation").DataFrame(rows)


def _correlation(statistic: str, p: str, test: Callable[..., Any], x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Return a correlation and its p-value by name; NaN where one side is constant, which has no order."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return {statistic: np.nan, p: np.nan}
    result = test(x, y)
    return {statistic: result.statistic, p: result.pvalue}


def upstream_correlation(results: pd.DataFrame, upstream: pd.DataFrame) -> pd.DataFrame:
    """Correlate the accuracy on the upstream task with that of transfer, over models.

    Pearson on the logit scale: for each data set logit(a) minus its mean over models, averaged over data sets, against
    logit of the upstream accuracy; and Spearman of the mean accuracies.

    Args:
      results: one row for each run.
      upstream: data frame with columns ``arch``, ``method``, ``sparsity`` and ``accuracy``, a fraction.

    Returns:
      Data frame, one row for each (arch, regime): ``n_models`` that both tables have (look at it), ``pearson_logit``,
      ``pearson_p``, ``spearman_rho``, ``spearman_p``. A correlation with a constant side is NaN.

    Raises:
      ValueError: a missing column or cell, a figure that is not a fraction in (0, 1), a model twice, or fewer than
        three models in common.

    Source: Kornblith, Shlens & Le 2019, "Do better ImageNet models transfer better?", section 4.1.
    """
    stats = require("scipy.stats", "upstream_correlation")
    known = check_upstream("upstream_correlation", upstream).set_index(["arch", "method", "sparsity"])["accuracy"]
    table = (
        cells(results, min_error=ANY_ERROR).join(known, on=["arch", "method", "sparsity"]).dropna(subset=["accuracy"])
    )
    rows = []
    for (arch, regime), part in table.groupby(["arch", "regime"], sort=True):
        wide = part.pivot(index=["method", "sparsity"], columns="dataset", values="mean").dropna(axis=1)
        if len(wide) < 3:
            fail("upstream_correlation", f"{arch}, {regime}", f"{len(wide)} models in both tables", "at least 3")
        upper = part.groupby(["method", "sparsity"])["accuracy"].first().loc[wide.index].to_numpy()
        logits = _logit(wide.to_numpy())
        row = {"arch": arch, "regime": regime, "n_models": len(wide), "n_datasets": wide.shape[1]}
        centred = (logits - logits.mean(axis=0)).mean(axis=1)
        row |= _correlation("pearson_logit", "pearson_p", stats.pearsonr, centred, _logit(upper))
        means = wide.to_numpy().mean(axis=1)
        rows.append(row | _correlation("spearman_rho", "spearman_p", stats.spearmanr, means, upper))
    return require("pandas", "upstream_correlation").DataFrame(rows)


def regime_agreement(results: pd.DataFrame, *, baseline: str = "Dense", **options: float | str | None) -> pd.DataFrame:
    """Return how far the two regimes order the methods alike, by mean relative error increase.

    1: the same order; 0: unrelated; -1: reversed.

    Args:
      results: one row for each run.
      baseline: the dense method, left out.
      **options: ``min_error`` and ``below``, as for `cells`.

    Returns:
      Data frame, one row for each (arch, sparsity) with at least three methods under both regimes, and one with
      sparsity NaN for all sparse models together: ``n_models``, ``kendall_tau``, ``kendall_p``, ``spearman_rho``,
      ``spearman_p``. A correlation with a constant side is NaN.

    Source: Kendall 1938, "A new measure of rank correlation".
    """
    stats = require("scipy.stats", "regime_agreement")
    table = cells(results, baseline=baseline, **options)
    table = table[table["method"] != baseline]
    means = table.groupby(["arch", "sparsity", "method", "regime"])["rel_err_increase"].mean().unstack("regime")
    if not {"linear", "full"} <= set(means.columns):
        fail("regime_agreement", "results", f"regimes {sorted(means.columns)}", "both 'linear' and 'full'")
    means = means[["linear", "full"]].dropna().reset_index()
    rows = []
    for arch, part in means.groupby("arch"):
        levels = [(level, group) for level, group in part.groupby("sparsity")] + [(np.nan, part)]
        for level, group in levels:
            if len(group) < 3:
                continue
            x, y = group["linear"].to_numpy(), group["full"].to_numpy()
            row = {"arch": arch, "sparsity": level, "n_models": len(group)}
            row |= _correlation("kendall_tau", "kendall_p", stats.kendalltau, x, y)
            rows.append(row | _correlation("spearman_rho", "spearman_p", stats.spearmanr, x, y))
    return require("pandas", "regime_agreement").DataFrame(rows)


def _logit(p: np.ndarray) -> np.ndarray:
    clipped = np.clip(p, 1e-6, 1 - 1e-6)
    return np.log(clipped / (1 - clipped))
