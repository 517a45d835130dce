"""Sparse against dense, and method against method, over data sets and over seeds."""

# pandas declares unions that are too wide for its results.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportGeneralTypeIssues=false, reportIndexIssue=false

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsejax._checks import fail
from sparsejax._extras import require
from sparsejax.analysis._frames import one_of
from sparsejax.analysis.transfer.tables._cells import ANY_ERROR, cells
from sparsejax.analysis.transfer.tables._results import CELL, MODEL, check_results
from sparsejax.analysis.transfer.tables._signed_rank import holm, wilcoxon_exact

if TYPE_CHECKING:
    import pandas as pd


def compare_to_dense(results: pd.DataFrame, *, baseline: str = "Dense", correction: str = "holm") -> pd.DataFrame:
    """Test each model against the dense one over data sets.

    Args:
      results: one row for each run.
      baseline: the dense method.
      correction: "holm", over the models of one (arch, regime), or "none".

    Returns:
      Data frame, one row for each sparse model: ``n_datasets``, ``mean_acc_diff`` (positive: better than dense),
      ``n_better``, ``p`` of the two-sided exact signed-rank test, and ``p_corrected``.

    Raises:
      ValueError: an unknown correction, or as `cells`.

    Source: Demsar 2006, "Statistical comparisons of classifiers over multiple data sets".
    """
    if correction not in ("holm", "none"):
        fail("compare_to_dense", "correction", f"value {correction!r}", "'holm' or 'none'")
    table = cells(results, baseline=baseline, min_error=ANY_ERROR)
    table = table[table["method"] != baseline]
    rows = [
        dict(zip(MODEL, key, strict=True)) | _difference(part["acc_diff"].to_numpy())
        for key, part in table.groupby(MODEL, sort=True)
    ]
    tests = require("pandas", "compare_to_dense").DataFrame(rows)
    if not rows:
        fail("compare_to_dense", "results", f"no method but {baseline!r}", "at least one sparse model")
    corrected = holm if correction == "holm" else np.asarray
    tests["p_corrected"] = tests.groupby(["arch", "regime"])["p"].transform(lambda p: corrected(p))
    return tests


def compare_methods(
    results: pd.DataFrame, methods: str | Sequence[str], against: str | Sequence[str], *, tolerance: float = 0.0
) -> pd.DataFrame:
    """Compare methods at the same sparsity over data sets.

    Args:
      results: one row for each run.
      methods: a method, or several whose accuracies are averaged for each data set.
      against: the same for the other side.
      tolerance: sparsities that differ by no more count as the same, such as 0.89 and 0.90.

    Returns:
      Data frame, one row for each (arch, regime, sparsity) where both sides are complete: ``n_datasets``,
      ``mean_acc_diff`` (positive: ``methods`` better), ``n_better``, ``p`` of the exact signed-rank test, not
      corrected.

    Raises:
      ValueError: a method that is not in the table, or no common sparsity.
    """
    results = check_results(results, "compare_methods")
    table = results.groupby(CELL)["value"].mean().reset_index()
    table["level"] = sparsity_levels(table["sparsity"].to_numpy(), tolerance)
    sides = [[one] if isinstance(one, str) else list(one) for one in (methods, against)]
    names = [*sides[0], *sides[1]]
    for name in names:
        one_of("compare_methods", "methods", name, sorted(set(table["method"])))
    rows = []
    for (arch, regime, level), part in table.groupby(["arch", "regime", "level"], sort=True):
        wide = part.pivot_table(index="dataset", columns="method", values="value")
        if all(name in wide for name in names):
            wide = wide.dropna(subset=names)
            one, other = (wide[names].mean(axis=1).to_numpy() for names in sides)
            rows.append({"arch": arch, "regime": regime, "sparsity": level} | _difference(one - other))
    if not rows:
        fail("compare_methods", "results", f"no sparsity common to {sides[0]} and {sides[1]}", "at least one")
    return require("pandas", "compare_methods").DataFrame(rows)


def win_tie_loss(results: pd.DataFrame, *, baseline: str = "Dense", alpha: float = 0.05) -> pd.DataFrame:
    """Count on how many data sets a model is significantly better than, like, or worse than the dense one, over seeds.

    Welch's t-test for each data set, not corrected. The seeds are those of the downstream runs: a win says that this
    checkpoint is better than that one, not that the method is.

    Args:
      results: one row for each run.
      baseline: the dense method.
      alpha: level of the test.

    Returns:
      Data frame, one row for each sparse model: ``win``, ``tie``, ``loss``, ``untested`` (fewer than two runs on one
      side).

    Source: Welch 1947, "The generalization of 'Student's' problem".
    """
    stats = require("scipy.stats", "win_tie_loss")
    results = check_results(results, "win_tie_loss")
    cells(results, baseline=baseline, min_error=ANY_ERROR)  # names the cell without a baseline
    runs = {key: part.to_numpy() for key, part in results.groupby(CELL)["value"]}
    dense = {(k[0], k[1], k[4]): values for k, values in runs.items() if k[2] == baseline}
    counts: dict[tuple[Any, ...], dict[str, int]] = {}
    for key, values in runs.items():
        if key[2] == baseline:
            continue
        count = counts.setdefault(key[:4], dict.fromkeys(("win", "tie", "loss", "untested"), 0))
        count[_outcome(stats, values, dense[key[0], key[1], key[4]], alpha)] += 1
    rows = [dict(zip(MODEL, key, strict=True)) | count for key, count in counts.items()]
    return require("pandas", "win_tie_loss").DataFrame(rows)


def sparsity_levels(sparsity: np.ndarray, tolerance: float) -> np.ndarray:
    """Return the level of each sparsity: neighbours no further apart than ``tolerance`` share the largest of them.

    >>> sparsity_levels(np.array([0.75, 0.89, 0.9]), 0.01).tolist()
    [0.75, 0.9, 0.9]
    """
    values = np.unique(sparsity)
    starts = np.flatnonzero(np.diff(values, prepend=-1.0) > tolerance + 1e-12)
    stops = np.append(starts[1:], len(values))
    levels = np.repeat(values[stops - 1], stops - starts)
    return levels[np.searchsorted(values, sparsity)]


def _difference(difference: np.ndarray) -> dict[str, Any]:
    difference = np.round(difference, 9)
    better = int((difference > 0).sum())
    mean, p = float(difference.mean()), wilcoxon_exact(difference)
    return {"n_datasets": len(difference), "mean_acc_diff": mean, "n_better": better, "p": p}


def _outcome(stats: Any, values: np.ndarray, dense: np.ndarray, alpha: float) -> str:
    if min(len(values), len(dense)) < 2:
        return "untested"
    difference = values.mean() - dense.mean()
    if values.std() == 0 and dense.std() == 0:
        return "tie" if abs(difference) < 1e-9 else "win" if difference > 0 else "loss"
    p = stats.ttest_ind(values, dense, equal_var=False).pvalue
    return "tie" if p >= alpha else "win" if difference > 0 else "loss"
