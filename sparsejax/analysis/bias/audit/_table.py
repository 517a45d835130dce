"""A tidy table of columns, and its way into files and pandas."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsejax._checks import fail
from sparsejax._csv import csv_text
from sparsejax._extras import require
from sparsejax._files import write_atomically
from sparsejax._table import text_table

if TYPE_CHECKING:
    import pandas

JSON_VERSION = 1


class Table:
    """Columns of equal length.

    Args:
      columns: name -> values.

    >>> table = Table.of(("attribute", "value"), [("eight", 0.1), ("zero", float("nan"))])
    >>> table.where(attribute="eight")["value"]
    [0.1]
    >>> table.to_json()
    '{"version": 1, "columns": {"attribute": ["eight", "zero"], "value": [0.1, null]}}'
    """

    def __init__(self, columns: dict[str, list[Any]]) -> None:
        self.columns = columns

    @classmethod
    def of(cls, names: Sequence[str], rows: Iterable[Sequence[Any]]) -> Table:
        """Build a table from rows."""
        listed = list(rows)
        values = zip(*listed, strict=True) if listed else [()] * len(names)
        return cls({name: list(column) for name, column in zip(names, values, strict=True)})

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))

    def __getitem__(self, name: str) -> list[Any]:
        if name not in self.columns:
            fail("Table", "column", f"value {name!r}", f"one of {list(self.columns)}", error=KeyError)
        return self.columns[name]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for values in zip(*self.columns.values(), strict=True):
            yield dict(zip(self.columns, values, strict=True))

    def __repr__(self) -> str:
        rows = [[_text(value) for value in row.values()] for row in self]
        shown = [*rows[:20], *([["..."] * len(self.columns)] if len(rows) > 20 else [])]
        return text_table(list(self.columns), shown)

    def where(self, **equal: Any) -> Table:
        """Return the rows whose columns equal these values."""
        wanted = [(self[name], value) for name, value in equal.items()]
        keep = [i for i in range(len(self)) if all(column[i] == value for column, value in wanted)]
        return Table({name: [column[i] for i in keep] for name, column in self.columns.items()})

    def to_pandas(self) -> pandas.DataFrame:
        """Return a pandas data frame.

        Raises:
          ImportError: pandas is missing.
        """
        return require("pandas", "Table.to_pandas").DataFrame(self.columns)

    def to_csv(self, path: str | os.PathLike[str] | None = None) -> str:
        """Return the table as CSV, and write it to ``path`` if there is one.

        NaN is an empty field. Text that a spreadsheet would take for a formula starts with an apostrophe.
        """
        return _written(csv_text(self.columns, (row.values() for row in self)), path)

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str:
        """Return the table as JSON with a version; NaN is null, infinities are the strings "inf" and "-inf"."""
        columns = {name: [_json(value) for value in values] for name, values in self.columns.items()}
        return _written(json.dumps({"version": JSON_VERSION, "columns": columns}, allow_nan=False), path)


def _written(text: str, path: str | os.PathLike[str] | None) -> str:
    if path is not None:
        write_atomically(Path(path), text)
    return text


def _json(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def _text(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)
