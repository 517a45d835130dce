"""Fixtures for the tests of training."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

from helpers.small_run import CONFIG, make_model
from sparsejax.data import Dataset, digits
from sparsejax.models import ConvNet
from sparsejax.train import TrainRun


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    full = digits()
    return dataclasses.replace(
        full,
        train_images=full.train_images[:97],
        train_labels=full.train_labels[:97],
        test_images=full.test_images[:40],
        test_labels=full.test_labels[:40],
    )


@pytest.fixture(scope="session")
def initial() -> tuple[ConvNet, Any]:
    """The model that ``run`` is built from, and a copy of its parameters as they were before that."""
    model = make_model()
    return model, jax.tree.map(np.array, nnx.state(model, nnx.Param))


@pytest.fixture(scope="session")
def run(dataset, initial, tmp_path_factory) -> TrainRun:
    """One run for many tests: its programs are compiled once."""
    out = tmp_path_factory.mktemp("run")
    return TrainRun(CONFIG, out, dataset=dataset, model=initial[0], checkpoint_every=2)
