"""The comparison of training steps, and its table."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from sparsejax import nn
from sparsejax.models import MLP
from sparsejax.train import StepComparison, StepCost, compare_steps
from sparsejax.train.results import _step_cost
from sparsejax.train.results._tables import comparison_table


@pytest.fixture(scope="module")
def models():
    dense = MLP(6, 3, hidden=(8,), rngs=nnx.Rngs(0))
    mask = np.zeros((6, 8), bool)
    mask[::2, ::2] = True
    sparse, _ = nn.sparsify(dense, {"layers/0": mask}, min_sparsity=0.5, policy="always", skip=("fc",))
    return dense, sparse


def test_steps_are_interleaved_and_the_models_left_alone(models, monkeypatch):
    order, clock = [], iter(range(1, 1000))
    before = [jax.tree.map(jnp.array, nnx.state(model, nnx.Param)) for model in models]

    def milliseconds(step, images, labels):
        step(images, labels)
        order.append(id(step))
        return float(next(clock))

    monkeypatch.setattr(_step_cost, "_milliseconds", milliseconds)
    cost = compare_steps(*models, optax.adam(0.1), jnp.ones((4, 6)), jnp.array([0, 1, 2, 0]), repeats=7)
    assert len(order) == 2 * (7 + 2) and len(set(order)) == 2
    assert order == [order[0], order[1]] * 9
    # Calls 1 to 4 are warm-up; the medians are the fourth of the rest.
    assert (cost.dense.ms, cost.sparse.ms) == (11.0, 12.0)
    for model, old in zip(models, before, strict=True):
        jax.tree.map(np.testing.assert_array_equal, nnx.state(model, nnx.Param), old)


def test_bytes(models):
    cost = compare_steps(*models, optax.adam(0.1), jnp.ones((4, 6)), jnp.zeros(4, int), repeats=7)
    rest = 8 + 8 * 3 + 3
    assert cost.dense.parameter_bytes == 4 * (48 + rest)
    assert cost.sparse.parameter_bytes == 4 * (12 + rest)
    assert cost.dense.optimizer_bytes - cost.sparse.optimizer_bytes == 2 * 4 * (48 - 12)
    assert (cost.dense.pattern_bytes, cost.sparse.pattern_bytes) == (0, 4 * (3 * 12 + 9 + 7))


def test_too_few_repeats(models):
    with pytest.raises(ValueError, match="repeats has value 6; expected at least 7"):
        compare_steps(*models, optax.sgd(0.1), jnp.ones((4, 6)), jnp.zeros(4, int), repeats=6)


def test_the_table_says_faster_or_slower():
    fast, slow = StepCost(1.0, 1024, 2048, 1024), StepCost(4.0, 8192, 0, 8192)
    assert StepComparison(slow, fast, 9).speedup == 4.0
    text = comparison_table(StepComparison(slow, fast, 9), (0.5, 0.25))
    assert "4.00x faster" in text and "50.00 %" in text and "25.00 %" in text and "16 KiB" in text
    quick = StepCost(0.25, 8192, 0, 8192)
    assert "4.00x slower" in comparison_table(StepComparison(quick, fast, 9), (None, 0.25))
