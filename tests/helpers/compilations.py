"""Counts what JAX traces and compiles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax

_COUNTED = {
    "/jax/core/compile/jaxpr_trace_duration": "traced",
    "/jax/core/compile/backend_compile_duration": "compiled",
}
_open: list[Counter[str]] = []


def _listen(event: str, duration: float, **details: Any) -> None:
    if event in _COUNTED:
        for counter in _open:
            counter[_COUNTED[event]] += 1


jax.monitoring.register_event_duration_secs_listener(_listen)


@contextmanager
def compilations() -> Iterator[Counter[str]]:
    """Count functions that are "traced" and programs that are "compiled" inside."""
    counter: Counter[str] = Counter()
    _open.append(counter)
    try:
        yield counter
    finally:
        _open.remove(counter)
