"""The limits of this machine: fused multiply-adds and read bandwidth, of all pinned threads together."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sparsejax import machine

from ._machine import cache_sizes

MEMORY = "memory"
# A buffer of this part of a cache stays in it, beside stack and code; memory is probed with many times the last one.
_PART = 0.5
_BEYOND = 8
_MOST_MEMORY = 2**30
_MEMORY_WITHOUT_CACHES = 2**28


@dataclasses.dataclass(frozen=True)
class Peak:
    """Highest rates.

    Attributes:
      isa: instruction set.
      threads: that ran at once.
      flops: float32 flop/s of fused multiply-adds, two each.
      read: bytes/s by level, fastest first: "L1", "L2", "L3" as far as they exist, then "memory".
      capacity: bytes of each cache; private caches count once per thread.
    """

    isa: str
    threads: int
    flops: float
    read: dict[str, float]
    capacity: dict[str, int]

    def level(self, size: int) -> str:
        """The fastest level that holds so many bytes.

        >>> Peak("avx2", 1, 1e9, {"L1": 2e9, "memory": 1e9}, {"L1": 100}).level(101)
        'memory'
        """
        return next((name for name, capacity in self.capacity.items() if size <= capacity), MEMORY)


def measure(threads: int, seconds: float = 0.3) -> Peak:
    """Run every probe on all threads at once, each for so many seconds."""
    caches = cache_sizes()
    shared = max(caches, default=None)  # the last level is shared by all threads, the others are private to a thread
    capacity = {name: size if name == shared else size * threads for name, size in caches.items()}
    sizes = {name: int(_PART * size / (threads if name == shared else 1)) for name, size in caches.items()}
    sizes[MEMORY] = min(_MOST_MEMORY, _BEYOND * caches[shared] // threads) if shared else _MEMORY_WITHOUT_CACHES
    with ThreadPoolExecutor(threads) as pool:

        def together(probe: Callable[[], float]) -> float:
            return sum(future.result() for future in [pool.submit(probe) for _ in range(threads)])

        flops = together(lambda: machine.measure_flops(seconds))
        read = {
            name: together(lambda size=size: machine.measure_read_bandwidth(size, seconds))
            for name, size in sizes.items()
        }
    return Peak(machine.cpu_info().isa, threads, flops, read, capacity)


class PeakProbes:
    """`measure` in a worker process, for another instruction set."""

    def measure(self, seconds: float) -> dict[str, Any]:
        """Run every probe on all processors of this process; the fields of a `Peak`."""
        return dataclasses.asdict(measure(len(os.sched_getaffinity(0)), seconds))
