"""Cells: the runs of one model on one data set, averaged, and set against the dense model."""

# pandas declares unions that are too wide for its results.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sparsejax._checks import fail
from sparsejax.analysis.transfer._metrics import relative_error_increase
from sparsejax.analysis.transfer.tables._results import CELL, check_results

if TYPE_CHECKING:
    import pandas as pd

# Means are rounded before they are compared, so that the order of a sum does not decide.
DECIMALS = 9
# For functions that need accuracies only: no dense error is too small.
ANY_ERROR = 1e-12


def cells(
    results: pd.DataFrame, *, baseline: str = "Dense", min_error: float | None = None, below: str = "floor"
) -> pd.DataFrame:
    """Average over seeds, and compare each model with the dense one of the same network, regime and data set.

    mean = mean over runs; acc_diff = mean - dense_mean; rel_err_increase = -acc_diff / (1 - dense_mean)

    Args:
      results: one row for each run, see `check_results`. Any number of seeds; ``n_runs`` says how many.
      baseline: method to compare with.
      min_error, below: as for `relative_error_increase`.

    Returns:
      Data frame, one row for each (arch, regime, method, sparsity, dataset), sorted: ``category``, ``metric`` (if
      present), ``n_runs``, ``mean``, ``std`` (n - 1; NaN for one run), ``dense_mean``, ``acc_diff``,
      ``rel_err_increase``. The standard deviation is over downstream runs only: each cell has one upstream
      checkpoint, whose variation is not included.

    Raises:
      ValueError: a bad table; a cell without a baseline, or with several; a dense error of 0 without ``min_error``.

    Source: Iofinova et al. 2022; definitions in this project's data description.

    >>> import pandas as pd
    >>> row = lambda method, s, seed, v: dict(arch="a", regime="full", method=method, sparsity=s, dataset="d",
    ...                                       seed=seed, value=v)
    >>> runs = [row("Dense", 0.0, 0, 0.9), row("GMP", 0.9, 0, 0.84), row("GMP", 0.9, 1, 0.86)]
    >>> cells(pd.DataFrame(runs))[["method", "n_runs", "mean", "rel_err_increase"]].round(6).values.tolist()
    [['Dense', 1, 0.9, 0.0], ['GMP', 2, 0.85, 0.5]]
    """
    results = check_results(results, "cells")
    described = [name for name in ("category", "metric") if name in results]
    grouped = results.groupby(CELL, sort=True)
    for name in described:
        several = grouped[name].nunique()
        if (several > 1).any():
            fail("cells", f"results[{name!r}]", f"several values in {_name(several.idxmax())}", "one for each cell")
    table = grouped["value"].agg(n_runs="count", mean="mean", std="std").reset_index()
    for name in reversed(described):
        table.insert(len(CELL), name, grouped[name].first().to_numpy())
    table["mean"] = table["mean"].round(DECIMALS)
    table["dense_mean"] = _dense_means(table, baseline)
    table["acc_diff"] = (table["mean"] - table["dense_mean"]).round(DECIMALS)
    if min_error is None and (table["dense_mean"] >= 1).any():
        where = _name(table.loc[table["dense_mean"] >= 1, CELL].iloc[0])
        fail("cells", f"the {baseline} model in {where}", "an error of 0", "errors above 0, or min_error")
    table["rel_err_increase"] = relative_error_increase(
        table["mean"].to_numpy(), table["dense_mean"].to_numpy(), min_error=min_error, below=below
    )
    return table


def _dense_means(table: pd.DataFrame, baseline: str) -> Any:
    keys = ["arch", "regime", "dataset"]
    dense = table[table["method"] == baseline]
    twice = dense.duplicated(keys)
    if twice.any():
        fail("cells", f"baseline {baseline!r}", f"several sparsities in {_name(dense[twice][keys].iloc[0])}", "one")
    means = dense.set_index(keys)["mean"].to_dict()
    wanted = list(table[keys].itertuples(index=False, name=None))
    for key in wanted:
        if key not in means:
            fail("cells", f"baseline {baseline!r}", f"no run in {_name(key)}", "one for every network, regime and task")
    return [means[key] for key in wanted]


def _name(key: Any) -> str:
    return "(" + ", ".join(map(str, key)) + ")"


def seed_noise(results: pd.DataFrame) -> pd.DataFrame:
    """Return how much a cell varies over downstream seeds.

    Args:
      results: one row for each run.

    Returns:
      Data frame, one row for each (arch, regime): ``n_cells`` with at least two runs, and ``mean``, ``median`` and
      ``max`` of their standard deviations.
    """
    results = check_results(results, "seed_noise")
    keys = ["arch", "regime"]
    spread = results.groupby(CELL)["value"].std().dropna().reset_index()
    return spread.groupby(keys)["value"].agg(n_cells="count", mean="mean", median="median", max="max").reset_index()
