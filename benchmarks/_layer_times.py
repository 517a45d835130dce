"""Check and time every implementation of one layer."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Iterator, Sequence
from typing import Any

import jax

from .cases._case import Case
from .harness import _timing
from .harness._timing import Ratio
from .peers import OURS, Call, Peer, Variant
from .peers.ours import ALONE, BETWEEN

OK = "ok"


@dataclasses.dataclass(frozen=True)
class LayerTime:
    """One measure of one implementation: its fastest variant, seconds per round, and the ratio to ours."""

    variant: str
    seconds: float
    rounds: list[float]
    ratio: Ratio | None


@dataclasses.dataclass
class LayerTimes:
    """The times of all implementations of one layer.

    Attributes:
      case: what was computed.
      status: by implementation, "ok" or why it has no times; "wrong: ..." if its result differs from the oracle.
      times: by measure ("forward", "step", ...), then by implementation. Ours has two entries: "sparsejax" between
        sparse layers, to which ratios are taken, and "alone" with row-major activations in and out; in bfloat16 they
        are "sparsejax_bfloat16" and "alone_bfloat16".
    """

    case: Case
    status: dict[str, str]
    times: dict[str, dict[str, LayerTime]]

    def ratio(self, measure: str, *names: str) -> float | None:
        """Return how many times longer the fastest of these implementations takes than ours, or None."""
        timed = [self.times.get(measure, {}).get(name) for name in names]
        measured = [t for t in timed if t is not None and t.ratio is not None]
        return min(measured, key=lambda t: t.seconds).ratio.median if measured else None  # type: ignore[union-attr]

    def speedup(self, measure: str, name: str, base: str) -> float | None:
        """Return how many times faster an implementation is than a base: the median over rounds, or None."""
        by_name = self.times.get(measure, {})
        if name not in by_name or base not in by_name:
            return None
        return _timing.ratio(by_name[base].rounds, by_name[name].rounds).median

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        times = {m: {name: dataclasses.asdict(t) for name, t in by.items()} for m, by in self.times.items()}
        case = {**dataclasses.asdict(self.case.shape), "sparsity": self.case.sparsity, "seed": self.case.seed}
        return {**case, "nnz": self.case.nnz, "flops": self.case.flops, "status": self.status, "times": times}


def run(case: Case, others: Sequence[Peer], measures: Sequence[str], rounds: int) -> LayerTimes:
    """Check and time ours and the implementations.

    Args:
      case: the layer.
      others: implementations other than ours, which is always measured.
      measures: in the order in which they are timed; an implementation without one is left out of it.
      rounds: of `interleave`.
    """
    result = _measure(case, others, measures, rounds)
    jax.clear_caches()
    gc.collect()  # cycles between compiled functions and their operands hold activations
    return result


def _measure(case: Case, others: Sequence[Peer], measures: Sequence[str], rounds: int) -> LayerTimes:
    status: dict[str, str] = {}
    variants = {peer.name: _enter(peer, case, status) for peer in (OURS, *others)}
    tolerances = {peer.name: peer.tolerance for peer in (OURS, *others)}
    times: dict[str, dict[str, LayerTime]] = {}
    for measure in measures:
        right = {}
        for (name, variant), call in _calls(variants, measure):
            verdict = _check(case, call, tolerances[name])
            if verdict == OK:
                right[name, variant] = call.sampler
            elif not status[name].startswith("wrong"):  # a wrong result is worse than none: it stays in the report
                status[name] = f"{verdict} ({variant}, {measure})"
        times[measure] = _best(_timing.interleave(right, rounds))
    return LayerTimes(case, status, times)


def _enter(peer: Peer, case: Case, status: dict[str, str]) -> list[Variant]:
    """Variants of an implementation; if it cannot run, none, and the reason goes to ``status``."""
    absent = peer.absent()
    reason = f"absent: {absent}" if absent else None
    if reason is None and (unsupported := peer.unsupported(case)):
        reason = f"unsupported: {unsupported}"
    status[peer.name] = reason or OK
    if reason is not None:
        return []
    try:
        return peer.prepare(case)
    except Exception as error:  # other people's libraries may raise anything; the report says what
        status[peer.name] = f"failed: {_line(error)}"
        return []


def _calls(variants: dict[str, list[Variant]], measure: str) -> Iterator[tuple[tuple[str, str], Call]]:
    for name, choices in variants.items():
        for variant in choices:
            if measure in variant.calls:
                yield (name, variant.name), variant.calls[measure]


def _check(case: Case, call: Call, tolerance: float) -> str:
    try:
        error = case.error(call.read(call.run()))
    except Exception as failure:  # as above
        return f"failed: {_line(failure)}"
    return OK if error <= tolerance else f"wrong: error {error:.1e} of the root mean square"


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]


def _best(rounds: dict[tuple[str, str], list[float]]) -> dict[str, LayerTime]:
    """The faster variant of each implementation; both of ours."""
    ours = rounds.get((OURS.name, BETWEEN))
    best: dict[str, LayerTime] = {}
    for (name, variant), seconds in rounds.items():
        key = f"{ALONE}{name.removeprefix(OURS.name)}" if variant == ALONE else name
        against = None if ours is None else _timing.ratio(seconds, ours)
        timed = LayerTime(variant, _timing.median(seconds), seconds, against)
        if key not in best or timed.seconds < best[key].seconds:
            best[key] = timed
    return best
