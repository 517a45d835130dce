"""Cells and tables of the page, as data for the templates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sparsejax.analysis.bias.metrics._measured import REASONS

MINUS, DASH = "\N{MINUS SIGN}", "\N{EN DASH}"


class Cell(NamedTuple):
    """A table cell.

    Attributes:
      text: the text shown.
      key: the text or number that the column sorts by; "" sorts last.
      css: class of the cell.
      title: longer explanation.
    """

    text: str
    key: str
    css: str = ""
    title: str = ""


class SortableTable(NamedTuple):
    """A table whose columns sort; the first cell of a row is its header."""

    caption: str
    header: Sequence[str]
    rows: list[list[Cell]]


def number(value: float, digits: int = 3, *, signed: bool = False, reason: str = "") -> Cell:
    """Return a number as a cell; an undefined one shows a dash and says why."""
    if math.isnan(value):
        return Cell(DASH, "", "undefined", REASONS.get(reason, "undefined"))
    if math.isinf(value):
        return Cell("∞" if value > 0 else MINUS + "∞", f"{value:g}", "number")
    text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    return Cell(text.replace("-", MINUS), f"{value:.6g}", "number")


def whole(value: int | None) -> Cell:
    """Return a count as a cell; an empty one for None."""
    return Cell("", "") if value is None else Cell(str(value), str(value), "number")


def sortable(caption: str, header: Sequence[str], rows: Iterable[Sequence[Cell | str]]) -> SortableTable:
    """Return a table of cells; text becomes a cell that sorts by itself."""
    cells = [[cell if isinstance(cell, Cell) else Cell(cell, cell) for cell in row] for row in rows]
    return SortableTable(caption, header, cells)
