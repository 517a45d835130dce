"""Small pieces of markup: escaped text, numbers, tables that sort, and pictures as SVG."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, NamedTuple

from sparsejax.analysis.bias.metrics._measured import REASONS

MINUS, DASH = "\N{MINUS SIGN}", "\N{EN DASH}"


class Cell(NamedTuple):
    """A table cell.

    Attributes:
      text: what is shown; it is escaped.
      value: what it sorts by; the text if None.
      css: class of the cell.
      title: longer explanation.
    """

    text: str
    value: float | str | None = None
    css: str = ""
    title: str = ""


def number(value: float, digits: int = 3, *, signed: bool = False, reason: str = "") -> Cell:
    """Return a number as a cell; an undefined one shows a dash and says why."""
    if math.isnan(value):
        why = REASONS.get(reason, "undefined")
        return Cell(DASH, float("nan"), "undefined", why)
    if math.isinf(value):
        return Cell("∞" if value > 0 else MINUS + "∞", value, "number")
    text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    return Cell(text.replace("-", MINUS), value, "number")


def whole(value: int) -> Cell:
    """Return a count as a cell."""
    return Cell(str(value), float(value), "number")


def table(caption: str, header: Sequence[str], rows: Iterable[Sequence[Cell | str]], *, css: str = "") -> str:
    """Return a table whose columns sort; the first column is the header of its row."""
    heads = "".join(
        f'<th scope="col" aria-sort="none"><button type="button">{escape(name)}<span aria-hidden="true"></span>'
        "</button></th>"
        for name in header
    )
    body = "".join(f"<tr>{_row(row)}</tr>" for row in rows)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}">'
        f'<table class="sortable {css}"><caption>{escape(caption)}</caption>'
        f"<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _row(cells: Sequence[Cell | str]) -> str:
    parts = []
    for index, given in enumerate(cells):
        cell = Cell(given) if isinstance(given, str) else given
        tag = 'th scope="row"' if index == 0 else "td"
        key = cell.text if cell.value is None else cell.value
        css = f' class="{cell.css}"' if cell.css else ""
        title = f' title="{escape(cell.title)}"' if cell.title else ""
        sort = "" if isinstance(key, float) and math.isnan(key) else escape(_key(key))
        parts.append(f'<{tag}{css}{title} data-key="{sort}">{escape(cell.text)}</{tag.split()[0]}>')
    return "".join(parts)


def _key(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def section(name: str, title: str, *content: str) -> str:
    """Return a section that the menu links to."""
    head = f'<h2 id="{name}-title">{escape(title)}</h2>'
    return f'<section id="{name}" aria-labelledby="{name}-title">{head}{"".join(content)}</section>'


def paragraph(text: str) -> str:
    """Return escaped text as a paragraph."""
    return f"<p>{escape(text)}</p>"


def details(summary: str, content: str) -> str:
    """Return content that opens on demand."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


class Scale:
    """A linear map from data to pixels, with round ticks.

    >>> Scale(0.0, 1.0, 0, 100)(0.5)
    50.0
    """

    def __init__(self, low: float, high: float, start: float, end: float, *, log: bool = False) -> None:
        self.log = log
        if low == high:
            low, high = (low / 2, high * 2) if log else (low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1))
        self.low, self.high, self.start, self.end = low, high, start, end

    def __call__(self, value: float) -> float:
        """Return the position of a value."""
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        at = math.log(value) if self.log else value
        return self.start + (at - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Return three to six round values inside the range."""
        step = 10 ** math.floor(math.log10(self.high - self.low))
        for factor in (1, 0.5, 0.2):
            first, last = math.ceil(self.low / (step * factor)), math.floor(self.high / (step * factor))
            if last - first >= 2:
                return [i * step * factor for i in range(first, last + 1)]
        return [self.low, self.high]


def svg(width: int, height: int, title: str, description: str, *parts: str) -> str:
    """Return a picture with a text alternative."""
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{escape(f"{title}. {description}")}"><title>{escape(title)}</title>{"".join(parts)}</svg>'
    )


def line(x1: float, y1: float, x2: float, y2: float, css: str) -> str:
    """Return a line."""
    return f'<line class="{css}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def text(x: float, y: float, content: str, css: str = "", anchor: str = "middle") -> str:
    """Return text in a picture."""
    return f'<text class="{css}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(content)}</text>'


def polyline(points: Iterable[tuple[float, float]], css: str) -> str:
    """Return a line through points."""
    return f'<polyline class="{css}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>'


# One shape per series, so that no series is told by its colour alone.
def marker(kind: int, x: float, y: float, css: str, tip: str) -> str:
    """Return a marker with a tooltip: circle, square, triangle or diamond."""
    shape = kind % 4
    if shape == 0:
        inner = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5"'
    else:
        corners = {
            1: ((-3, -3), (3, -3), (3, 3), (-3, 3)),
            2: ((0, -4), (4, 3), (-4, 3)),
            3: ((0, -4.5), (4.5, 0), (0, 4.5), (-4.5, 0)),
        }[shape]
        points = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners)
        inner = f'<polygon points="{points}"'
    return f'{inner} class="{css}"><title>{escape(tip)}</title></{"circle" if shape == 0 else "polygon"}>'
