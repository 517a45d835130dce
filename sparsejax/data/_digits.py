"""The handwritten digits bundled with scikit-learn."""

from __future__ import annotations

import numpy as np

from sparsejax._checks import fail
from sparsejax._extras import require
from sparsejax.data._dataset import Dataset

_LARGEST_PIXEL = 16.0


def digits(*, seed: int = 0, test_fraction: float = 0.2) -> Dataset:
    """Return the 1,797 handwritten digits bundled with scikit-learn, 8 x 8 pixels, 10 classes.

    The examples are permuted by ``numpy.random.default_rng(seed)``; the first ``round(test_fraction *
    1797)`` of them are the test examples. The same seed gives the same split. Writers are mixed across the
    split.

    Args:
      seed: seed of the split, at least 0.
      test_fraction: fraction of test examples, in (0, 1).

    Returns:
      A `Dataset` with images float32[N, 8, 8, 1] in [0, 1].

    Raises:
      ImportError: scikit-learn is not installed.
      ValueError: a negative seed, or a fraction that leaves a split empty.

    Source: UCI "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak 1998), its test part.

    >>> data = digits()
    >>> data.train_images.shape, data.test_images.shape
    ((1438, 8, 8, 1), (359, 8, 8, 1))
    """
    datasets = require("sklearn.datasets", "digits")
    if seed < 0:
        fail("digits", "seed", f"value {seed}", "at least 0")
    bundle = datasets.load_digits()
    images, labels = bundle.images[..., None], bundle.target
    count = len(labels)
    test_count = round(test_fraction * count) if 0 < test_fraction < 1 else 0
    if not 0 < test_count < count:
        fail("digits", "test_fraction", f"value {test_fraction}", "a fraction in (0, 1), no split empty")
    images = (images / _LARGEST_PIXEL).astype(np.float32)
    labels = labels.astype(np.int32)
    order = np.random.default_rng(seed).permutation(count)
    test, train = order[:test_count], order[test_count:]
    return Dataset("digits", images[train], labels[train], images[test], labels[test], 10)
