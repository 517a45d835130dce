"""Results of a study as tables: means over seeds, the worst case over adversaries, agreement with published ones."""

# pandas declares unions that are too wide for its results.
# pyright: reportAttributeAccessIssue=false, reportReturnType=false

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsejax._checks import fail
from sparsejax.analysis._frames import refuse_missing_cells, require_columns
from sparsejax.analysis.multisource._adversaries import ADVERSARIES

if TYPE_CHECKING:
    import pandas as pd

_RUN = ["dataset", "n_sources", "n_malicious", "classifier", "learner", "method", "metric"]
RESULT_COLUMNS = (*_RUN, "adversary", "seed", "value")
_KEYS = ["dataset", "n_sources", "n_malicious", "adversary", "learner", "classifier", "method", "metric"]
SUMMARY_COLUMNS = (*_KEYS, "mean", "std", "count")
_VERSION = "version"  # "corrected" where a method is not the published one; absent from published tables
_CLEAN = ("original", "oracle")  # training sets without manipulated sources


def worst_case(results: pd.DataFrame) -> pd.DataFrame:
    """Return for each seed the worst value over the adversaries, as further rows with adversary "worst".

    The smallest accuracy and AUC, the largest of all other metrics, each separately. "original" and "oracle" are taken
    from the runs without manipulation. Empty unless ``results`` has all adversaries.

    Args:
      results: data frame of `run_study`.

    Source: Iofinova et al. 2022, table 1.
    """
    _check("worst_case", "results", results, RESULT_COLUMNS)
    if not set(ADVERSARIES) <= set(results["adversary"]):
        return results[:0]
    results = _with_version(results)
    used = results[~results["method"].isin(_CLEAN) | (results["adversary"] == "none")]
    sign = np.where(used["metric"].isin(("accuracy", "auc")), -1.0, 1.0)
    highest = used.assign(value=used["value"] * sign, sign=sign).groupby([*_RUN, _VERSION, "seed", "sign"], sort=False)
    rows = highest["value"].max().reset_index()
    return rows.assign(value=rows["value"] * rows["sign"], adversary="worst")[list(results.columns)]


def summarise(results: pd.DataFrame) -> pd.DataFrame:
    """Return mean, population standard deviation and count over seeds, for each adversary and the worst case.

    Args:
      results: data frame of `run_study`.

    Returns:
      Data frame with the columns of the published results: dataset, n_sources, n_malicious, adversary, learner,
      classifier, method, metric, mean, std, count; and ``version``, "corrected" for a method that is not the
      published one.
    """
    import pandas as pd

    _check("summarise", "results", results, RESULT_COLUMNS)
    worst = worst_case(results)
    every = pd.concat([_with_version(results), worst]) if len(worst) else _with_version(results)
    groups = every.groupby([*_KEYS, _VERSION], sort=False)["value"]
    return groups.agg(mean="mean", std=lambda values: values.std(ddof=0), count="count").reset_index()


def results_table(summary: pd.DataFrame, adversary: str = "worst") -> pd.DataFrame:
    """Return accuracy % / demographic parity violation %, with standard deviations, as the paper prints them.

    Args:
      summary: data frame of `summarise`, or of published results.
      adversary: one of the summary.

    Returns:
      Data frame of text: one row per data set, setting and learner, one column per method; "dro (corrected)" is not
      the published method.

    Raises:
      ValueError: a missing column or cell, or nothing in ``summary`` for that adversary.
    """
    _check("results_table", "summary", summary, SUMMARY_COLUMNS)
    chosen: Any = summary[(summary["adversary"] == adversary) & summary["metric"].isin(("accuracy", "dp_violation"))]
    if chosen.empty:
        known = ", ".join(dict.fromkeys(summary["adversary"]))
        fail("results_table", "adversary", f"value {adversary!r}", f"one of the summary's: {known}")
    rows = ["dataset", "n_sources", "n_malicious", "classifier", "learner"]
    percent = chosen.assign(
        method=labels(chosen),
        text=[f"{100 * m:.1f}±{100 * s:.1f}" for m, s in zip(chosen["mean"], chosen["std"], strict=True)],
    )
    wide = percent.pivot_table(index=[*rows, "method"], columns="metric", values="text", aggfunc="first", sort=False)
    joined = wide["accuracy"] + " / " + wide["dp_violation"]
    return joined.unstack("method", sort=False).fillna("")


def compare_published(results: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """Compare means over seeds with published ones; a corrected method with the published one.

    Args:
      results: data frame of `run_study`.
      published: data frame with the columns of `summarise`.

    Returns:
      Data frame, one row for each key in both: ``mean``, ``published``, their ``difference``, ``two_se`` (two standard
      errors of the difference, as if the seeds were drawn again; one seed gets the published spread), and
      ``agrees``: |difference| at most ``two_se`` or 5e-4, the rounding of values published with three decimals.

    Raises:
      ValueError: a missing column or cell, or two rows of ``published`` for the same combination.
    """
    ours = summarise(results)
    _check("compare_published", "published", published, SUMMARY_COLUMNS)
    refuse_missing_cells("compare_published", "published", published, ["mean", "std"])
    twice = published.duplicated(_KEYS)
    if twice.any():
        shown = f"two rows for ({', '.join(map(str, published.loc[twice, _KEYS].iloc[0]))})"
        fail("compare_published", "published", shown, "one row for each combination")
    both = ours.merge(published.drop(columns=_VERSION, errors="ignore"), on=_KEYS, suffixes=("", "_published"))
    both["difference"] = both["mean"] - both["mean_published"]
    spread = both["std"].where(both["count"] > 1, both["std_published"])
    variance = spread**2 / both["count"] + both["std_published"] ** 2 / both["count_published"]
    both["two_se"] = 2 * np.sqrt(variance)
    both["agrees"] = both["difference"].abs() <= np.maximum(both["two_se"], 5e-4)
    return both.rename(columns={"mean_published": "published"})[
        [*_KEYS, _VERSION, "count", "mean", "published", "difference", "two_se", "agrees"]
    ]


def agreement(comparison: pd.DataFrame) -> pd.DataFrame:
    """Count the rows of `compare_published` that agree for each data set, classifier, method and metric: "3 of 4"."""
    named = comparison.assign(method=labels(comparison))
    groups = named.groupby(["dataset", "classifier", "method", "metric"], sort=False)["agrees"]
    counts = groups.agg(lambda agrees: f"{int(agrees.sum())} of {len(agrees)}")
    return counts.unstack("metric", sort=False).fillna("")


def labels(frame: pd.DataFrame) -> pd.Series:
    """Return the method of each row, with its version if there is one: "dro (corrected)"."""
    version = _with_version(frame)[_VERSION]
    return frame["method"] + version.map(lambda name: f" ({name})" if name else "")


def _with_version(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(**{_VERSION: frame[_VERSION].fillna("") if _VERSION in frame else ""})


def _check(function: str, operand: str, frame: pd.DataFrame, names: Sequence[str]) -> None:
    require_columns(function, operand, frame, names)
    refuse_missing_cells(function, operand, frame, [name for name in names if name not in ("value", "mean", "std")])
