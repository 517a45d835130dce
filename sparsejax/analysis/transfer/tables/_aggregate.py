"""Aggregates over data sets: one row for each model, and one for each category of methods."""

# pandas declares unions that are too wide for its results.
# pyright: reportArgumentType=false, reportCallIssue=false

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsejax._extras import require
from sparsejax.analysis.transfer.tables._cells import cells
from sparsejax.analysis.transfer.tables._results import MODEL
from sparsejax.analysis.transfer.tables._signed_rank import wilcoxon_exact
from sparsejax.data import DOWNSTREAM_DATASETS

if TYPE_CHECKING:
    import pandas as pd


def task_groups(datasets: Any, groups: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the group of each data set that has one; those of the published study by default."""
    known = {name: entry.group for name, entry in DOWNSTREAM_DATASETS.items()} if groups is None else groups
    return {name: known[name] for name in datasets if name in known}


def aggregate(
    results: pd.DataFrame,
    *,
    baseline: str = "Dense",
    groups: Mapping[str, str] | None = None,
    **options: float | str | None,
) -> pd.DataFrame:
    """Average over data sets, with the spread over them.

    rel_err_mean = mean over data sets of r, r = (dense error increase) / dense error; its standard error is
    sd(r) / sqrt(number of data sets), sd with n - 1

    Args:
      results: one row for each run, see `check_results`.
      baseline: method to compare with.
      groups: group of each data set; None: "fine_grained" and "general" for those of the published study (the
        grouping is this project's).
      **options: ``min_error`` and ``below``, as for `cells`.

    Returns:
      Data frame, one row for each (arch, regime, method, sparsity): ``category``, ``n_datasets``, ``n_runs``,
      ``mean_acc``, ``mean_acc_diff``, ``rel_err_mean``, ``rel_err_sem`` (NaN for one data set), ``rel_err_median`` (the
      mean is dominated by data sets with few errors), ``rel_err_GROUP`` for each group, ``n_better`` data sets, and
      ``wilcoxon_p``: two-sided exact signed-rank test of the accuracy differences, not corrected; NaN for the baseline.

    Raises:
      ValueError: as `cells`.

    Source: Iofinova et al. 2022, comparison over twelve data sets.
    """
    pd = require("pandas", "aggregate")
    table = cells(results, baseline=baseline, **options)
    group_of = task_groups(table["dataset"].unique(), groups)
    names = sorted(set(group_of.values()))
    rows = []
    for key, part in table.groupby(MODEL, sort=True):
        r = part["rel_err_increase"]
        row = dict(zip(MODEL, key, strict=True)) | {"category": part["category"].iloc[0]}
        row |= {"n_datasets": len(part), "n_runs": int(part["n_runs"].sum())}
        row |= {"mean_acc": part["mean"].mean(), "mean_acc_diff": part["acc_diff"].mean()}
        row |= {"rel_err_mean": r.mean(), "rel_err_sem": r.sem(), "rel_err_median": r.median()}
        for name in names:
            row[f"rel_err_{name}"] = r[(part["dataset"].map(group_of) == name).to_numpy()].mean()
        row["n_better"] = int((part["acc_diff"] > 0).sum())
        is_baseline = row["method"] == baseline
        row["wilcoxon_p"] = np.nan if is_baseline else wilcoxon_exact(part["acc_diff"])
        rows.append(row)
    return pd.DataFrame(rows)


def aggregate_categories(
    results: pd.DataFrame, *, baseline: str = "Dense", **options: float | str | None
) -> pd.DataFrame:
    """Average the relative error increase over all methods of a category and all data sets.

    Args:
      results: one row for each run.
      baseline: method to compare with; left out of the result.
      **options: ``min_error`` and ``below``, as for `cells`.

    Returns:
      Data frame, one row for each (arch, regime, category, sparsity): ``n_pairs`` of method and data set,
      ``rel_err_mean``, ``rel_err_sem`` over these pairs (they share data sets: read it as a spread),
      ``rel_err_median``.

    Source: the categories of Iofinova et al. 2022.
    """
    table = cells(results, baseline=baseline, **options)
    sparse = table[table["method"] != baseline]
    grouped = sparse.groupby(["arch", "regime", "category", "sparsity"], sort=True)["rel_err_increase"]
    return grouped.agg(n_pairs="count", rel_err_mean="mean", rel_err_sem="sem", rel_err_median="median").reset_index()
