"""Ours in bfloat16: against ours in float32, and against PyTorch's dense layers in bfloat16."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sparsejax._table import text_table

from . import peers
from ._layer_times import LayerTimes
from .cases._case import FORWARD, STEP
from .cases._shapes import UNTUNED
from .harness._report import percent, times
from .harness._targets import Outcome, outcome
from .harness._timing import geometric_mean
from .peers.ours import ALONE

TITLE = "Ours in bfloat16: how many times faster than ours in float32, between sparse layers and alone"
_FLOAT32, _BFLOAT16 = peers.OURS.name, peers.OURS_BFLOAT16.name
_PAIRS = {"between": (_BFLOAT16, _FLOAT32), ALONE: (f"{ALONE}_bfloat16", ALONE)}
_COLUMNS = [(measure, place) for measure in (FORWARD, STEP) for place in _PAIRS]


def table(results: Sequence[LayerTimes]) -> str:
    """One line per case; geometric means at the end."""
    rows = []
    for result in results:
        cells = (times(result.speedup(measure, *_PAIRS[place])) for measure, place in _COLUMNS)
        rows.append((result.case.shape.name, percent(result.case.sparsity), *cells))
    for sparsity in sorted({result.case.sparsity for result in results}):
        chosen = [r for r in results if r.case.sparsity == sparsity]
        means = (times(geometric_mean(_speedups(chosen, measure, place))) for measure, place in _COLUMNS)
        rows.append((f"geometric mean at {percent(sparsity)}", "", *means))
    return text_table(("layer", "sparsity", *(f"{measure}, {place}" for measure, place in _COLUMNS)), rows)


def _speedups(results: Sequence[LayerTimes], measure: str, place: str) -> list[float]:
    return [s for r in results if (s := r.speedup(measure, *_PAIRS[place])) is not None]


def summary(results: Sequence[LayerTimes]) -> Iterator[Outcome]:
    """The targets of bfloat16, over the layers for which the others are stated too."""
    tuned = [r for r in results if r.case.shape.set != UNTUNED]
    chosen = {percents: [r for r in tuned if r.case.sparsity == percents / 100] for percents in (90, 95)}
    for measure in (FORWARD, STEP):
        for percents, some in chosen.items():
            between, alone = (_speedups(some, measure, place) for place in _PAIRS)
            over = f"{len(between)} cases; alone {times(geometric_mean(alone))}"
            yield outcome(f"bfloat16 {measure} {percents}", geometric_mean(between), over)
    for percents, some in chosen.items():
        ratios = _against(some, *peers.DENSE_BFLOAT16)
        wide = times(geometric_mean(_against(some, "torch")))
        over = f"{len(ratios)} cases; against PyTorch in float32 {wide}"
        yield outcome(f"bfloat16 dense {percents}", geometric_mean(ratios), over)


def _against(results: Sequence[LayerTimes], *names: str) -> list[float]:
    """How many times longer the fastest of these takes than ours in bfloat16, where one was timed."""
    found = []
    for result in results:
        ratios = [s for name in names if (s := result.speedup(STEP, _BFLOAT16, name)) is not None]
        found += [min(ratios)] if ratios else []
    return found
