"""``settings``: what does a step lose in a program that sets nothing, and what does ``sx.configure()`` bring?"""

from __future__ import annotations

import argparse
import dataclasses
import os
import tempfile
import time
from typing import Any

import jax

import sparsejax
from sparsejax._configure import XLA_FLAG
from sparsejax._table import text_table

from .cases import _networks
from .cases._network import NetworkCase
from .harness import _timing, _worker
from .harness._child import Child, seconds
from .harness._report import BenchmarkReport, milliseconds, progress
from .harness._targets import outcome, outcome_table
from .peers import networks

NOTHING, LATE, FIRST = "nothing set", "sx.configure() in a program that has computed", "sx.configure() first"


class StepTimer:
    """Times a training step of a network in a worker process."""

    def prepare(self, case: dict[str, Any], setting: str) -> str:
        """Compile the step, and return what ``configure`` said."""
        if setting != FIRST:
            jax.block_until_ready(jax.numpy.zeros(1))
        said = "" if setting == NOTHING else str(sparsejax.configure())
        self._trainer = next(iter(networks.OURS.variants(_networks.make(**case)).values()))()
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
    case = _networks.from_options(options, sparsity)
    flags = os.environ.get("XLA_FLAGS", "").replace(XLA_FLAG, "")  # which this process has set for itself
    with tempfile.TemporaryDirectory() as folder:
        variables = {"XLA_FLAGS": flags, **_cached(folder)}
        workers = {name: _worker.start(StepTimer, options.threads, **variables) for name in (NOTHING, LATE, FIRST)}
        taken, used = _measure(workers, case, options.rounds)
    best = min(taken, key=lambda name: _timing.median(taken[name]))
    ratios = {name: _timing.ratio(taken[best], times) for name, times in taken.items()}
    head = f"{case.over}, {case.sparsity:g} zeros"
    rows = [
        (name, milliseconds(_timing.median(taken[name])), f"{r.median:.2f}", f"{r.low:.2f} to {r.high:.2f}",
         milliseconds(used[name]))
        for name, r in ratios.items()
    ]  # fmt: skip
    columns = (head, "ms a step", "speed, of the best", "quartiles", "processor ms")
    outcomes = [outcome(key, ratios[name].median, f"{case.over}; best: {best}")
                for key, name in (("nothing set", NOTHING), ("configured", LATE))]  # fmt: skip
    text = f"{text_table(columns, rows)}\n\n{outcome_table(outcomes)}"
    return BenchmarkReport("settings", text, {"seconds": taken, "processor": used, "summary": outcomes})


def _cached(folder: str) -> dict[str, str]:
    """Variables with which workers share what they compile; programs with other flags are compiled again."""
    return {
        "JAX_COMPILATION_CACHE_DIR": folder,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
    }


def _measure(
    workers: dict[str, Child], case: NetworkCase, rounds: int
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Seconds of a step in each round, and processor seconds, by setting; the workers end."""
    try:
        for name, worker in workers.items():
            began = time.perf_counter()
            said = worker.ask("prepare", case=dataclasses.asdict(case), setting=name)
            progress(f"{name}: ready after {time.perf_counter() - began:.0f} s. {said}")
        taken = _timing.interleave({name: w.sampler("sample") for name, w in workers.items()}, rounds)
        used = {name: _timing.median([w.ask("processor_seconds") for _ in range(3)]) for name, w in workers.items()}
    finally:
        for worker in workers.values():
            worker.close()
    return taken, used
