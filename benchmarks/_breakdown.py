"""Where a training step's time goes: what XLA's profiler saw on the threads that computed, by kind of work."""

from __future__ import annotations

import collections
import dataclasses
import re
import statistics
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax

from sparsejax._checks import fail
from sparsejax._table import text_table

from .cases._network import NetworkCase, Trainer
from .harness._report import BenchmarkReport
from .peers import networks

_STEPS = 5
# The first that matches an operation's name counts.
_KINDS = {
    "sparse convolutions, both gradients": r"sparsejax_conv_backward",
    "sparse convolutions, weight gradient of the first": r"sparsejax_conv_weight_grad",
    "sparse convolutions, forward": r"sparsejax_conv",
    "sparse linear layers, both gradients": r"sparsejax_spmm_backward",
    "sparse linear layers, forward": r"sparsejax_spmm",
    "attention, both directions": r"sparsejax_attention",
    "batch norm + ReLU + residual, both directions": r"sparsejax_batch_norm",
    "pooling and channel sums": r"sparsejax_",
    "dense layers": r"conv(?!ert)|dot|ynn",  # XLA hands them to YNNPACK
    "copies, loss and optimizer, as XLA compiles them": r"",
}
_OUTSIDE = "outside compiled code: Python and dispatch"


def run(cases: list[NetworkCase], threads: int) -> BenchmarkReport:
    """Profile our training step.

    Raises:
      ValueError: more than one thread, whose times would overlap.
    """
    if threads != 1:
        fail("model", "--threads", f"value {threads}", "1 with --breakdown, because times of threads overlap")
    texts, rows = [], []
    for case in cases:
        step, parts = measure(next(iter(networks.OURS.variants(case).values()))())
        head = f"{case.over}, {case.sparsity:g} zeros"
        shown = [(kind, f"{1e3 * s:.1f}", f"{100 * s / step:.0f} %") for kind, s in parts.items()]
        texts.append(text_table((head, "ms", "share"), [*shown, ("whole step", f"{1e3 * step:.1f}", "")]))
        rows.append({**dataclasses.asdict(case), "step": step, "parts": parts})
    return BenchmarkReport("model", "\n\n".join(texts), {"rows": rows})


def measure(trainer: Trainer) -> tuple[float, dict[str, float]]:
    """Seconds of a step (median) and of its parts (means, scaled to that step)."""
    trainer.step()
    trainer.step()  # the first one compiled
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, profiler_options=options):
            for _ in range(_STEPS):
                start = time.perf_counter()
                trainer.step()
                seconds.append(time.perf_counter() - start)
        (file,) = Path(folder).rglob("*.xplane.pb")
        spent = operations(jax.profiler.ProfileData.from_file(str(file)))
    parts = dict.fromkeys(_KINDS, 0.0)
    for name, duration in spent.items():
        parts[next(kind for kind, pattern in _KINDS.items() if re.search(pattern, name))] += duration
    scale = statistics.median(seconds) / sum(seconds)
    parts = {kind: scale * duration for kind, duration in parts.items()}
    step = statistics.median(seconds)
    return step, {**parts, _OUTSIDE: step - sum(parts.values())}


def operations(profile: Any) -> dict[str, float]:
    """Seconds by operation, without what it called, over the threads of a ``ProfileData`` that ran compiled code."""
    spent: dict[str, float] = collections.defaultdict(float)
    for plane in profile.planes:
        for line in plane.lines:
            if line.name.startswith("tf_XLA"):
                events = ((e.start_ns, e.end_ns, e.name) for e in line.events)
                for name, duration in self_times(events).items():
                    if "::" not in name and not name.startswith("end: "):  # the executor's own
                        spent[name] += 1e-9 * duration
    return spent


def self_times(events: Iterable[tuple[float, float, str]]) -> dict[str, float]:
    """Time by name of what was innermost, of events (begin, end, name) that nest.

    >>> self_times([(0, 10, "outer"), (2, 5, "inner"), (12, 13, "outer")])
    {'outer': 8, 'inner': 3}
    """
    spent: dict[str, float] = {}
    open_: list[tuple[float, str]] = []
    for begin, end, name in sorted(events, key=lambda e: (e[0], -e[1])):
        while open_ and open_[-1][0] <= begin:
            open_.pop()
        if open_:
            spent[open_[-1][1]] -= end - begin
        spent[name] = spent.get(name, 0) + end - begin
        open_.append((end, name))
    return spent
