"""``crossover``: from which sparsity on is a layer faster sparse than dense?"""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Callable, Sequence

from sparsejax._table import text_table

from . import _layer_times, peers
from ._layer_times import LayerTimes
from .cases import _shapes
from .cases._case import STEP, Case
from .cases._shapes import UNTUNED, Shape
from .harness._report import BenchmarkReport, percent, progress, times
from .harness._targets import Outcome, outcome, outcome_table
from .harness._timing import geometric_mean

# Measurements between the ends before the last interpolation.
_STEPS = 4


@dataclasses.dataclass(frozen=True)
class Crossover:
    """Where a layer breaks even.

    Attributes:
      shape: of the layer.
      sparsity: at which forward and both gradients take as long as in the fastest dense library; an end of the range
        if it lies outside (``beyond`` is "below" or "above"); None if nothing could be compared.
      ratios: dense time over ours, by sparsity measured.
    """

    shape: Shape
    sparsity: float | None
    beyond: str
    ratios: dict[float, float]


def run(options: argparse.Namespace) -> BenchmarkReport:
    """Search the break-even sparsity of every shape between the lowest and the highest sparsity given."""
    others = peers.choose(options.peers)
    low, high = min(options.sparsity), max(options.sparsity)
    if low == high:
        raise ValueError(f"crossover: --sparsity has one value {low}; expected two, the ends of the search.")
    shapes = _shapes.select(options.shapes)
    names = [peer.name for peer in others]
    rows, results = [], []
    for number, shape in enumerate(shapes, start=1):
        measured: list[LayerTimes] = []

        def ratio(sparsity: float, shape: Shape = shape, measured: list[LayerTimes] = measured) -> float | None:
            measured.append(_layer_times.run(Case(shape, sparsity), others, (STEP,), options.rounds))
            return measured[-1].ratio(STEP, *names)

        result = search(ratio, low, high, _STEPS)
        rows.append(Crossover(shape, *result))
        results += [result.to_dict() for result in measured]
        progress(f"[{number}/{len(shapes)}] {shape.name}: {_cell(rows[-1])}")
    summary = [_summary(rows)]
    lines = [(r.shape.name, _cell(r), ", ".join(f"{percent(s)} {times(x)}" for s, x in r.ratios.items())) for r in rows]
    text = text_table(("layer", "breaks even at", "dense time over ours"), lines)
    data = {"crossovers": rows, "rows": results, "summary": summary}
    return BenchmarkReport("crossover", f"{text}\n\n{outcome_table(summary)}", data)


def search(
    ratio: Callable[[float], float | None], low: float, high: float, steps: int
) -> tuple[float | None, str, dict[float, float]]:
    """Find where the ratio is one by interpolating its logarithm over the logarithm of density.

    Args:
      ratio: dense time over sparse time at a sparsity, rising with it up to noise; None if it could not be measured.
      low, high: ends of the search.
      steps: measurements after those at the ends.

    Returns:
      The sparsity (or the end beyond which it lies), "", "below" or "above", and the ratios measured, by sparsity.

    >>> search(lambda s: 0.25 / (1 - s), 0.3, 0.95, 3)[:2]
    (0.75, '')
    """
    ratios: dict[float, float] = {}
    for end in (high, low):
        value = ratio(end)
        if value is None:
            return None, "", ratios
        ratios[end] = value
    if ratios[high] < 1:
        return high, "above", ratios
    if ratios[low] >= 1:
        return low, "below", ratios
    under, over = low, high
    for _ in range(steps):
        middle = round(_interpolate(under, over, ratios), 3)
        if middle in ratios:
            break
        value = ratio(middle)
        if value is None:
            return None, "", ratios
        ratios[middle] = value
        under, over = (under, middle) if value >= 1 else (middle, over)
    return round(_interpolate(under, over, ratios), 3), "", dict(sorted(ratios.items()))


def _interpolate(under: float, over: float, ratios: dict[float, float]) -> float:
    a, b = math.log(ratios[under]), math.log(ratios[over])
    x, y = math.log1p(-under), math.log1p(-over)
    return -math.expm1(x - a / (b - a) * (y - x))


def _cell(row: Crossover) -> str:
    if row.sparsity is None:
        return "-"
    return f"{row.beyond} {percent(row.sparsity)}".strip()


def _summary(rows: Sequence[Crossover]) -> Outcome:
    known = [row for row in rows if row.sparsity is not None and row.shape.set != UNTUNED]
    density = geometric_mean([1 - row.sparsity for row in known if row.sparsity is not None])
    beyond = [f"{sum(r.beyond == side for r in known)} {side} the range" for side in ("below", "above")]
    measured = None if density is None else 100 * (1 - density)
    return outcome("crossover", measured, f"{len(known)} layers, {', '.join(beyond)}")
