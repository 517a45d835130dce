"""One page on a study: tables, tests and caveats."""

# pandas declares unions that are too wide for its results.
# pyright: reportArgumentType=false, reportGeneralTypeIssues=false

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsejax._files import write_atomically
from sparsejax.analysis._frames import write_csv
from sparsejax.analysis.transfer.tables._aggregate import aggregate, aggregate_categories
from sparsejax.analysis.transfer.tables._cells import cells, seed_noise
from sparsejax.analysis.transfer.tables._compare import compare_to_dense, win_tie_loss
from sparsejax.analysis.transfer.tables._ranks import rank_methods
from sparsejax.analysis.transfer.tables._relations import difficulty_correlation, regime_agreement, upstream_correlation
from sparsejax.analysis.transfer.tables._results import check_results

if TYPE_CHECKING:
    import pandas as pd

_PERCENT = ("mean_acc", "rel_err", "mean", "median", "max")


@dataclass(frozen=True)
class TransferReport:
    """Tables and caveats that `report` computed.

    Attributes:
      tables: data frames by name, fractions throughout: ``aggregates``, ``categories``, ``against_dense``, ``cells``
        always; ``ranks``, ``difficulty``, ``agreement``, ``noise``, ``upstream`` where the results allow them.
      left_out: name of a missing table -> the reason.
      caveats: limits of the conclusions.
    """

    tables: dict[str, Any]
    left_out: dict[str, str]
    caveats: list[str] = field(default_factory=list)

    def to_markdown(self) -> str:
        """Return the page: percent where the tables hold fractions of accuracy or error."""
        parts = ["# Transfer of sparse models", "", "Accuracies and error increases in percent or points.", ""]
        titles = {
            "aggregates": "Over data sets",
            "categories": "By category of method",
            "against_dense": "Against the dense model: exact signed-rank test over data sets",
            "ranks": "Mean ranks, 1 is best",
            "agreement": "Agreement of the regimes on the order of methods",
            "difficulty": "Error increase and difficulty of the task",
            "upstream": "Accuracy upstream and after transfer",
            "noise": "Standard deviation over downstream seeds",
        }
        for name, title in titles.items():
            if name in self.tables:
                parts += [f"## {title}", "", _markdown(self.tables[name]), ""]
        parts += [f"- {name} left out: {why}" for name, why in self.left_out.items()]
        parts += ["", "## Caveats", "", *(f"- {text}" for text in self.caveats), ""]
        return "\n".join(parts)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write ``report.md`` and each table as CSV in a folder; made if absent."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "report.md", self.to_markdown())
        for name, table in self.tables.items():
            write_csv(table, folder / f"{name}.csv")

    def __str__(self) -> str:
        return self.to_markdown()


def report(
    results: pd.DataFrame,
    *,
    baseline: str = "Dense",
    upstream: pd.DataFrame | None = None,
    groups: Mapping[str, str] | None = None,
    tolerance: float = 0.0,
    **options: float | str | None,
) -> TransferReport:
    """Compute every table that the results allow.

    Args:
      results: one row for each run, see `check_results`.
      baseline: the dense method.
      upstream: accuracies for `upstream_correlation`, or None.
      groups: group of each data set, as for `aggregate`.
      tolerance: as for `rank_methods`.
      **options: ``min_error`` and ``below``, as for `cells`.

    Returns:
      `TransferReport`; print it.

    Raises:
      ValueError: as `cells`.
    """
    results = check_results(results, "report")
    tables = {
        "aggregates": aggregate(results, baseline=baseline, groups=groups, **options),
        "categories": aggregate_categories(results, baseline=baseline, **options),
        "against_dense": compare_to_dense(results, baseline=baseline),
        "cells": cells(results, baseline=baseline, **options),
        "noise": seed_noise(results),
    }
    wins = win_tie_loss(results, baseline=baseline)
    tables["against_dense"] = tables["against_dense"].merge(wins, on=["arch", "regime", "method", "sparsity"])
    optional = {
        "ranks": lambda: rank_methods(results, baseline=baseline, tolerance=tolerance),
        "difficulty": lambda: difficulty_correlation(results, baseline=baseline, **options),
        "agreement": lambda: regime_agreement(results, baseline=baseline, **options),
        "upstream": lambda: upstream_correlation(results, upstream),
    }
    left_out = {}
    for name, compute in optional.items():
        if name == "upstream" and upstream is None:
            continue
        try:
            tables[name] = compute()
        except ValueError as error:  # the results lack what the table needs; the message says what
            left_out[name] = str(error)
    tables = {name: table for name, table in tables.items() if len(table)}
    return TransferReport(tables, left_out, _caveats(results) + _undefined(tables))


def _undefined(tables: dict[str, pd.DataFrame]) -> list[str]:
    """Return why numbers of the tables are NaN."""
    reasons = {
        "difficulty": (["pearson_r"], "where all tasks are equally hard, or the error increase is the same on all"),
        "agreement": (["kendall_tau"], "where all methods have the same mean error increase in a regime"),
        "upstream": (["spearman_rho"], "where all models have the same accuracy"),
        "ranks": (["friedman_p"], "where all methods tie on every data set"),
        "aggregates": (["rel_err_sem"], "for a single data set, which has no spread"),
        "cells": (["std"], "for a single run, which has no spread"),
    }
    return [
        f"{name}: {', '.join(columns)} is undefined (-) {why}."
        for name, (columns, why) in reasons.items()
        if name in tables and tables[name][columns].isna().any(axis=None)
    ]


def _caveats(results: pd.DataFrame) -> list[str]:
    caveats = [
        "A row of results is a downstream run. Where one upstream checkpoint stands behind all of them, a difference"
        " between methods includes the luck of that checkpoint and differences of recipe; the spread over seeds does"
        " not.",
        "Means of the relative error increase are dominated by data sets with few errors; read the medians too.",
        "Tests over data sets treat these as a sample of tasks, which a hand-picked list is not.",
    ]
    if "metric" in results and results["metric"].nunique() > 1:
        per = results.groupby("metric")["dataset"].unique()
        text = "; ".join(f"{metric}: {', '.join(sorted(names))}" for metric, names in per.items())
        caveats.append(f"Accuracy is not the same measure on every data set ({text}).")
    counts = results.groupby(["arch", "regime", "method", "sparsity", "dataset"]).size()
    if counts.nunique() > 1:
        caveats.append(f"Cells hold between {counts.min()} and {counts.max()} runs; each is averaged first.")
    if "selection" in results and (results["selection"] == "test").any():
        caveats.append("Some values were chosen on the test split, which is optimistic.")
    return caveats


def _markdown(table: pd.DataFrame) -> str:
    """A table for reading: at most two decimals for percents, four significant digits otherwise."""
    header = list(table.columns)
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    for row in table.itertuples(index=False):
        cells_ = [_text(name, value) for name, value in zip(header, row, strict=True)]
        lines.append("| " + " | ".join(cells_) + " |")
    return "\n".join(lines)


def _text(name: str, value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    if value != value:
        return "-"
    if name.startswith(_PERCENT) and name != "mean_rank":
        return f"{100 * value:.2f}"
    return f"{value:.4g}"
