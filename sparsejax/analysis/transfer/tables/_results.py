"""The tidy table of results: one row for each finished downstream run."""

# pandas declares unions that are too wide for its results.
# pyright: reportArgumentType=false

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sparsejax._checks import fail
from sparsejax._extras import require

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
    path = Path(path)
    if not path.is_file():
        fail("read_results", "path", f"value {str(path)!r}", "an existing CSV file", error=FileNotFoundError)
    return check_results(require("pandas", "read_results").read_csv(path), "read_results")


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
      ValueError: no row, a missing column, NaN, or a value out of range.
    """
    missing = [name for name in REQUIRED if name not in getattr(results, "columns", ())]
    if missing:
        fail(function, "results", f"no column {', '.join(missing)}", f"the columns {', '.join(REQUIRED)}")
    if not len(results):
        fail(function, "results", "no row", "one row for each run")
    for name in REQUIRED:
        gaps = results[name].isna().to_numpy()
        if gaps.any():
            fail(function, f"results[{name!r}]", f"{gaps.sum()} missing values", "none", _where(results, gaps))
    for name, low, high in (("value", 0.0, 1.0), ("sparsity", 0.0, np.nextafter(1, 0))):
        column = results[name].to_numpy(np.float64)
        bad = ~((column >= low) & (column <= high))
        if bad.any():
            got = f"value {column[bad][0]:g}"
            fail(function, f"results[{name!r}]", got, "fractions", f"Are these percent? {_where(results, bad)}")
    results = results.copy()
    if "category" not in results:
        results["category"] = results["method"].map(CATEGORIES).fillna("other")
    keys = [*CELL, "seed", *(name for name in ("repeat",) if name in results)]
    repeated = results.duplicated(keys, keep=False)
    if repeated.any():
        text = f"{function}: {int(repeated.sum())} rows share keys and seed; each counts as a run."
        warnings.warn(text, RepeatedRunsWarning, stacklevel=3)
    return results


def _where(results: pd.DataFrame, bad: np.ndarray) -> str:
    return f"First in row {int(np.flatnonzero(bad)[0])}."
