"""Mutated files: each is read or refused with one line that names it, in bounded memory."""

from __future__ import annotations

import os
import sys
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers import file_mutations as mutations
from helpers.untrusted_files import PARSERS, Case, limited_address_space

pytest.importorskip("torch")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


def fuzz(case: Case, examples: int, seconds: float, *, derandomize: bool) -> tuple[int, int]:
    """Run examples until they or the time are used up; return how many ran and how many were refused."""
    counts = [0, 0]
    stop = time.monotonic() + seconds

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=derandomize,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, 15), mutations.changes)
    def run(which: int, edits: list[mutations.Change]) -> None:
        if time.monotonic() < stop or counts[0] < 0:
            tried, counts[0] = counts[0], -1  # a failing example is run again, whatever the time
            counts[1] += case.run(which, edits)
            counts[0] = tried + 1

    with limited_address_space(4 << 30):
        run()
    return counts[0], counts[1]


@pytest.mark.parametrize("name", PARSERS)
def test_mutated_files_are_read_or_refused(name, tmp_path):
    tried, refused = fuzz(Case(name, tmp_path / "root"), 15, 60, derandomize=True)
    assert tried >= 10 and refused


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", PARSERS)
def test_campaign_of_mutated_files(name, tmp_path, capsys):
    """SPARSEJAX_FUZZ_INPUTS (100,000 by default) are shared by the parsers; SPARSEJAX_FUZZ_SECONDS bounds the time."""
    share = int(os.environ.get("SPARSEJAX_FUZZ_INPUTS", "100000")) // len(PARSERS) + 1
    seconds = float(os.environ.get("SPARSEJAX_FUZZ_SECONDS", "36000")) / len(PARSERS)
    tried, refused = fuzz(Case(name, tmp_path / "root"), share, seconds, derandomize=False)
    with capsys.disabled():
        print(f"\n{name}: {tried} tried, {refused} refused, 0 failed")
