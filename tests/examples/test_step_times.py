"""The timed networks of PyTorch and JAX are the same one, and a missing PyTorch is left out."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))
import step_times


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    return rng.standard_normal((8, 4, 4, 1), np.float32), rng.integers(0, 10, 8, np.int32)


@pytest.mark.parametrize("memory_format", step_times.FORMATS)
def test_both_train_the_same_network(batch, memory_format):
    pytest.importorskip("torch")
    model = step_times.pruned_network(0.5, (4, 8), 0)
    ours, other = step_times.in_jax(model, *batch), step_times.in_torch(model, *batch, memory_format)
    np.testing.assert_allclose([ours.step() for _ in range(3)], [other.step() for _ in range(3)], rtol=1e-4)


def test_without_pytorch_it_is_left_out(monkeypatch):
    monkeypatch.setattr(step_times, "has_torch", lambda: False)
    times = step_times.compare(0.9, (4, 8), 8, 3)
    assert set(times.ms) == {step_times.COMPRESSED, step_times.XLA}
    assert all(each.shape == (3,) and (each > 0).all() for each in times.ms.values())
    assert times.faster(step_times.XLA) > 0 and 0 < times.parameters < 1
