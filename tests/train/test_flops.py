"""Operations of a run, against counts by hand."""

from __future__ import annotations

import jax.numpy as jnp
import pytest

from helpers.small_run import make_model
from sparsejax import nn
from sparsejax.train.log._metrics import MetricsRow
from sparsejax.train.results._flops import FlopCounter, total_training_flops

# ConvNet of widths 4 and 8 on 8 x 8 pixels: operations per example that are no products.
NORM = 2 * (64 * 4 + 16 * 8)
RELU = 64 * 4 + 16 * 8
POOLING = 4 * 16 * 4 + 16 * 8  # maximum over 2 x 2 to 16 pixels of 4 channels; average over 16 pixels of 8


def test_a_network_by_hand():
    model = make_model()
    counter = FlopCounter(model, (8, 8, 1))
    products = 2 * 36 * 64 + 2 * 288 * 16 + 2 * 80 + 10
    assert counter.dense == products + NORM + RELU + POOLING
    # The numbers that are not zero count, not the mask.
    assert counter.forward(model) == counter.dense
    kernel = model.convs[1].kernel
    kernel[...] = kernel[...].at[0].set(0.0)
    assert counter.forward(model) == counter.dense - 2 * 96 * 16


def test_both_forms_count_the_same():
    model = make_model()
    counter = FlopCounter(model, (8, 8, 1))
    kernel = model.convs[1].kernel
    kernel[...] = jnp.where(jnp.abs(kernel[...]) > 0.2, kernel[...], 0.0)
    sparse, _ = nn.sparsify(model, min_sparsity=0.0, policy="always", skip=("convs/0", "fc"))
    sparse.convs[1].reserve(288)
    assert counter.forward(sparse) == counter.forward(model) < counter.dense


def test_training_is_three_forward_passes_per_example():
    def row(step: int, flops: int | None) -> MetricsRow:
        return MetricsRow(step, 0, "dense", 0.0, None, 0.0, None, flops, 1.0)

    rows = [row(1, None), row(2, 100), row(3, None), row(4, None), row(5, 10), row(6, None)]
    assert total_training_flops(rows, 8) == 3 * 8 * (2 * 100 + 3 * 10)
    assert total_training_flops([], 8) == pytest.approx(0)
