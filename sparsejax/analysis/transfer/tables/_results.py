"""The tidy table of results: one row for each finished downstream run."""

# pandas declares unions that are too wide for its results.
# pyright: reportArgumentType=false, reportAssignmentType=false

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING

import numpy as np

from sparsejax._checks import fail
from sparsejax.analysis._arrays import read_array, read_numbers
from sparsejax.analysis._frames import read_csv, refuse_missing_cells, require_columns

if TYPE_CHECKING:
    import pandas as pd

MODEL = ["arch", "regime", "method", "sparsity"]
CELL = [*MODEL, "dataset"]
REQUIRED = (*CELL, "seed", "value")

CATEGORIES = {
    "Dense": "dense",
    "GMP": "progressive",
    "WoodFisher": "progressive",
    "M-FAC": "progressive",
    "AC/DC": "regularization",
    "STR": "regularization",
    "RigL ERK 1x": "regularization",
    "RigL ERK 5x": "regularization",
    "LTH-T": "lottery_ticket",
}


class RepeatedRunsWarning(UserWarning):
    """Several rows have the same keys and seed; all of them count as runs."""


def read_results(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read a table of results.

    Args:
      path: CSV file with a header; columns as `check_results` wants them.

    Returns:
      Data frame.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a column is missing, or a value is not what it should be.
    """
    return check_results(read_csv("read_results", path), f"read_results: file {str(path)!r}")


def check_upstream(function: str, upstream: pd.DataFrame) -> pd.DataFrame:
    """Check a table of upstream accuracies, one row for each (arch, method, sparsity).

    Raises:
      ValueError: a missing column or cell, a figure that is not a fraction in (0, 1), or a model twice.
    """
    keys = ["arch", "method", "sparsity"]
    require_columns(function, "upstream", upstream, (*keys, "accuracy"))
    upstream = upstream.loc[:, [*keys, "accuracy"]]
    refuse_missing_cells(function, "upstream", upstream, (*keys, "accuracy"))
    numbers = {name: read_numbers(function, f"upstream[{name!r}]", upstream[name]) for name in ("sparsity", "accuracy")}
    known = numbers["accuracy"]
    if not ((known > 0) & (known < 1)).all():
        fail(function, "upstream", f"accuracies up to {known.max():g}", "fractions in (0, 1)")
    upstream = upstream.assign(**numbers)
    twice = upstream.duplicated(keys)
    if twice.any():
        model = ", ".join(map(str, upstream.loc[twice, keys].iloc[0]))
        fail(function, "upstream", f"two rows for ({model})", "one for each model")
    return upstream


def check_results(results: pd.DataFrame, function: str = "check_results") -> pd.DataFrame:
    """Check a table of results, and add the columns that can be.

    Args:
      results: data frame with the columns

        * ``arch``: name of the network,
        * ``regime``: "linear" or "full" (others are kept apart in the same way),
        * ``method``: pruning method, "Dense" for the unpruned network,
        * ``sparsity``: fraction of pruned weights in [0, 1),
        * ``dataset``, ``seed``,
        * ``value``: test accuracy, a fraction in [0, 1],
        * optionally ``category`` of the method (filled in for the published methods, else "other"), ``metric`` (one
          for each data set), and ``repeat``, which tells apart rows of equal keys and seed.
      function: for messages.

    Returns:
      A copy, with column ``category``.

    Raises:
      ValueError: no row, a missing column, a missing cell, or a value out of range; the row is named.
    """
    require_columns(function, "results", results, REQUIRED)
    if not len(results):
        fail(function, "results", "no row", "one row for each run")
    optional = [name for name in ("category", "metric", "repeat") if name in results]
    refuse_missing_cells(function, "results", results, (*REQUIRED, *optional))
    results = results.copy()
    for name, low, high in (("value", 0.0, 1.0), ("sparsity", 0.0, np.nextafter(1, 0))):
        column = read_numbers(function, f"results[{name!r}]", results[name])
        bad = ~((column >= low) & (column <= high))
        if bad.any():
            got, where = f"value {column[bad][0]:g}", f"First in row {int(bad.argmax())}."
            fail(function, f"results[{name!r}]", got, "fractions", f"Are these percent? {where}")
        results[name] = column
    for name in (*CELL, "seed", *optional):
        if name != "sparsity":  # categorical and nullable columns as plain ones: groups are those that occur
            results[name] = read_array(function, f"results[{name!r}]", results[name])[0].tolist()
    if "category" not in results:
        results["category"] = results["method"].map(CATEGORIES).fillna("other")
    keys = [*CELL, "seed", *(name for name in ("repeat",) if name in results)]
    repeated = results.duplicated(keys, keep=False)
    if repeated.any():
        text = f"{function}: {int(repeated.sum())} rows share keys and seed; each counts as a run."
        warnings.warn(text, RepeatedRunsWarning, stacklevel=3)
    return results
