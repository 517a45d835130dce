"""What the runs of ``pruning_digits.py`` show: findings as a number above a margin, one per seed, at each sparsity.

All methods of a seed start from the same weights and see the same batches, so every difference is paired by seed.
Accuracy is in points. ``verdicts.py`` has the rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from verdicts import Evidence, evidence

# The better method, the other, by how many points more; the orderings that the literature reports.
ORDERINGS = (
    ("AC/DC", "GMP", -1.0),
    ("AC/DC", "GMP", 0.0),
    ("AC/DC", "RigL", 3.0),
    ("GMP", "RigL", 3.0),
    ("RigL", "static", 3.0),
    ("RigL", "SET", -1.0),
    ("RigL", "SET", 0.0),
    ("AC/DC", "dense", -1.0),
)


def percent(level: float) -> str:
    """Name a sparsity."""
    return f"{100 * level:.3g} %"


def at_levels(finding: str, levels: Iterable[float], values: Any, margin: float = 0.0) -> list[Evidence]:
    """Return a finding at all sparsities, from numbers [levels, seeds]."""
    return [evidence(finding, percent(level), row, margin) for level, row in zip(levels, values, strict=True)]


def difference(first: Any, second: Any) -> np.ndarray:
    """Return the accuracy of one run minus that of another, [levels, seeds], in points; a dense run has one level."""
    return 100 * (first.accuracy - second.accuracy)


def ordering(runs: dict[str, Any], first: str, second: str, margin: float, where: str = "") -> list[Evidence]:
    """Return the finding that a method is above another, or no more than some points below it."""
    if margin < 0:
        text = f"{first} is no more than {-margin:g} point below {second}"
    else:
        text = f"{first} is {f'more than {margin:g} points ' if margin else ''}above {second}"
    return at_levels(where + text, runs[first].design.levels, difference(runs[first], runs[second]), margin)


def orderings(runs: dict[str, Any]) -> list[Evidence]:
    """Return the orderings of the literature, for the methods that ran."""
    known = [each for each in ORDERINGS if each[0] in runs and each[1] in runs]
    return [found for each in known for found in ordering(runs, *each)]


def of_acdc(acdc: Any, dense: Any) -> list[Evidence]:
    """Return what AC/DC's paper says of its cost, its masks and its dense partner."""
    levels, lost = acdc.design.levels, acdc.lost()
    parts = [
        ("the operations of training with AC/DC are below those of dense training (1 minus their share)",
         1 - acdc.flops(), 0.0),
        ("each compression of AC/DC replaces less of the support than the one before (smallest fall)",
         -np.diff(lost, axis=0).max(axis=0), 0.0),
        ("the last compression of AC/DC replaces less than 6 % of the support (share, sign reversed)",
         -lost[-1], -0.06),
        ("the dense partner is no more than half a point below a network trained dense",
         100 * (acdc.partner - dense.accuracy), -0.5),
        ("the dense partner is above the sparse network of its run", 100 * (acdc.partner - acdc.accuracy), 0.0),
        ("the dense partner is not fully dense (share of zeros, above 1 %)", 1 - acdc.partner_nonzero, 0.01),
    ]  # fmt: skip
    return [found for finding, values, margin in parts for found in at_levels(finding, levels, values, margin)]


def of_short_phases(acdc: Any, trapped: dict[str, Any]) -> list[Evidence]:
    """Return what happens where phases are far shorter than SGD's memory."""
    levels = acdc.design.levels
    short = trapped["AC/DC"].lost()[0]
    found = at_levels(
        "with short phases the first compression replaces less than half as much (half minus share)",
        levels, 0.5 * acdc.lost()[0] - short,
    )  # fmt: skip
    if "GMP" in trapped:
        found += at_levels("with short phases AC/DC is below GMP", levels, difference(trapped["GMP"], trapped["AC/DC"]))
    return found


def of_command(sparsity: float, changes: Sequence[Sequence[float]]) -> list[Evidence]:
    """Return how masks move at the command's defaults; shares of the support, [seeds, compressions]."""
    each = np.array(changes)
    finding = (
        "by the command's defaults every compression of AC/DC replaces 1 % of the support or more (smallest share)"
    )
    return at_levels(finding, [sparsity], [each.min(axis=1)], 0.01)


def of_tickets(tickets: Sequence[Sequence[dict[str, float]]]) -> list[Evidence]:
    """Return whether lottery tickets are above shuffled masks; the rows of each seed."""
    rounds = list(zip(*tickets, strict=True))[1:]
    values = [[row["ticket"] - row["shuffled"] for row in each] for each in rounds]
    levels = [round(each[0]["sparsity"], 3) for each in rounds]
    return at_levels("a lottery ticket is above its mask shuffled within the layers", levels, values)


def of_times(levels: Sequence[float], faster: dict[str, Any]) -> list[Evidence]:
    """Return whether a compressed step is faster than dense ones: how many times, [levels, seeds], by opponent."""
    return [
        found
        for opponent, values in faster.items()
        for found in at_levels(
            f"a compressed training step is faster than a dense one in {opponent} (times faster)", levels, values, 1.0
        )
    ]
