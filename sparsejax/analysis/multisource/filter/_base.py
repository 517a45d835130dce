"""The interface of filters of sources: which sources are kept, and their rows."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from sparsejax._checks import fail
from sparsejax.analysis.multisource._inputs import (
    Labels,
    Sources,
    encode_sources,
    positions_of,
    read_features,
    take_rows,
)
from sparsejax.analysis.multisource._sklearn import BaseEstimator, check_is_fitted


class SourceFilter(BaseEstimator):
    """A filter of sources: which sources are kept, and which rows belong to them.

    Attributes:
      sources_: labels of the sources, sorted.
      kept_sources_: labels of those kept.
      support_: row mask of the training set, True where the row's source is kept.
    """

    sources_: np.ndarray
    kept_sources_: np.ndarray
    support_: np.ndarray
    n_features_in_: int

    def mask(self, source: ArrayLike) -> np.ndarray:
        """Return for each row whether its source was kept.

        Args:
          source: one label per row, all of them seen in ``fit``.

        Raises:
          ValueError: an unknown label, or a missing one.
        """
        check_is_fitted(self)
        place = positions_of(f"{type(self).__name__}.mask", "source", source, self.sources_)
        return np.isin(self.sources_, self.kept_sources_)[place]

    def pool(self, *arrays: Any, source: ArrayLike) -> tuple[Any, ...]:
        """Return the rows of the kept sources of each array or data frame.

        Raises:
          ValueError: an unknown source label, or an array of another length.
        """
        mask = self.mask(source)
        for array in arrays:
            if array is not None and len(array) != len(mask):
                got = f"an array of {len(array)} rows"
                fail(f"{type(self).__name__}.pool", "arrays", got, f"{len(mask)}, one for each source label")
        return tuple(take_rows(array, mask) for array in arrays)

    def fit_resample(
        self, X: ArrayLike, y: ArrayLike, *, sensitive_features: ArrayLike, source: ArrayLike
    ) -> tuple[Any, Any]:
        """Fit, and return the kept rows of X and y; the name is that of imbalanced-learn's samplers."""
        self.fit(X, y, sensitive_features=sensitive_features, source=source)
        return take_rows(X, self.support_), take_rows(y, self.support_)

    def fit(self, X: ArrayLike, y: ArrayLike, *, sensitive_features: Labels = None, source: Labels = None) -> Self:
        """Decide which sources to keep."""
        raise NotImplementedError

    def _inputs(self, X: ArrayLike, y: ArrayLike, sensitive_features: Labels, source: Labels) -> Sources:
        name = f"{type(self).__name__}.fit"
        if y is None:
            fail(name, "y", "value None", "one label per row", "requires y to be passed, but the target y is None.")
        matrix = read_features(name, self, X, reset=True, one_hot=True)
        return encode_sources(name, matrix, y, sensitive_features, source)

    def _keep(self, data: Sources, kept: np.ndarray) -> None:
        self.sources_ = data.names
        self.kept_sources_ = data.names[kept]
        self.support_ = np.isin(data.source, kept)
