"""Batches that are read in threads ahead of the step that needs them, in order, and a bounded number of them."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, TypeVar

from sparsejax._extras import require

T = TypeVar("T")

# Results that wait for each thread: one being used, one ready.
_AHEAD = 2


def read_ahead(read: Callable[[int], T], start: int, stop: int, *, threads: int = 2) -> Generator[T]:
    """Call ``read(start)``, ..., ``read(stop - 1)`` in threads, and yield the results in this order.

    At most two results for each thread are read before they are needed, so memory does not grow with ``stop``. Which
    thread reads what does not matter to the results, if ``read`` is a function of its argument alone. An error of
    ``read`` is raised in its place in the order.

    Args:
      read: returns the batch with a number.
      start, stop: first number, and one after the last.
      threads: 0 reads each result when it is asked for, in the calling thread.

    Raises:
      ImportError: grain is missing, which has the threads; not with ``threads=0``.

    >>> list(read_ahead(lambda number: number**2, 2, 5, threads=0))
    [4, 9, 16]
    """
    if not threads or stop <= start:
        yield from map(read, range(start, stop))
        return
    grain: Any = require("grain", "read_ahead", "all")
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=_AHEAD * threads)
    results: Any = iter(grain.MapDataset.range(start, stop).map(read).to_iter_dataset(options))
    try:
        yield from results
    finally:
        results.close()
