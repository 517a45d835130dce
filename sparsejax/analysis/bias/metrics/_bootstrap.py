"""Resampling of samples, or of clusters of samples."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sparsejax._checks import fail
from sparsejax.analysis._arrays import ArrayLike, read_categories

# Resamples whose weights are in memory at a time.
_CHUNK = 100
_INTERVAL = (2.5, 97.5)


def read_clusters(function: str, clusters: ArrayLike | None, samples: int) -> np.ndarray | None:
    """Return the cluster of each sample as int[n] from 0, or None."""
    if clusters is None:
        return None
    array = read_categories(function, "clusters", clusters)
    if len(array) != samples:
        fail(function, "clusters", f"shape {array.shape}", f"({samples},), one cluster per sample")
    return np.unique(array, return_inverse=True)[1]


def resamples(samples: int, clusters: np.ndarray | None, n_boot: int, seed: int) -> Iterator[np.ndarray]:
    """Yield weights float32[B, n], how often each sample is drawn in each resample, B in all n_boot.

    The same seed gives the same resamples, so that models compared on them are paired. With clusters, whole
    clusters are drawn, as many as there are.
    """
    rng = np.random.default_rng(seed)
    units = samples if clusters is None else int(clusters.max()) + 1
    for start in range(0, n_boot, _CHUNK):
        size = min(_CHUNK, n_boot - start)
        weights = np.empty((size, units), np.float32)
        for row in weights:
            row[:] = np.bincount(rng.integers(0, units, units), minlength=units)
        yield weights if clusters is None else weights[:, clusters]


def percentile_interval(values: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the 95 % percentile interval over resamples; NaN where more than half of them are undefined."""
    undefined = np.isnan(values).mean(axis=axis) > 0.5
    filled = np.where(np.expand_dims(undefined, axis), 0.0, values)
    if not values.size:  # no pairs of sides
        return filled.sum(axis=axis), filled.sum(axis=axis)
    low, high = np.nanpercentile(filled, _INTERVAL, axis=axis)
    return np.where(undefined, np.nan, low), np.where(undefined, np.nan, high)
