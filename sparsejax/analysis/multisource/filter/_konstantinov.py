"""The filter that FLEA is compared with: discrepancies against a bound from learning theory."""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from sparsejax.analysis._arrays import read_integer, read_number
from sparsejax.analysis.multisource._inputs import Labels
from sparsejax.analysis.multisource.filter._base import SourceFilter
from sparsejax.analysis.multisource.filter._distances import pairwise_discrepancy


class KonstantinovFilter(SourceFilter):
    """Keep the sources whose discrepancy to enough others is below a bound from learning theory.

    Source i is kept if more than ``n_malicious`` sources j, itself counted, have disc_ij <= t_ij,

        t_ij = sqrt((8 d (1 + ln(2 m / d)) + 8 ln(8 N / delta)) / m)

    with d features and m the mean of the two sizes; if none is, all are. Below some thousand rows a source the bound
    is above 1 and the filter keeps everything.

    Args:
      n_malicious: number of sources that may be manipulated.
      delta: probability that the bound fails.

    Attributes: as of `SourceFilter`, and ``discrepancy_``, ``thresholds_``, float64[N, N].

    Source: Konstantinov et al. 2020, "On the Sample Complexity of Adversarial Multi-Source PAC Learning".
    """

    def __init__(self, n_malicious: int = 0, delta: float = 0.1):
        self.n_malicious = n_malicious
        self.delta = delta

    def fit(self, X: ArrayLike, y: ArrayLike, *, sensitive_features: Labels = None, source: Labels = None) -> Self:
        """Measure discrepancies and decide which sources to keep.

        Raises:
          ValueError: as of `FLEA`; or ``n_malicious`` is not below half of the sources.
        """
        data = self._inputs(X, y, sensitive_features, source)
        delta = read_number("KonstantinovFilter.fit", "delta", self.delta, 0, 1)
        count, features = len(data.names), data.X.shape[1]
        n_malicious = read_integer("KonstantinovFilter.fit", "n_malicious", self.n_malicious, 0, (count - 1) // 2)
        self.discrepancy_ = pairwise_discrepancy(data.X, data.y, data.a, data.source)
        sizes = np.bincount(data.source)
        m = (sizes[:, None] + sizes) / 2
        bound = 8 * features * (1 + np.log(2 * m / features)) + 8 * np.log(8 * count / delta)
        self.thresholds_ = np.sqrt(bound / m)
        close = (self.discrepancy_ <= self.thresholds_) | np.eye(count, dtype=bool)
        kept = np.flatnonzero(close.sum(1) > n_malicious)
        self._keep(data, kept if len(kept) else np.arange(count))
        return self
