"""A filter of sources and a learner, as one classifier."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sparsejax.analysis.multisource._inputs import Labels, take_rows
from sparsejax.analysis.multisource._sklearn import BaseEstimator, ClassifierMixin, accepted_arguments, clone
from sparsejax.analysis.multisource.filter._base import SourceFilter
from sparsejax.analysis.multisource.filter._flea import FLEA


class FLEAClassifier(ClassifierMixin, BaseEstimator):
    """Filter the sources, pool the kept ones, and train any classifier on the pool.

    Args:
      estimator: a classifier of scikit-learn, fairlearn or this module. It gets ``sensitive_features`` if its ``fit``
        has that parameter or, as fairlearn's reductions do, takes any keyword.
      source_filter: `FLEA()` if None, or another filter such as `KonstantinovFilter`.

    Attributes:
      filter_: the fitted filter.
      estimator_: the fitted classifier.
      classes_: labels.

    >>> from sklearn.linear_model import LogisticRegression
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(300, 2))
    >>> y, a, source = X[:, 0] > 0, X[:, 1] > 0.3, np.repeat([0, 1, 2], 100)
    >>> y[source == 2] = ~y[source == 2]
    >>> model = FLEAClassifier(LogisticRegression()).fit(X, y, sensitive_features=a, source=source)
    >>> model.filter_.kept_sources_.tolist(), model.score(X[:200], y[:200]) > 0.9
    ([0, 1], True)
    """

    def __init__(self, estimator: BaseEstimator, source_filter: SourceFilter | None = None):
        self.estimator = estimator
        self.source_filter = source_filter

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        *,
        sensitive_features: Labels = None,
        source: Labels = None,
    ) -> FLEAClassifier:
        """Fit filter and classifier.

        Raises:
          ValueError: as the filter and the classifier say.
        """
        self.filter_: Any = clone(self.source_filter) if self.source_filter is not None else FLEA()
        self.filter_.fit(X, y, sensitive_features=sensitive_features, source=source)
        kept = self.filter_.support_
        self.estimator_ = clone(self.estimator)
        parts = {"sensitive_features": take_rows(sensitive_features, kept), "source": take_rows(source, kept)}
        more = accepted_arguments(self.estimator_, **parts)
        self.estimator_.fit(take_rows(X, kept), take_rows(y, kept), **more)
        self.classes_ = np.unique(np.asarray(y))
        self.n_features_in_ = self.filter_.n_features_in_
        return self

    def predict(self, X: ArrayLike, **options: Any) -> np.ndarray:
        """Predict with the fitted classifier; options such as ``sensitive_features`` go to its ``predict``."""
        return self.estimator_.predict(X, **options)

    def predict_proba(self, X: ArrayLike, **options: Any) -> np.ndarray:
        """Return probabilities of the fitted classifier, if it has them."""
        return self.estimator_.predict_proba(X, **options)
