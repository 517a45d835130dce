"""Malformed arrays and attributes handed to the FFI targets directly: an error or a defined result, never a crash."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from helpers.processes import LITTLE_OPTIMIZED, run_python, tail
from helpers.sampling import SAMPLE

WORKER = str(Path(__file__).parents[1] / "helpers" / "fuzz_worker.py")
PEAK_MIB = 3000


def fuzz(seed: int, first: int, last: int, timeout: float) -> None:
    """Run the cases in one process, with results poisoned, and check that the checks were both passed and failed."""
    poison = {"SPARSEJAX_POISON": "1"} | LITTLE_OPTIMIZED
    process = run_python(WORKER, str(seed), str(first), str(last), timeout=timeout, env=poison)
    assert process.returncode == 0, tail(process)
    found = re.search(r"accepted (\d+) peak (\d+)", process.stdout)
    assert found, tail(process)
    accepted, peak = map(int, found.groups())
    assert 0.3 < accepted / (last - first) < 0.8
    assert peak < PEAK_MIB, f"{peak} MiB of memory"


def test_a_few_hundred_cases() -> None:
    fuzz(seed=0, first=0, last=500 // SAMPLE, timeout=300)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_twenty_thousand_cases(part: int) -> None:
    fuzz(seed=1, first=5000 * part, last=5000 * (part + 1), timeout=590)


def test_absurd_geometry() -> None:
    """Sizes that no buffer bounds, as in zero-size arrays: refused or answered at once, without wrapping round."""
    process = run_python(WORKER, "absurd", timeout=120)
    assert process.returncode == 0, tail(process)
    answers = process.stdout.splitlines()
    assert len(answers) == 8
    assert all(re.search("taps times phases|smallest tile|accepted", answer) for answer in answers), answers
