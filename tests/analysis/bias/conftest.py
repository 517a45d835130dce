"""One comparison that the tests of this folder share."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.analysis_inputs import make_inputs
from sparsejax.analysis import bias


@pytest.fixture(scope="session")
def inputs():
    return make_inputs()


@pytest.fixture(scope="session")
def report(inputs):
    images = np.random.default_rng(1).random((600, 10, 10))
    return bias.compare(**inputs, n_boot=50, images=images)
