"""``scaling``: how much faster are two threads than one?"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

from sparsejax import configure
from sparsejax._table import text_table

from . import peers
from .cases import _shapes
from .cases._case import BACKWARD, FORWARD, STEP, TOLERANCE, Case
from .cases._shapes import Shape
from .harness import _timing, _worker
from .harness._report import BenchmarkReport, milliseconds, progress, times
from .harness._targets import outcome, outcome_table
from .harness._timing import Ratio, geometric_mean

PRODUCTS = (FORWARD, BACKWARD, STEP)
# Shorter layers do not count: there is little to share.
SHORTEST = 1e-3


class LayerTimer:
    """Times the products of one layer in a worker process."""

    def __init__(self) -> None:
        configure()  # as where layers are compared
        self._calls: Mapping[str, peers.Call] = {}

    def prepare(self, shape: dict[str, Any], sparsity: float) -> dict[str, str]:
        """Build a layer, check its products, and return a digest of the bits of each."""
        self._calls = {}  # free the layer before first
        case = Case(Shape(**shape), sparsity)
        self._calls = peers.OURS.prepare(case)[0].calls
        digests = {}
        for product in PRODUCTS:
            call = self._calls[product]
            results = call.read(call.run())
            error = case.error(results)
            if not error <= TOLERANCE:
                raise RuntimeError(f"{product} has error {error:.1e}; expected at most {TOLERANCE:g}")
            digest = hashlib.sha256()
            for name in sorted(results):
                digest.update(results[name].tobytes())
            digests[product] = digest.hexdigest()
        return digests

    def sample(self, product: str, calls: int) -> float:
        """Return the seconds of so many calls."""
        return self._calls[product].sampler(calls)


def run(options: argparse.Namespace) -> BenchmarkReport:
    """Time every layer alternately in a process with one processor and in one with ``--threads`` processors."""
    if options.threads < 2:
        raise ValueError(f"scaling: --threads has value {options.threads}; expected 2 or more, to compare with one.")
    cases = [(shape, sparsity) for shape in _shapes.select(options.shapes) for sparsity in options.sparsity]
    rows = []
    one, many = (_worker.start(LayerTimer, threads) for threads in (1, options.threads))
    try:
        for number, (shape, sparsity) in enumerate(cases, start=1):
            rows.append(_row(one, many, shape, sparsity, options.rounds))
            at = f"[{number}/{len(cases)}] {shape.name} {sparsity:g}"
            progress(f"{at}: {', '.join(f'{p} {times(r.median)}' for p, r in rows[-1]['speedup'].items())}")
    finally:
        one.close()
        many.close()
    return _report(rows, options.threads)


def _row(one: Any, many: Any, shape: Shape, sparsity: float, rounds: int) -> dict[str, Any]:
    """Speedups of one layer, and whether both numbers of threads gave the same bits."""
    digests = [child.ask("prepare", shape=dataclasses.asdict(shape), sparsity=sparsity) for child in (one, many)]
    seconds: dict[str, float] = {}
    speedup: dict[str, Ratio] = {}
    for product in PRODUCTS:
        samplers = {name: child.sampler("sample", product=product) for name, child in (("one", one), ("many", many))}
        taken = _timing.interleave(samplers, rounds)
        seconds[product] = _timing.median(taken["one"])
        speedup[product] = _timing.ratio(taken["one"], taken["many"])
    same = digests[0] == digests[1]
    return {"shape": shape, "sparsity": sparsity, "one_thread": seconds, "speedup": speedup, "same_bits": same}


def _report(rows: list[dict[str, Any]], threads: int) -> BenchmarkReport:
    long = [row for row in rows if row["one_thread"][STEP] >= SHORTEST]
    means = {p: geometric_mean([row["speedup"][p].median for row in long]) for p in PRODUCTS}
    each = ", ".join(f"{p} {times(mean)}" for p, mean in means.items())
    outcomes = [outcome("scaling", means[STEP], f"{threads} threads; {len(long)} of {len(rows)} layers; {each}")]
    lines = [
        (
            row["shape"].name,
            f"{row['sparsity']:g}",
            milliseconds(row["one_thread"][STEP]),
            *(times(row["speedup"][p].median) for p in PRODUCTS),
            "yes" if row["same_bits"] else "NO",
        )
        for row in rows
    ]
    head = f"{threads} threads against one; means are over layers whose step takes {1e3 * SHORTEST:g} ms or more"
    text = text_table(("layer", "sparsity", "step ms, 1 thread", *PRODUCTS, "same bits"), lines)
    data = {"rows": rows, "geometric_means": means, "summary": outcomes}
    return BenchmarkReport("scaling", f"{head}\n\n{text}\n\n{outcome_table(outcomes)}", data)
