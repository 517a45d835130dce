"""A threshold for each group, so that the groups' positive rates agree."""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from sparsejax._checks import fail
from sparsejax.analysis.multisource._inputs import Labels, positions_of
from sparsejax.analysis.multisource._sklearn import BaseEstimator, accepted_arguments, clone, require_method
from sparsejax.analysis.multisource.learners._base import FairClassifier
from sparsejax.analysis.multisource.learners._regularised import PlainLearner


class PostprocessedLearner(FairClassifier):
    """A classifier with a threshold for each group, so that their positive rates agree; "pp" in the study.

    Of the rates of negatives 0, 0.01, .. 1 the one with most correct training decisions is taken; each group's
    threshold is that quantile of its training scores.

    Args:
      estimator: a classifier with ``decision_function``; `PlainLearner()` if None.
      clip: thresholds are quantiles of scores that are first clipped to [-clip, clip]; None does not clip. The
        published numbers clip at 20, so a classifier with larger scores keeps the groups' rates as they are.

    Attributes:
      estimator_: the fitted classifier.
      thresholds_: float64[2], in the order of ``groups_``.
      rate_: the chosen rate of negatives.
    """

    def __init__(self, estimator: BaseEstimator | None = None, clip: float | None = None):
        self.estimator = estimator
        self.clip = clip

    def fit(self, X: ArrayLike, y: ArrayLike, *, sensitive_features: Labels = None, source: Labels = None) -> Self:
        """Fit; ``source`` goes to the classifier if that takes it.

        Raises:
          ValueError: labels or attribute not binary, or missing values.
        """
        matrix, labels, a = self._inputs(X, y, sensitive_features)
        self.estimator_ = clone(PlainLearner() if self.estimator is None else self.estimator)
        require_method("PostprocessedLearner.fit", self.estimator_, "decision_function")
        self.estimator_.fit(matrix, labels, **accepted_arguments(self.estimator_, sensitive_features=a, source=source))
        scores = self.estimator_.decision_function(matrix)
        if self.clip is not None:
            scores = np.clip(scores, -self.clip, self.clip)
        grid = np.linspace(0, 1, 101)
        curves = [_threshold_curve(scores[a == g], labels[a == g], grid) for g in (0, 1)]
        best = int(np.argmax(curves[0][1] + curves[1][1]))
        self.rate_ = float(grid[best])
        self.thresholds_ = np.array([curve[0][best] for curve in curves])
        return self

    def decision_function(self, X: ArrayLike, *, sensitive_features: Labels = None) -> np.ndarray:
        """Return scores minus the threshold of the row's group.

        Raises:
          ValueError: no ``sensitive_features``, or a group that was not seen in ``fit``.
        """
        matrix = self._checked(X)
        scores = self.estimator_.decision_function(matrix)
        name = "PostprocessedLearner.predict"
        if sensitive_features is None:
            fail(name, "sensitive_features", "value None", "the group of each row", "Thresholds depend on the group.")
        place = positions_of(name, "sensitive_features", sensitive_features, self.groups_, len(scores))
        return scores - self.thresholds_[place]


def _threshold_curve(logits: np.ndarray, labels: np.ndarray, grid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the threshold and the number of correct decisions of one group for each rate of negatives.

    Thresholds are interpolated between the sorted logits, the k-th lowest of n at the rate k / n, and numbers of
    correct decisions between those with the k lowest rows negative, as in the study.
    """
    order = np.argsort(logits, kind="stable")
    ranked, y = logits[order], labels[order]
    rates = np.arange(len(y) + 1) / len(y)
    correct = np.concatenate([[0], np.cumsum(1 - y)]) + y.sum() - np.concatenate([[0], np.cumsum(y)])
    thresholds = np.insert(ranked, 0, ranked[0] - 1e-6)
    return np.interp(grid, rates, thresholds), np.interp(grid, rates, correct)
