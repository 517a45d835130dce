"""``model``: how fast does a whole network train, where does the time go, and how much memory does that take?"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from sparsejax._table import text_table

from . import _breakdown, _network_memory
from ._layer_times import OK
from .cases import _networks
from .cases._network import NetworkCase, NetworkPeer, Trainer, difference
from .harness import _timing
from .harness._report import BenchmarkReport, milliseconds, progress, times
from .harness._targets import TARGETS, Outcome, outcome, outcome_table
from .harness._timing import Ratio, Sampler
from .peers import networks


def run(options: argparse.Namespace) -> BenchmarkReport:
    """Time a training step of every implementation, or profile ours, or measure memory."""
    others = networks.choose(options.peers)
    cases = [_networks.from_options(options, sparsity, options.dtype) for sparsity in options.sparsity]
    if options.breakdown:
        return _breakdown.run(cases, options.threads)
    if options.memory:
        return _network_memory.run(cases, [networks.OURS, *others], options.threads)
    results = [measure(case, others, options.rounds) for case in cases]
    outcomes = _summary(results, [peer.name for peer in others])
    texts = [result.text() for result in results]
    text = "\n\n".join([*texts, *([outcome_table(outcomes)] if outcomes else [])])
    return BenchmarkReport("model", text, {"rows": [result.to_dict() for result in results], "summary": outcomes})


@dataclasses.dataclass(frozen=True)
class TrainerTime:
    """One way to train: seconds of a step, and how many times longer than ours it takes."""

    name: str
    variant: str
    seconds: float
    rounds: list[float]
    ratio: Ratio
    error: float


@dataclasses.dataclass(frozen=True)
class ModelTimes:
    """The times of all implementations of one network.

    Attributes:
      case: the network.
      status: by implementation, "ok" or why it has no times.
      timed: every variant that computes the right gradients, ours first.
    """

    case: NetworkCase
    status: dict[str, str]
    timed: list[TrainerTime]

    def best(self, name: str) -> TrainerTime | None:
        """Return the fastest variant of an implementation, or None."""
        return min((t for t in self.timed if t.name == name), key=lambda t: t.seconds, default=None)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        case = dataclasses.asdict(self.case)
        return {**case, "status": self.status, "timed": [dataclasses.asdict(t) for t in self.timed]}

    def text(self) -> str:
        """Return a table of all variants, and why implementations are missing."""
        rows = [
            (
                f"{t.name}, {t.variant}",
                milliseconds(t.seconds),
                times(t.ratio.median),
                f"{t.ratio.low:.2f} to {t.ratio.high:.2f}",
                f"{t.error:.0e}",
            )
            for t in self.timed
        ]
        head = f"{self.case.over}, {self.case.sparsity:g} zeros"
        lines = [text_table((head, "ms a step", "ours is faster", "quartiles", "error"), rows)]
        lines += [f"{name} {status}" for name, status in self.status.items() if status != OK]
        return "\n".join(lines)


def measure(case: NetworkCase, others: Sequence[NetworkPeer], rounds: int) -> ModelTimes:
    """Time every variant whose first step equals that of the dense network in Flax, which is always the reference.

    Raises:
      RuntimeError: our own step is wrong.
    """
    status: dict[str, str] = {}
    errors: dict[tuple[str, str], float] = {}
    samplers: dict[tuple[str, str], Sampler] = {}
    reference = dataclasses.replace(case, dtype="float32")
    right = _first_step(case, next(iter(networks.DENSE.variants(reference).values()))())
    for peer in (networks.OURS, *others):
        status[peer.name] = _reason(peer, case) or OK
        for variant, build in (peer.variants(case) if status[peer.name] == OK else {}).items():
            trainer = build()
            error = errors[peer.name, variant] = difference(right, _first_step(case, trainer))
            progress(f"{peer.name}, {variant}: gradients differ by {error:.0e}")
            if error <= peer.tolerance(case):
                samplers[peer.name, variant] = _timing.sampler(trainer.step)
            else:
                status[peer.name] = f"wrong: error {error:.1e} of the gradients' norms ({variant})"
    ours = [key for key in samplers if key[0] == networks.OURS.name]
    if not ours:
        raise RuntimeError(f"model: sparsejax is {status[networks.OURS.name]}")
    seconds = _timing.interleave(samplers, rounds)
    timed = [
        TrainerTime(*key, _timing.median(taken), taken, _timing.ratio(taken, seconds[ours[0]]), errors[key])
        for key, taken in seconds.items()
    ]
    jax.clear_caches()
    return ModelTimes(case, status, timed)


def _reason(peer: NetworkPeer, case: NetworkCase) -> str | None:
    """Return why an implementation cannot run, or None."""
    if absent := peer.absent():
        return f"absent: {absent}"
    unsupported = peer.unsupported(case)
    return f"unsupported: {unsupported}" if unsupported else None


def _first_step(case: NetworkCase, trainer: Trainer) -> tuple[float, dict[str, np.ndarray]]:
    loss = trainer.step()
    return loss, case.masked(trainer.gradients())


def _summary(results: list[ModelTimes], names: list[str]) -> list[Outcome]:
    """The project's targets for these networks, types and sparsities."""
    outcomes = []
    for result in results:
        case = result.case
        for name in names:
            key = f"{case.network} {case.dtype} {name} {100 * case.sparsity:g}"
            if key in TARGETS:
                best = result.best(name)
                over = f"{case.title}, batch {case.batch}"
                over = f"{over}, {best.variant}" if best else over
                wide = result.best("torch")
                if wide is not None and name == "torch_bfloat16":  # bfloat16 is not the faster type everywhere
                    over = f"{over}; against PyTorch in float32 {times(wide.ratio.median)}"
                outcomes.append(outcome(key, best.ratio.median if best else None, over))
    return outcomes
