"""Tests over data sets: exact signed ranks with ties, and correction for many of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from sparsejax._checks import fail
from sparsejax.analysis._arrays import read_numbers, refuse_missing

_DECIMALS = 9


def wilcoxon_exact(differences: ArrayLike) -> float:
    """Return the two-sided p-value of the exact signed-rank test, with mid-ranks for ties.

    p = share of the 2^n sign patterns whose sum of positive ranks is as far from its mean as that of the data

    Differences are rounded to 9 decimals; zeros are left out. SciPy's exact method ignores ties.

    Args:
      differences: float[n], paired differences.

    Returns:
      A probability in (0, 1]; 1 if all differences are 0; NaN without differences, where no test exists.

    Raises:
      ValueError: missing differences, or not a vector of numbers.

    Cost: n times the sum of ranks, exact for any n.
    Source: Wilcoxon 1945, "Individual comparisons by ranking methods"; Pratt & Gibbons 1981 for ties.

    >>> wilcoxon_exact([1.0, 2.0, 3.0, 4.0, 5.0])
    0.0625
    """
    d = read_numbers("wilcoxon_exact", "differences", differences)
    if d.ndim != 1:
        fail("wilcoxon_exact", "differences", f"shape {d.shape}", "(n,)")
    refuse_missing("wilcoxon_exact", "differences", np.isnan(d), "a number in every row")
    if not d.size:
        return float("nan")
    d = np.round(d, _DECIMALS)
    d = d[d != 0]
    doubled = np.round(2 * _mid_ranks(np.abs(d))).astype(int)  # mid-ranks are halves of integers
    total = int(doubled.sum())
    counts = np.zeros(total + 1)
    counts[0] = 1.0
    for rank in doubled:
        shifted = np.zeros_like(counts)
        shifted[rank:] = counts[: total + 1 - rank]
        counts = (counts + shifted) / 2  # probabilities, so that no n overflows
    observed = int(doubled[d > 0].sum())
    sums = np.arange(total + 1)
    extreme = np.abs(2 * sums - total) >= abs(2 * observed - total)
    return float(min(1.0, counts[extreme].sum()))


def holm(p_values: ArrayLike) -> np.ndarray:
    """Return Holm's correction of p-values; NaN stays NaN and does not count as a test.

    p'(i) = max over j <= i of min(1, (m - j + 1) p(j)), p(1) <= ... <= p(m)

    Raises:
      ValueError: not a vector of probabilities.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".

    >>> holm([0.01, 0.04, 0.03]).round(6).tolist()
    [0.03, 0.06, 0.06]
    """
    p = read_numbers("holm", "p_values", p_values)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1) | np.isnan(p)).all():
        fail(
            "holm",
            "p_values",
            f"shape {p.shape} and values {p.ravel()[:4].tolist()}",
            "a vector of fractions in [0, 1]",
        )
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    corrected = np.full(p.shape, np.nan)
    corrected[order] = np.maximum.accumulate(np.minimum(1.0, factors * p[order]))
    return corrected


def _mid_ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]
