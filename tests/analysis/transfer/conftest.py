"""A tiny network with batch norm, sparse weights, and data for it."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from flax import nnx

from sparsejax.data import ArrayImageSplit, ImageTask
from sparsejax.models import ConvNet


@pytest.fixture
def convnet():
    """Return a ConvNet of which 90 % of the second and third convolution are zero, with batch statistics."""
    model = ConvNet(5, in_features=1, widths=(4, 8, 8), rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    for layer in model.convs[1:]:
        kernel = np.array(layer.kernel[...])
        kernel[rng.random(kernel.shape) < 0.9] = 0
        layer.kernel[...] = jax.numpy.asarray(kernel)
    for norm in model.bns:
        norm.mean[...] = jax.numpy.asarray(rng.normal(0, 0.1, norm.mean.shape), np.float32)
    return model


@pytest.fixture
def task():
    """Return 40 training and 30 test images of three classes that differ in brightness, 8 x 8."""
    rng = np.random.default_rng(1)

    def split(count):
        labels = np.arange(count, dtype=np.int32) % 3
        pixels = rng.normal(0, 0.5, (count, 8, 8, 1)) + labels[:, None, None, None]
        return ArrayImageSplit(pixels.astype(np.float32), labels)

    return ImageTask("bright", split(40), split(30), 3)
