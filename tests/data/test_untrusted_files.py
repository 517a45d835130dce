"""Mutated files: each is read or refused with one line that names it, in bounded memory.

The campaign: ``SPARSEJAX_FUZZ_INPUTS=100000 pytest -m slow tests/data/test_untrusted_files.py``.
"""

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
BATCH = 250


def fuzz(case: Case, examples: int, *, derandomize: bool) -> tuple[int, int]:
    """Read so many mutated files; return how many were tried and how many were refused."""
    counts = [0, 0]

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=derandomize,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, 15), mutations.changes)
    def run(which: int, edits: list[mutations.Change]) -> None:
        counts[1] += case.run(which, edits)
        counts[0] += 1

    with limited_address_space(4 << 30):
        run()
    return counts[0], counts[1]


@pytest.mark.parametrize("name", PARSERS)
def test_mutated_files_are_read_or_refused(name, tmp_path):
    tried, refused = fuzz(Case(name, tmp_path / "root"), 15, derandomize=True)
    assert tried >= 10 and refused


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", PARSERS)
def test_campaign_of_mutated_files(name, tmp_path, capsys):
    """SPARSEJAX_FUZZ_INPUTS (100,000 by default) are shared by the parsers; SPARSEJAX_FUZZ_SECONDS bounds the time."""
    share = int(os.environ.get("SPARSEJAX_FUZZ_INPUTS", "100000")) // len(PARSERS) + 1
    stop = time.monotonic() + float(os.environ.get("SPARSEJAX_FUZZ_SECONDS", "360000")) / len(PARSERS)
    case = Case(name, tmp_path / "root")
    tried = refused = 0
    while tried < share and time.monotonic() < stop:
        more_tried, more_refused = fuzz(case, min(BATCH, share - tried), derandomize=False)
        tried, refused = tried + more_tried, refused + more_refused
    with capsys.disabled():
        print(f"\n{name}: {tried} tried, {refused} refused, 0 failed")
