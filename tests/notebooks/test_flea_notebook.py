"""The FLEA notebook runs at reduced size."""

from __future__ import annotations

from helpers.reduced_notebook import run_reduced


def test_it_runs_at_reduced_size():
    run_reduced("flea")


def test_it_says_what_it_leaves_out_without_data(tmp_path):
    none = {"SPARSEJAX_DATA": str(tmp_path), "SPARSEJAX_FLEA_PUBLISHED": str(tmp_path / "none.csv")}
    printed = run_reduced("flea", **none)
    assert "No tables" in printed and "No file with published results" in printed
