"""CSV text that a spreadsheet shows and does not run."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from typing import Any

# A cell of text that starts with one of these is a formula to a spreadsheet (OWASP, "CSV Injection").
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\N{FULLWIDTH EQUALS SIGN}", "\N{FULLWIDTH PLUS SIGN}")
_END = "\r\n"  # with this end the writer quotes cells with either character


def csv_cell(value: Any) -> Any:
    """Return a value as a cell: NaN is empty, and text that a spreadsheet would run starts with an apostrophe.

    Numbers, and text that is a number, stay as they are.

    >>> [csv_cell(value) for value in ("=HYPERLINK(1)", "-0.5", -0.5, float("nan"), "a=b")]
    ["'=HYPERLINK(1)", '-0.5', -0.5, '', 'a=b']
    """
    if isinstance(value, float) and math.isnan(value):
        return ""
    if isinstance(value, str) and value.startswith(_FORMULA) and not _is_number(value):
        return f"'{value}"
    return value


def csv_text(header: Iterable[Any], rows: Iterable[Iterable[Any]]) -> str:
    r"""Return a table as CSV with lines that end in "\n"; every cell as `csv_cell`.

    >>> csv_text(["name", "value"], [["@x", 1.5], ["y", float("nan")]])
    "name,value\n'@x,1.5\ny,\n"
    """
    lines = _Lines()
    csv.writer(lines, lineterminator=_END).writerows([csv_cell(value) for value in row] for row in (header, *rows))
    return "".join(lines)


class _Lines(list[str]):
    """The lines that a writer makes, with their ends replaced."""

    def write(self, line: str) -> None:
        self.append(line.removesuffix(_END) + "\n")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text == text.strip()
