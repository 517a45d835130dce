"""The transfer notebook's text runs at reduced size."""

from __future__ import annotations

import pytest

from helpers.reduced_notebook import run_reduced


@pytest.mark.parametrize("with_data", [True, False])
def test_it_runs_at_reduced_size(tmp_path, with_data, request):
    folder = request.getfixturevalue("shared_data") if with_data else tmp_path
    printed = run_reduced("transfer", SPARSEJAX_DATA=str(folder))
    assert ("is skipped" in printed) == (not with_data)
