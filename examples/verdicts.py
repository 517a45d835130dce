"""What numbers say about a finding: an interval over seeds, a rule, and sentences that follow it.

The notebooks use this file. A finding is a claim that a number is above a margin, at each sparsity (or on each table).
The number of a seed is paired where two models share the seed. Rule, per sparsity, with the 95-percent t interval of
the mean over seeds:

    shows           the whole interval is above the margin
    does not show   the whole interval is below the margin
    unclear         otherwise, or fewer than two seeds

A finding as a whole shows, or does not show, if that is the verdict at every sparsity; otherwise it is unclear.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

SHOWS, NOT, UNCLEAR = "shows", "does not show", "unclear"
COLUMNS = ("finding", "at", "mean", "low", "high", "margin", "seeds", "verdict")


class Evidence(NamedTuple):
    """The numbers behind one finding at one sparsity.

    Attributes:
      finding: the claim, a number above the margin.
      at: the sparsity, or what else the number belongs to.
      values: the number of each seed; undefined ones are left out.
      margin: 0 for a claim of sign.
    """

    finding: str
    at: str
    values: tuple[float, ...]
    margin: float = 0.0


def evidence(finding: str, at: str, values: Iterable[float], margin: float = 0.0) -> Evidence:
    """Return `Evidence` of plain numbers, rounded to nine decimals as they are stored."""
    numbers = [round(float(value), 9) for value in values]
    return Evidence(finding, at, tuple(value for value in numbers if np.isfinite(value)), round(float(margin), 9))


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95-percent t interval of the mean; NaN for fewer than two values.

    >>> [round(end, 3) for end in interval([1.0, 2.0, 3.0])]
    [-0.484, 4.484]
    """
    from scipy.stats import t

    if len(values) < 2:
        return float("nan"), float("nan")
    half = t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return float(np.mean(values) - half), float(np.mean(values) + half)


def verdict(values: Sequence[float], margin: float = 0.0) -> str:
    """Apply the rule at one sparsity.

    >>> verdict([0.1, 0.12, 0.11]), verdict([-0.1, -0.12, -0.11]), verdict([-0.1, 0.12, 0.0]), verdict([1.0])
    ('shows', 'does not show', 'unclear', 'unclear')
    """
    low, high = interval(values)
    return SHOWS if low > margin else NOT if high < margin else UNCLEAR


def table(numbers: Sequence[Evidence]) -> Any:
    """Return one row for each finding and sparsity: mean, ends of the interval, margin, seeds, verdict."""
    import pandas as pd

    rows = []
    for each in numbers:
        mean = float(np.mean(each.values)) if each.values else float("nan")
        ends = interval(each.values)
        rows.append(
            (each.finding, each.at, mean, *ends, each.margin, len(each.values), verdict(each.values, each.margin))
        )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def overall(rows: Any) -> dict[str, str]:
    """Return the verdict of each finding as a whole, from `table`."""
    found = {}
    for finding, part in rows.groupby("finding", sort=False):
        each = set(part["verdict"])
        found[finding] = each.pop() if len(each) == 1 else UNCLEAR
    return found


def verdict_table(rows: Any) -> str:
    """Return the table as Markdown: a row for each finding, a column for each sparsity."""
    places = list(dict.fromkeys(rows["at"]))
    lines = [f"| finding | {' | '.join(places)} | as a whole |", f"| --- |{' --- |' * (len(places) + 1)}"]
    for finding, verdict_ in overall(rows).items():
        part = rows[rows["finding"] == finding].set_index("at")["verdict"]
        lines.append(f"| {finding} | {' | '.join(part.get(place, 'exempt') for place in places)} | **{verdict_}** |")
    return "\n".join(lines)


def sentences(rows: Any) -> str:
    """Return one sentence for each finding, as a list in Markdown, with every number behind its verdict."""
    lines = []
    for finding, verdict_ in overall(rows).items():
        part = rows[rows["finding"] == finding]
        margin = part["margin"].iloc[0]
        parts = [
            f"{r.at}: {_number(r.mean)} [{_number(r.low)}, {_number(r.high)}], {r.verdict}" for r in part.itertuples()
        ]
        same = (part["margin"] == margin).all()
        shown = f" (above {_number(margin)})" if margin and same else ""
        lines.append(f"- **{verdict_}**: {finding}{shown}. {'; '.join(parts)}.")
    counts = {word: sum(v == word for v in overall(rows).values()) for word in (SHOWS, NOT, UNCLEAR)}
    total = sum(counts.values())
    text = ", ".join(f"{count} {word}" for word, count in counts.items())
    lines.append(f"- Of {total} findings as a whole: {text}.")
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{0.0 if abs(value) < 1e-9 else value:+.3g}"  # below what is stored: the rounding of thirds


def show(numbers: Sequence[Evidence], settings: Sequence[float] = ()) -> Any:
    """Display the verdict table and the sentences, and store the numbers in the output of the notebook.

    Args:
      numbers: of all findings.
      settings: numbers that the fixed text of the notebook may name, such as sparsities and thresholds.

    Returns:
      The table.
    """
    from IPython.display import Markdown, display

    rows = table(numbers)
    store(verdicts=[each._asdict() for each in numbers], settings=list(settings))
    display(Markdown(verdict_table(rows)))
    display(Markdown(sentences(rows)))
    return rows


def store(**numbers: Any) -> None:
    """Keep numbers, as JSON, in the output of the notebook."""
    from IPython.display import display

    text = f"stored here: {', '.join(numbers)}"
    display({"application/json": numbers, "text/plain": text}, raw=True)


def read(stored: dict[str, Any]) -> list[Evidence]:
    """Return the numbers that `show` stored."""
    return [Evidence(each["finding"], each["at"], tuple(each["values"]), each["margin"]) for each in stored["verdicts"]]
