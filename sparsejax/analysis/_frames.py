"""Tables of results: required columns, CSV files, and stored results."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsejax._checks import fail
from sparsejax._csv import csv_cell
from sparsejax._extras import require
from sparsejax._files import write_atomically

if TYPE_CHECKING:
    import pandas as pd


def require_columns(function: str, operand: str, frame: pd.DataFrame, names: Iterable[str]) -> None:
    """Refuse a table that lacks columns, naming the nearest ones that it has.

    Raises:
      ValueError: not a data frame, or a missing column.
    """
    names = tuple(names)
    if not hasattr(frame, "columns"):
        fail(function, operand, f"type {type(frame).__name__}", f"a data frame with the columns {', '.join(names)}")
    present = [str(name) for name in frame.columns]
    missing = [name for name in names if name not in present]
    if missing:
        near = [f"{n!r} for {m!r}" for m in missing for n in difflib.get_close_matches(m, present, 1)]
        hint = f"Did you mean {', '.join(near)}?" if near else f"It has {', '.join(present) or 'no columns'}."
        fail(function, operand, f"no column {', '.join(map(repr, missing))}", f"the columns {', '.join(names)}", hint)


def one_of(function: str, operand: str, value: Any, known: Iterable[Any]) -> None:
    """Refuse a name that is not known, naming the nearest one.

    >>> one_of("f", "metric", "acuracy", ["accuracy", "auc"])
    Traceback (most recent call last):
    ...
    ValueError: f: metric has value 'acuracy'; expected one of accuracy, auc. Did you mean 'accuracy'?
    """
    names = [str(name) for name in known]
    if str(value) not in names:
        near = difflib.get_close_matches(str(value), names, 1)
        hint = f"Did you mean {near[0]!r}?" if near else ""
        fail(function, operand, f"value {value!r}", f"one of {', '.join(names)}", hint)


def refuse_missing_cells(function: str, operand: str, frame: pd.DataFrame, names: Sequence[str]) -> None:
    """Refuse missing cells in some columns, naming the first row.

    Raises:
      ValueError: NaN, None or pandas.NA.
    """
    for name in names:
        gaps = frame[name].isna().to_numpy()
        if gaps.any():
            hint = f"First in row {int(gaps.argmax())}."
            fail(function, f"{operand}[{name!r}]", f"{gaps.sum()} missing values", "none", hint)


def read_csv(
    function: str,
    path: str | os.PathLike[str],
    names: Iterable[str] = (),
    numbers: Iterable[str] = (),
    **options: Any,
) -> pd.DataFrame:
    """Read a CSV file; every error names the file.

    Args:
      function: for messages.
      path: the file.
      names: columns that it must have.
      numbers: those of them that hold numbers.
      **options: of ``pandas.read_csv``.

    Raises:
      FileNotFoundError: no such file.
      ValueError: no table of text, or a missing column.
      OSError: a file that cannot be read.
    """
    path = Path(path)
    shown = f"file {str(path)!r}"
    if not path.is_file():
        fail(function, "path", f"value {str(path)!r}", "an existing CSV file", error=FileNotFoundError)
    try:
        frame = require("pandas", function).read_csv(path, **options)
    except (ValueError, OverflowError, MemoryError) as error:  # pandas' parsing errors are ValueErrors
        fail(function, shown, f"no readable table ({' '.join(str(error).split())})", "CSV with a header")
    require_columns(function, shown, frame, names)
    for name in numbers:
        if frame[name].dtype.kind not in "biuf":
            bad = require("pandas", function).to_numeric(frame[name], errors="coerce").isna() & frame[name].notna()
            got = f"{frame[name][bad].iloc[0]!r} in row {int(bad.to_numpy().argmax())} of column {name!r}"
            fail(function, shown, got, "numbers")
    return frame


def write_csv(frame: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Write a data frame as CSV without its index; text that a spreadsheet would run starts with an apostrophe."""
    safe = frame.rename(columns=csv_cell)
    for position, dtype in enumerate(safe.dtypes):
        if dtype.kind not in "biuf":
            safe.isetitem(position, safe.iloc[:, position].map(csv_cell))
    write_atomically(Path(path), safe.to_csv(index=False))


def read_stored(function: str, path: Path) -> Any:
    """Read a stored result, JSON; an error names the file.

    Raises:
      ValueError: a damaged file.
    """
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        hint = "Delete the file to compute it again."
        fail(function, f"file {str(path)!r}", f"damaged content ({error})", "a stored result", hint)
