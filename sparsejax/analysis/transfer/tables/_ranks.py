"""Ranks of methods at one sparsity, over data sets."""

# pandas declares unions that are too wide for its results.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sparsejax._checks import fail
from sparsejax._extras import require
from sparsejax.analysis.transfer.tables._cells import ANY_ERROR, cells
from sparsejax.analysis.transfer.tables._compare import sparsity_levels

if TYPE_CHECKING:
    import pandas as pd


def rank_methods(results: pd.DataFrame, *, baseline: str = "Dense", tolerance: float = 0.0) -> pd.DataFrame:
    """Rank the methods of one sparsity and the dense model on each data set, and average.

    1 is the highest accuracy; ties share the mean rank.

    Args:
      results: one row for each run.
      baseline: the dense method, ranked at every sparsity.
      tolerance: sparsities that differ by no more are ranked together, under the largest of them: 0.01 puts 0.89
        beside 0.90. By default they are apart.

    Returns:
      Data frame, one row for each (arch, regime, sparsity, method) where at least two methods and the dense model can
      be ranked, best first: ``mean_rank``, ``n_methods``, ``n_datasets`` (those that all methods have), and Friedman's
      ``friedman_chi2`` and ``friedman_p`` of that level; NaN where all methods tie on every data set.

    Raises:
      ValueError: as `cells`; no sparsity with two methods; two models of one method at one level.

    Source: Demsar 2006, section 3.2; Friedman 1937.
    """
    stats = require("scipy.stats", "rank_methods")
    table = cells(results, baseline=baseline, min_error=ANY_ERROR)
    dense = table[table["method"] == baseline]
    sparse = table[table["method"] != baseline].copy()
    sparse["level"] = sparsity_levels(sparse["sparsity"].to_numpy(), tolerance)
    rows = []
    for (arch, regime, level), part in sparse.groupby(["arch", "regime", "level"], sort=True):
        if part["method"].nunique() < 2:
            continue
        twice = part.duplicated(["method", "dataset"])
        if twice.any():
            name = part[twice]["method"].iloc[0]
            fail("rank_methods", "tolerance", f"several {name!r} models at sparsity {level:g}", "a smaller value")
        wide = part.pivot(index="dataset", columns="method", values="mean")
        of_dense = dense[(dense["arch"] == arch) & (dense["regime"] == regime)]
        wide[baseline] = of_dense.set_index("dataset")["mean"]
        wide = wide.dropna()
        if len(wide) < 2:
            fail(
                "rank_methods", f"sparsity {level:g} of {arch}, {regime}", f"{len(wide)} common data sets", "2 or more"
            )
        ranks = np.apply_along_axis(stats.rankdata, 1, -wide.to_numpy()).mean(axis=0)
        tied = not np.ptp(wide.to_numpy(), axis=1).any()  # no method differs: the statistic is 0 / 0
        chi2, p = (np.nan, np.nan) if tied else stats.friedmanchisquare(*wide.to_numpy().T)
        shared = {"arch": arch, "regime": regime, "sparsity": level}
        level_rows = [
            shared | {"method": method, "mean_rank": float(rank), "n_methods": wide.shape[1], "n_datasets": len(wide)}
            for method, rank in zip(wide.columns, ranks, strict=True)
        ]
        rows += [row | {"friedman_chi2": chi2, "friedman_p": p} for row in sorted(level_rows, key=_by_rank)]
    if not rows:
        fail("rank_methods", "results", "no sparsity with two methods", "at least one")
    return require("pandas", "rank_methods").DataFrame(rows)


def _by_rank(row: dict[str, Any]) -> tuple[float, str]:
    return row["mean_rank"], row["method"]
