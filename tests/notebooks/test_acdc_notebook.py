"""The AC/DC notebook runs at reduced size."""

from __future__ import annotations

from helpers.reduced_notebook import run_reduced


def test_it_runs_at_reduced_size():
    assert "seen here" in run_reduced("acdc")
