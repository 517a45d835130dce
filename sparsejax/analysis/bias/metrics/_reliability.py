"""Calibration of probabilities: the reliability table and the expected calibration error."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sparsejax.analysis._arrays import ArrayLike, NumberLike, read_integer
from sparsejax.analysis.bias.metrics._arrays import labels, probabilities, same_shape
from sparsejax.analysis.bias.metrics._measured import divide


class ReliabilityTable(NamedTuple):
    """One row per bucket of the predicted probability; arrays [B, K].

    Attributes:
      lower: float64[B], lower edge of the bucket.
      mean_prob: mean predicted probability, NaN in an empty bucket.
      mean_label: share of positives, NaN in an empty bucket.
      count: number of samples.
    """

    lower: np.ndarray
    mean_prob: np.ndarray
    mean_label: np.ndarray
    count: np.ndarray  # pyright: ignore[reportIncompatibleMethodOverride]


def reliability_table(
    y_true: ArrayLike, y_prob: ArrayLike, *, n_bins: int = 10, legacy: bool = False, missing: NumberLike | None = None
) -> ReliabilityTable:
    """Compare predicted probabilities of the positive class with observed frequencies, bucket by bucket.

    bucket(p) = floor(n_bins * p), with p = 1 in the last one

    Args:
      y_true: labels [n] or [n, K].
      y_prob: probabilities of the positive class, same shape.
      n_bins: number of buckets.
      legacy: put p = 1 into a separate bucket, as the paper's code does.
      missing: a value that marks a missing label.

    Returns:
      `ReliabilityTable` with n_bins rows, one more with ``legacy``.

    Raises:
      ValueError: shapes differ, or values out of range.

    >>> reliability_table([0, 1, 1, 0], [0.05, 0.15, 0.95, 1.0]).count[:, 0].tolist()
    [1, 1, 0, 0, 0, 0, 0, 0, 0, 2]
    """
    function = "reliability_table"
    t, p = labels(function, "y_true", y_true, missing=missing), probabilities(function, "y_prob", y_prob)
    same_shape(function, y_true=t, y_prob=p)
    bins = read_integer(function, "n_bins", n_bins, 1, 1_000_000)
    buckets = bins + 1 if legacy else bins
    index = np.minimum(np.floor(bins * p).astype(np.int64), buckets - 1)
    count, prob, label = (np.zeros((buckets, t.shape[1])) for _ in range(3))
    for a in range(t.shape[1]):
        known = ~np.isnan(t[:, a])
        where = index[known, a]
        count[:, a] = np.bincount(where, minlength=buckets)
        prob[:, a] = np.bincount(where, p[known, a], minlength=buckets)
        label[:, a] = np.bincount(where, t[known, a], minlength=buckets)
    lower = np.arange(buckets) / bins
    return ReliabilityTable(lower, divide(prob, count), divide(label, count), count.astype(np.int64))


def expected_calibration_error(
    y_true: ArrayLike, y_prob: ArrayLike, *, n_bins: int = 10, legacy: bool = False, missing: NumberLike | None = None
) -> np.ndarray:
    """Return the mean distance between predicted probability and observed frequency.

    ECE = sum_b (n_b / n) * | mean p_b - mean t_b |,  empty buckets skipped

    Of the positive class, not of the confidence in the predicted class. In [0, 1]; lower is better.

    Args:
      y_true: labels [n] or [n, K].
      y_prob: probabilities of the positive class, same shape.
      n_bins: number of buckets.
      legacy: put p = 1 into a separate bucket.
      missing: a value that marks a missing label.

    Returns:
      float64[K]; NaN where no sample has a label.

    Raises:
      ValueError: shapes differ, or values out of range.

    Source: Iofinova et al. 2023, released code; Guo et al. 2017, "On Calibration of Modern Neural Networks".

    >>> expected_calibration_error([0, 1, 1, 0], [0.05, 0.15, 0.95, 1.0]).round(4).tolist()
    [0.4625]
    """
    return ece_of_table(reliability_table(y_true, y_prob, n_bins=n_bins, legacy=legacy, missing=missing))


def ece_of_table(table: ReliabilityTable) -> np.ndarray:
    """Return the expected calibration error [K] of a reliability table."""
    gap = np.where(table.count > 0, np.abs(table.mean_prob - table.mean_label), 0.0)
    return divide((table.count * gap).sum(axis=0), table.count.sum(axis=0))
