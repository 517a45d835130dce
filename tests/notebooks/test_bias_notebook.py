"""The bias notebook runs at reduced size."""

from __future__ import annotations

from helpers.reduced_notebook import run_reduced


def test_it_runs_at_reduced_size(tmp_path):
    run_reduced("bias", SPARSEJAX_BIAS_REPORT=str(tmp_path / "report.html"))
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")
