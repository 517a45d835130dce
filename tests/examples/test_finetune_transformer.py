"""The example with a transformer at reduced size: it learns, is pruned, and comes back to its accuracy, sparse."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import finetune_transformer as example


@pytest.mark.slow
def test_a_small_transformer_is_fine_tuned_sparse() -> None:
    outcome = example.run(32, 1, 10, sparsity=0.85, measure=False)
    assert outcome.layers == 4 and 0.8 < outcome.sparse.sparsity < 0.86
    assert outcome.dense > 0.5 and outcome.sparse.accuracy > max(0.5, outcome.pruned)
    assert "layers stored sparse; " in str(outcome) and "rounds" in str(outcome)
