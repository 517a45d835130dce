"""Many Python threads on a small pool: no deadlock, no wrong result."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.processes import run_python, tail

WORKER = str(Path(__file__).parents[1] / "helpers" / "threads_worker.py")


@pytest.mark.parametrize("seconds", [5, pytest.param(60, marks=pytest.mark.slow)])
def test_eight_threads_on_a_pool_of_two(seconds: int) -> None:
    """A deadlock shows as a timeout of the process."""
    process = run_python(WORKER, str(seconds), env={"NPROC": "2"}, timeout=seconds + 90)
    assert process.returncode == 0, tail(process)
    steps = [int(count) for count in process.stdout.split()[1:]]
    assert len(steps) == 8 and min(steps) > 0, steps
