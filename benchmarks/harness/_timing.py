"""How times are taken: alternately, as medians, with ratios within a round."""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

from sparsejax._checks import fail

FEWEST_ROUNDS = 7

# A sample lasts at least this long, so that the clock and a stray interrupt do not count.
SHORTEST_SAMPLE = 2e-3
# Between samples: the threads of the previous library go to sleep.
PAUSE = 2e-3
# Calls shorter than this run once before a sample is timed: the pause and the other libraries left the caches cold.
COLD = 20e-3

LONG = 5.0

# Seconds that so many calls take.
Sampler = Callable[[int], float]
Name = TypeVar("Name", bound=Hashable)


def sampler(call: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> Sampler:
    """A sampler of a function that returns when its work is done."""

    def sample(calls: int) -> float:
        start = clock()
        for _ in range(calls):
            call()
        return clock() - start

    return sample


def interleave(
    samplers: Mapping[Name, Sampler], rounds: int, sleep: Callable[[float], None] = time.sleep
) -> dict[Name, list[float]]:
    """Time implementations alternately: A B C A B C ...

    Args:
      samplers: one per implementation; each is run first, which warms it up and tells how long a call takes.
      rounds: samples of each, at least ``FEWEST_ROUNDS``.
      sleep: pauses between samples, seconds.

    Returns:
      Seconds per call, one number per round.

    Raises:
      ValueError: too few rounds.

    >>> {name: len(times) for name, times in interleave({"a": sampler(lambda: None)}, 7).items()}
    {'a': 7}
    """
    if rounds < FEWEST_ROUNDS:
        fail("bench", "--rounds", f"value {rounds}", f"at least {FEWEST_ROUNDS}")
    calls, warm = {}, {}
    for name, sample in samplers.items():
        seconds = sample(1)
        if seconds < LONG:  # the first call of a long one tells enough, compiled code or not
            seconds = sample(1)
        calls[name] = max(1, math.ceil(SHORTEST_SAMPLE / seconds)) if seconds > 0 else 1000
        warm[name] = seconds < COLD
    times: dict[Name, list[float]] = {name: [] for name in samplers}
    for _ in range(rounds):
        for name, sample in samplers.items():
            sleep(PAUSE)
            if warm[name]:
                sample(1)
            times[name].append(sample(calls[name]) / calls[name])
    return times


def median(times: Sequence[float]) -> float:
    """The median, which a stray interrupt does not move."""
    return statistics.median(times)


@dataclasses.dataclass(frozen=True)
class Ratio:
    """How many times longer one implementation takes than another: the median over rounds, and the quartiles.

    A ratio within a round is of neighbours in time, so that a slow minute of the machine slows both.
    """

    median: float
    low: float
    high: float


def ratio(numerator: Sequence[float], denominator: Sequence[float]) -> Ratio:
    """Compare two implementations round by round.

    >>> ratio([2.0, 4.0, 6.0], [1.0, 2.0, 2.0]).median
    2.0
    """
    quotients = [a / b for a, b in zip(numerator, denominator, strict=True)]
    low, _, high = statistics.quantiles(quotients, n=4, method="inclusive")
    return Ratio(median(quotients), low, high)


def geometric_mean(values: Sequence[float]) -> float | None:
    """Geometric mean, or None of nothing.

    >>> geometric_mean([1.0, 4.0])
    2.0
    """
    return statistics.geometric_mean(values) if values else None
