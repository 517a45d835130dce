"""One classifier for each source, whose median decides."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from sparsejax.analysis.multisource._inputs import Labels, encode_sources
from sparsejax.analysis.multisource._sklearn import BaseEstimator, accepted_arguments, clone, require_method
from sparsejax.analysis.multisource.learners._base import FairClassifier


class Ensemble(FairClassifier):
    """One classifier per source; the score is the median of their probabilities, decided at 1/2.

    Args:
      estimator: a learner of this module, trained on each source separately.

    Attributes:
      estimators_: one per source, in the order of ``sources_``.
    """

    def __init__(self, estimator: BaseEstimator):
        self.estimator = estimator

    def fit(self, X: ArrayLike, y: ArrayLike, *, sensitive_features: Labels = None, source: Labels = None) -> Self:
        """Fit one classifier per source.

        Raises:
          ValueError: as of `FLEA`; or a source has one class or one group and its learner needs both.
        """
        matrix, _, _ = self._inputs(X, y, sensitive_features)
        data = encode_sources("Ensemble.fit", matrix, y, sensitive_features, source)
        self.sources_, self.estimators_ = data.names, []
        for index in range(len(data.names)):
            rows = data.source == index
            model = clone(self.estimator)
            require_method("Ensemble.fit", model, "predict_proba")
            more = accepted_arguments(model, sensitive_features=data.groups[data.a[rows]])
            self.estimators_.append(model.fit(matrix[rows], data.y[rows], **more))
        return self

    def decision_function(self, X: ArrayLike, **options: Any) -> np.ndarray:
        """Return the median probability minus 1/2, float64[n]; options go to the classifiers."""
        return np.median(self._scores(X, options), axis=0) - 0.5

    def deciding_source(self, X: ArrayLike, **options: Any) -> np.ndarray:
        """Return the position in ``sources_`` of the source with the median probability, int[n]; of two, the lower.

        Options go to the classifiers.
        """
        scores = self._scores(X, options)
        return np.argsort(scores, axis=0, kind="stable")[(len(scores) - 1) // 2]

    def _scores(self, X: ArrayLike, options: dict[str, Any]) -> np.ndarray:
        matrix = self._checked(X)
        return np.array([model.predict_proba(matrix, **options)[:, 1] for model in self.estimators_])
