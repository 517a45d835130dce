"""The same bits for any number of threads and in every run."""

from __future__ import annotations

from pathlib import Path

from helpers.processes import run_python, tail
from helpers.sampling import SAMPLE

WORKER = str(Path(__file__).parents[1] / "helpers" / "determinism_worker.py")


def digests(threads: int, repeats: int) -> list[str]:
    """Digests of all results with a pool of so many threads; one if every repeat gave the same bits."""
    process = run_python(WORKER, str(repeats), env={"NPROC": str(threads)}, timeout=300)
    assert process.returncode == 0, tail(process)
    _, size, _, *found = process.stdout.split()
    assert int(size) == threads, "the pool has another size than was asked for"
    return found


def test_one_two_and_five_threads() -> None:
    one = digests(threads=1, repeats=1)
    assert len(one) == 1
    assert digests(threads=2, repeats=20 // SAMPLE) == one
    assert digests(threads=5, repeats=2) == one
