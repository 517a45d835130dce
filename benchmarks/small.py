"""``small``: batches of 1, 4 and 16, whose forward product is bound by reading values and indices."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence

from sparsejax import machine
from sparsejax._table import text_table

from . import _layer_times, peers
from ._layer_times import LayerTimes
from .cases._case import FORWARD, Case
from .cases._shapes import Shape
from .harness import _timing
from .harness._report import BenchmarkReport, milliseconds, percent, progress, times
from .harness._targets import Outcome, outcome, outcome_table
from .peers.ours import ALONE

# Inputs and outputs of linear layers. The targets are those of the first two.
SHAPES = ((4096, 4096), (768, 3072), (3072, 768), (512, 512), (128, 1024))
BATCHES = (1, 4, 16)
_JUDGED = 2
_PEERS = ("mkl", "torch_csr", "torch")
_ENTRY_BYTES = 8  # a float32 value and its index
_PROBE_SECONDS = 0.01


@dataclasses.dataclass(frozen=True)
class _Row:
    """One layer: times, seconds of ours alone, ratios to it, and its part of the rate of reading as many bytes."""

    result: LayerTimes
    seconds: float
    against: dict[str, float]
    bandwidth: float


def run(options: argparse.Namespace) -> BenchmarkReport:
    """Time the forward product, row-major in and out, against sparse and dense libraries."""
    others = peers.choose(_PEERS)
    rows = []
    for sparsity in options.sparsity:
        for k, m in SHAPES:
            for batch in BATCHES:
                case = Case(_shape(batch, k, m), sparsity)
                rows.append(_row(_layer_times.run(case, others, (FORWARD,), options.rounds), options.rounds))
                progress(" ".join(_cells(rows[-1])))
    outcomes = _summary(rows)
    header = ("batch x inputs -> outputs", "sparsity", "ours ms", *_PEERS, "of read rate")
    text = "\n\n".join([text_table(header, [_cells(row) for row in rows]), outcome_table(outcomes)])
    data = [row.result.to_dict() | {"against": row.against, "bandwidth": row.bandwidth} for row in rows]
    return BenchmarkReport("small", text, {"rows": data, "summary": outcomes})


def _shape(batch: int, k: int, m: int) -> Shape:
    return Shape("small", f"{batch} x {k} -> {m}", "linear", batch, k, m)


def _row(result: LayerTimes, rounds: int) -> _Row:
    timed = result.times[FORWARD]
    ours, size = timed[ALONE], _ENTRY_BYTES * result.case.nnz
    against = {n: _timing.ratio(timed[n].rounds, ours.rounds).median for n in _PEERS if n in timed}
    return _Row(result, ours.seconds, against, _read_part(result.case, size, rounds))


def _read_part(case: Case, size: int, rounds: int) -> float:
    """Time of reading so many bytes over that of our product, in turn; both the best, which is what the probe gives."""

    def read(calls: int) -> float:
        return calls * size / machine.measure_read_bandwidth(size, _PROBE_SECONDS)

    alone = next(variant for variant in peers.OURS.prepare(case) if variant.name == ALONE)
    times = _timing.interleave({"ours": alone.calls[FORWARD].sampler, "read": read}, rounds)
    return min(times["read"]) / min(times["ours"])


def _cells(row: _Row) -> tuple[str, ...]:
    shape = row.result.case.shape
    ratios = (times(row.against.get(name)) for name in _PEERS)
    ours = milliseconds(row.seconds)
    return (shape.name, percent(row.result.case.sparsity), ours, *ratios, percent(row.bandwidth))


def _summary(rows: Sequence[_Row]) -> list[Outcome]:
    """The targets: those of single layers for the layers that they name."""

    def of(batch: int, layers: Sequence[tuple[int, int]]) -> list[_Row]:
        shapes = [_shape(batch, *layer) for layer in layers]
        return [row for row in rows if row.result.case.shape in shapes]

    def lowest(key: str, values: Sequence[float]) -> Outcome:
        return outcome(key, min(values, default=None), f"{len(values)} cases")

    first, judged = BATCHES[0], [row for row in of(BATCHES[0], SHAPES[:_JUDGED]) if "mkl" in row.against]
    steps = [four.seconds / one.seconds for one, four in zip(of(first, SHAPES), of(BATCHES[1], SHAPES), strict=True)]
    largest = [row.bandwidth for row in of(first, SHAPES[:1])]
    return [
        lowest("small mkl", [row.against["mkl"] for row in judged]),
        lowest("small batches", steps),
        lowest("small bandwidth", [100 * part for part in largest]),
    ]
