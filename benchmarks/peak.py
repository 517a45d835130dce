"""``peak``: what can this machine do at most, per instruction set?"""

from __future__ import annotations

import argparse

from sparsejax import cpu_info
from sparsejax._table import text_table

from .harness import _worker
from .harness._peak import Peak, PeakProbes
from .harness._report import BenchmarkReport, progress

# Of each probe in each round.
SECONDS = 0.1


def run(options: argparse.Namespace) -> BenchmarkReport:
    """Probe every instruction set in a separate process, alternately; the highest rate of all rounds counts."""
    isas = cpu_info().supported_isas
    children = {isa: _worker.start(PeakProbes, options.threads, SPARSEJAX_ISA=isa) for isa in isas}
    try:
        best: dict[str, Peak] = {}
        for number in range(options.rounds):
            for isa, child in children.items():
                measured = Peak(**child.ask("measure", seconds=SECONDS))
                best[isa] = _higher(best[isa], measured) if isa in best else measured
            progress(f"[{number + 1}/{options.rounds}] " + "; ".join(f"{isa} {_gflops(best[isa])}" for isa in isas))
    finally:
        for child in children.values():
            child.close()
    return BenchmarkReport("peak", _text(list(best.values())), {"peaks": list(best.values())})


def _higher(a: Peak, b: Peak) -> Peak:
    """The higher of each rate."""
    read = {level: max(rate, b.read[level]) for level, rate in a.read.items()}
    return Peak(a.isa, a.threads, max(a.flops, b.flops), read, a.capacity)


def _gflops(peak: Peak) -> str:
    return f"{peak.flops / 1e9:.0f} GFLOP/s"


def _text(peaks: list[Peak]) -> str:
    levels = list(peaks[0].read)
    rows = [(p.isa, f"{p.flops / 1e9:.1f}", *(f"{p.read[level] / 1e9:.1f}" for level in levels)) for p in peaks]
    sizes = ", ".join(f"{name} {size // 1024} KiB" for name, size in peaks[0].capacity.items())
    head = f"float32 multiply-adds in registers, and reading; all {peaks[0].threads} threads together ({sizes})"
    return f"{head}\n\n" + text_table(("", "GFLOP/s", *(f"{level} GB/s" for level in levels)), rows)
