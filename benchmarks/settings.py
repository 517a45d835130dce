"""``settings``: what does a step lose in a program that sets nothing, and what does ``sx.configure()`` bring?"""

from __future__ import annotations

import argparse
import dataclasses
import os
import time
from typing import Any

import jax

import sparsejax
from sparsejax._configure import XLA_FLAG
from sparsejax._table import text_table

from .cases._network import NetworkCase
from .harness import _timing, _worker
from .harness._child import seconds
from .harness._report import BenchmarkReport, milliseconds, progress
from .harness._targets import outcome, outcome_table
from .peers import networks

NOTHING, LATE, FIRST = "nothing set", "sx.configure() in a program that has computed", "sx.configure() first"


class StepTimer:
    """Times a training step of ResNet-18 in a worker process."""

    def prepare(self, case: dict[str, Any], setting: str) -> str:
        """Compile the step, and return what ``configure`` said."""
        if setting != FIRST:
            jax.block_until_ready(jax.numpy.zeros(1))
        said = "" if setting == NOTHING else str(sparsejax.configure())
        self._trainer = next(iter(networks.OURS.variants(NetworkCase(**case)).values()))()
        self._trainer.step()
        return said

    def sample(self, calls: int) -> float:
        """Seconds of so many steps."""
        return seconds(self._trainer.step, calls)

    def processor_seconds(self) -> float:
        """Processor time of one step."""
        before = time.process_time()
        self._trainer.step()
        return time.process_time() - before


def run(options: argparse.Namespace) -> BenchmarkReport:
    """Time the same step in one process for each setting, alternately."""
    (sparsity,) = options.sparsity
    case = NetworkCase(options.image, options.batch, sparsity)
    flags = os.environ.get("XLA_FLAGS", "").replace(XLA_FLAG, "")  # which this process has set for itself
    workers = {name: _worker.start(StepTimer, options.threads, XLA_FLAGS=flags) for name in (NOTHING, LATE, FIRST)}
    try:
        for name, worker in workers.items():
            said = worker.ask("prepare", case=dataclasses.asdict(case), setting=name)
            progress(f"{name}: ready. {said}")
        taken = _timing.interleave({name: w.sampler("sample") for name, w in workers.items()}, options.rounds)
        used = {name: _timing.median([w.ask("processor_seconds") for _ in range(3)]) for name, w in workers.items()}
    finally:
        for worker in workers.values():
            worker.close()
    best = min(taken, key=lambda name: _timing.median(taken[name]))
    ratios = {name: _timing.ratio(taken[best], times) for name, times in taken.items()}
    head = f"ResNet-18, {case.image} x {case.image}, batch {case.batch}, {case.sparsity:g} zeros"
    rows = [
        (name, milliseconds(_timing.median(taken[name])), f"{r.median:.2f}", f"{r.low:.2f} to {r.high:.2f}",
         milliseconds(used[name]))
        for name, r in ratios.items()
    ]  # fmt: skip
    columns = (head, "ms a step", "speed, of the best", "quartiles", "processor ms")
    outcomes = [outcome(key, ratios[name].median, f"{case.image} x {case.image}, batch {case.batch}; best: {best}")
                for key, name in (("nothing set", NOTHING), ("configured", LATE))]  # fmt: skip
    text = f"{text_table(columns, rows)}\n\n{outcome_table(outcomes)}"
    return BenchmarkReport("settings", text, {"seconds": taken, "processor": used, "summary": outcomes})
