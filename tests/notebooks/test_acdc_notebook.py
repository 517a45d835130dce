"""The AC/DC notebook runs at reduced size."""

from __future__ import annotations

from helpers.reduced_notebook import run_reduced


def test_it_runs_at_reduced_size():
    printed = run_reduced("acdc")
    assert "stored here: verdicts" in printed and "times faster than XLA dense" in printed
