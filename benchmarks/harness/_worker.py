"""A pinned process that measures on request: other instruction sets, other numbers of threads, its memory.

``python -m sparsejax_bench.harness._worker MODULE:CLASS`` makes one object of that class and serves its methods.
"""

from __future__ import annotations

import importlib
import sys

from . import _machine
from ._child import Child, serve


def start(service: type, threads: int, **variables: str) -> Child:
    """Start a worker.

    Args:
      service: its public methods are the requests; the worker imports it by name.
      threads: processors it may use, the first of this process's.
      variables: of its environment, beside this process's.
    """
    environment = {**_machine.pinned_environment(threads), **variables}
    return Child([sys.executable, "-m", __name__, f"{service.__module__}:{service.__qualname__}"], environment)


if __name__ == "__main__":
    _machine.pin()
    module, _, name = sys.argv[1].partition(":")
    serve(getattr(importlib.import_module(module), name)())
