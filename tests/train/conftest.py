"""Fixtures for the tests of training."""

from __future__ import annotations

import dataclasses

import pytest

from helpers.small_run import CONFIG, make_model
from sparsejax.data import Dataset, digits
from sparsejax.train import Run


@pytest.fixture(scope="module", autouse=True)
def compiled_quickly(quick_compilation) -> None:
    """Compile the programs of these tests quickly; those in processes of their own compile as users do."""


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
def run(dataset, tmp_path_factory) -> Run:
    """One run for many tests: its programs are compiled once."""
    out = tmp_path_factory.mktemp("run")
    return Run(CONFIG, out, dataset=dataset, model=make_model(), checkpoint_every=2)
