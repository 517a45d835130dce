"""The example with a stock ViT and GPT: every pruned kernel runs sparse, losses are those of masked training."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import any_flax_model as example

pytestmark = pytest.mark.slow  # tests/nn/test_any_flax_model.py has a short form


@pytest.mark.parametrize("name", ["GPT", "ViT"])
def test_stock_models_train_sparse_as_they_train_masked(name: str) -> None:
    result = example.compare(*example.tasks(64, 1, 2)[name], steps=50, policy="always")
    kernels = [row for row in result.report.rows if row.path != "head"]
    pruned = [row for row in kernels if row.sparsity and row.sparsity > 0.8]
    assert len(pruned) == 6 + (name == "ViT")
    assert all(row.action == "sparse" for row in pruned)
    assert result.losses[0][-1] < result.losses[0][0]
    assert result.difference < 1e-4
