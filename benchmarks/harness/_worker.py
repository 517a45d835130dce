"""A pinned process that measures on request: for other instruction sets, other numbers of threads, its own memory."""

from __future__ import annotations

import dataclasses
import os
import sys
from typing import Any

from . import _machine
from ._child import Child, serve


def start(threads: int, **variables: str) -> Child:
    """Start a worker.

    Args:
      threads: processors it may use, the first of this process's.
      variables: of its environment, beside this process's.
    """
    environment = {**_machine.pinned_environment(threads), **variables}
    return Child([sys.executable, "-m", __name__], environment)


def _peak(seconds: float) -> dict[str, Any]:
    from . import _peak as probes

    return dataclasses.asdict(probes.measure(len(os.sched_getaffinity(0)), seconds))


class _Layer:
    """The layer that ``scaling`` asks for."""

    def __init__(self) -> None:
        self.held: Any = None

    def prepare(self, shape: dict[str, Any], sparsity: float) -> dict[str, str]:
        """Build the layer; see `scaling.Held`."""
        from sparsejax._allocator import keep_memory

        from .. import scaling

        keep_memory()  # as where layers are compared
        self.held = None  # free the one before first
        self.held = scaling.Held(shape, sparsity)
        return self.held.digests

    def sample(self, product: str, calls: int) -> float:
        """Seconds of so many calls."""
        return self.held.sample(product, calls)


def _memory(**arguments: Any) -> int:
    from .. import _network_memory as memory

    return memory.measure(**arguments)


if __name__ == "__main__":
    _machine.pin()
    layer = _Layer()
    serve({"peak": _peak, "prepare": layer.prepare, "sample": layer.sample, "memory": _memory})
