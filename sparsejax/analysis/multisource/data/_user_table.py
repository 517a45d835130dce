"""The user's own table: a CSV file and the roles of its columns."""

# pandas declares unions that are too wide for its results.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsejax._checks import fail
from sparsejax.analysis._frames import read_csv, refuse_missing_cells, require_columns
from sparsejax.analysis.multisource._inputs import refuse_single_rows
from sparsejax.analysis.multisource.data._table import TabularDataset, encode

if TYPE_CHECKING:
    import pandas as pd

_FUNCTION = "load_table"
_MOST_CATEGORIES = 255


def load_table(
    path: str | Path,
    *,
    target: str,
    sensitive: str,
    source: str,
    numeric: Sequence[str] | None = None,
    categorical: Sequence[str] | None = None,
) -> tuple[TabularDataset, np.ndarray]:
    """Read a CSV file whose rows come from several sources.

    Target and sensitive attribute have two distinct values each; the second in sorted order is 1. Features are the
    sensitive attribute and the columns named; without ``numeric`` and ``categorical`` they are all others: columns of
    numbers as they are, text one-hot with the first category dropped, where a missing cell is a category "NA".

    Args:
      path: the file.
      target: column of the label.
      sensitive: column of the protected attribute.
      source: column that says where a row comes from.
      numeric: columns that are features as numbers.
      categorical: columns that are features as categories, numbers included.

    Returns:
      The table, encoded, and the source of each row.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a column that does not exist (the nearest is named) or has two roles; a target or sensitive attribute
        that is missing in a row or has not two distinct values; fewer than two sources, or one with a single row; a
        number that is missing; text with more than 255 distinct values.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
    ...     _ = file.write("site,sex,age,ill\\nA,f,30,no\\nA,m,40,yes\\nB,m,50,no\\nB,f,60,yes\\n")
    ...     file.flush()
    ...     data, site = load_table(file.name, target="ill", sensitive="sex", source="site")
    >>> data.columns, data.y.tolist(), data.a.tolist(), site.tolist()
    (('sex=m', 'age'), [0, 1, 0, 1], [0, 1, 1, 0], ['A', 'A', 'B', 'B'])
    """
    frame = read_csv(_FUNCTION, path)
    operand = f"file {str(path)!r}"
    roles = [target, sensitive, source]
    _check_roles(operand, frame, roles, [*(numeric or ()), *(categorical or ())])
    refuse_missing_cells(_FUNCTION, operand, frame, roles)
    y, a = (_binary(operand, frame[name], name) for name in (target, sensitive))
    labels = frame[source].to_numpy()
    _check_sources(operand, source, labels)
    if numeric is None and categorical is None:
        others = [name for name in frame.columns if name not in roles]
        numeric = [name for name in others if frame[name].dtype.kind in "iuf"]
        categorical = [name for name in others if name not in numeric]
    numbers = _numbers(operand, frame, numeric or [])
    for name in categorical or []:
        distinct = len(set(frame[name].tolist()))
        if distinct > _MOST_CATEGORIES:
            hint = "Name the features with numeric and categorical; on the command line --numeric and --categorical."
            expected = f"at most {_MOST_CATEGORIES} in a column of categories"
            fail(_FUNCTION, f"{operand}[{name!r}]", f"{distinct} distinct values", expected, hint)
    text = frame[list(categorical or [])]
    shown = f"{sensitive}={sorted(frame[sensitive].unique())[1]}"
    data = encode(Path(path).stem, text, a.astype(bool), numbers, y.astype(bool), shown)
    return data, labels


def _check_roles(operand: str, frame: pd.DataFrame, roles: list[str], features: list[str]) -> None:
    require_columns(_FUNCTION, operand, frame, [*roles, *features])
    every = [*roles, *features]
    for name in every:
        if every.count(name) > 1:
            expected = "one of target, sensitive, source and feature"
            fail(_FUNCTION, f"column {name!r}", f"{every.count(name)} roles", expected)


def _binary(operand: str, column: pd.Series, name: str) -> np.ndarray:
    distinct: list[Any] = sorted(column.unique())
    if len(distinct) != 2:
        shown = f"{len(distinct)} distinct values {[_plain(value) for value in distinct[:4]]}"
        hint = "Merge values, or keep the rows of two of them." if len(distinct) > 2 else ""
        fail(_FUNCTION, f"{operand}[{name!r}]", shown, "exactly two distinct values", hint)
    return (column == distinct[1]).to_numpy().astype(int)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _check_sources(operand: str, name: str, labels: np.ndarray) -> None:
    labels = labels.astype(str)
    distinct = np.unique(labels)
    if len(distinct) < 2:
        got = f"one distinct value {distinct.tolist()[0]!r}" if len(distinct) else "no row"
        fail(_FUNCTION, f"{operand}[{name!r}]", got, "at least two sources")
    refuse_single_rows(_FUNCTION, f"{operand}[{name!r}]", labels)


def _numbers(operand: str, frame: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    import pandas as pd

    table = pd.DataFrame(index=frame.index)
    for name in names:
        values = np.asarray(pd.to_numeric(frame[name], errors="coerce"), np.float64)
        bad = ~np.isfinite(values)
        if bad.any():
            row = int(bad.argmax())
            got = f"{_plain(frame[name].iloc[row])!r} in row {row}"
            hint = "Fill it in, drop the row, or take the column as categories."
            fail(_FUNCTION, f"{operand}[{name!r}]", got, "finite numbers in a column of numbers", hint)
        table[name] = values
    return table
