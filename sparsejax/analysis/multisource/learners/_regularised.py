"""Linear learners without and with a penalty on unfairness, and thresholds for the groups."""

from __future__ import annotations

from typing import Any

import numpy as np

from sparsejax._checks import fail
from sparsejax.analysis.multisource._sklearn import accepted, clone
from sparsejax.analysis.multisource.learners._base import (
    FairClassifier,
    LinearClassifier,
    cross_entropy,
    logistic_start,
    minimise,
    sigmoid,
    softabs,
)


class PlainLearner(LinearClassifier):
    """Logistic regression without penalty and without regard to fairness; "none" in the study.

    Args:
      max_iter: most iterations of L-BFGS.

    Source: Iofinova et al. 2022, learner "unregularized"; the solver is scikit-learn's.
    """

    _needs_groups = False

    def __init__(self, max_iter: int = 700):
        self.max_iter = max_iter

    def fit(self, X: Any, y: Any, *, sensitive_features: Any = None) -> PlainLearner:
        """Fit; ``sensitive_features`` is accepted like that of the other learners, and not used."""
        matrix, labels, _ = self._inputs(X, y, sensitive_features)
        self._set(logistic_start(matrix, labels, np.inf, self.max_iter))
        return self


class RegularisedLearner(LinearClassifier):
    """Logistic regression with a penalty on unfairness; "reg" in the study.

    1/2 [mean BCE on y=0 + mean BCE on y=1] + eta * |mean sigma(logit) on a=1 - mean sigma(logit) on a=0|

    with a smooth absolute value. Both classes weigh the same, so accuracy is lower on unbalanced data by design.

    Args:
      eta: weight of unfairness.
      max_iter: most iterations of BFGS, and of the logistic regression (C = 1) that it starts from.
      tol: on the largest entry of the gradient.
    """

    def __init__(self, eta: float = 0.5, max_iter: int = 500, tol: float = 1e-4):
        self.eta = eta
        self.max_iter = max_iter
        self.tol = tol

    def fit(self, X: Any, y: Any, *, sensitive_features: Any = None) -> RegularisedLearner:
        """Fit.

        Raises:
          ValueError: labels or attribute not binary, or missing values.
        """
        matrix, labels, a = self._inputs(X, y, sensitive_features)
        balance = 0.5 * np.where(labels == 1, 1 / labels.sum(), 1 / (1 - labels).sum())
        contrast = np.where(a == 1, 1 / a.sum(), -1 / (1 - a).sum())

        def objective(logits: np.ndarray) -> tuple[float, np.ndarray]:
            p = sigmoid(logits)
            gap, slope = softabs(contrast @ p)
            value = balance @ cross_entropy(logits, labels) + self.eta * gap
            return value, balance * (p - labels) + self.eta * slope * contrast * p * (1 - p)

        start = logistic_start(matrix, labels, 1.0, self.max_iter)
        self._set(minimise(objective, matrix, start.theta, self.max_iter, self.tol))
        return self


class PostprocessedLearner(FairClassifier):
    """A classifier with a threshold for each group, so that their positive rates agree; "pp" in the study.

    Of the rates of negatives 0, 0.01, .. 1 the one with most correct training decisions is taken; each group's
    threshold is that quantile of its training scores.

    Args:
      estimator: a classifier with ``decision_function``; `PlainLearner()` if None.

    Attributes:
      estimator_: the fitted classifier.
      thresholds_: float64[2], in the order of ``groups_``.
      rate_: the chosen rate of negatives.
    """

    def __init__(self, estimator: Any = None):
        self.estimator = estimator

    def fit(self, X: Any, y: Any, *, sensitive_features: Any = None, source: Any = None) -> PostprocessedLearner:
        """Fit; ``source`` is passed on where the classifier takes it.

        Raises:
          ValueError: labels or attribute not binary, or missing values.
        """
        matrix, labels, a = self._inputs(X, y, sensitive_features)
        self.estimator_ = clone(PlainLearner() if self.estimator is None else self.estimator)
        self.estimator_.fit(matrix, labels, **accepted(self.estimator_, sensitive_features=a, source=source))
        scores = self.estimator_.decision_function(matrix)
        grid = np.linspace(0, 1, 101)
        curves = [_threshold_curve(scores[a == g], labels[a == g], grid) for g in (0, 1)]
        best = int(np.argmax(curves[0][1] + curves[1][1]))
        self.rate_ = float(grid[best])
        self.thresholds_ = np.array([curve[0][best] for curve in curves])
        return self

    def decision_function(self, X: Any, *, sensitive_features: Any = None) -> np.ndarray:
        """Scores less the threshold of the row's group.

        Raises:
          ValueError: no ``sensitive_features``, or a group that was not seen in ``fit``.
        """
        matrix = self._checked(X)
        scores = self.estimator_.decision_function(matrix)
        name = "PostprocessedLearner.predict"
        if sensitive_features is None:
            fail(name, "sensitive_features", "value None", "the group of each row", "Thresholds depend on the group.")
        groups = np.asarray(sensitive_features).reshape(-1)
        if groups.shape != scores.shape or not np.isin(groups, self.groups_).all():
            shown = f"shape {groups.shape} and values {np.unique(groups)[:4].tolist()}"
            fail(name, "sensitive_features", shown, f"{len(scores)} values among {self.groups_.tolist()}")
        return scores - self.thresholds_[(groups == self.groups_[1]).astype(int)]


def _threshold_curve(logits: np.ndarray, labels: np.ndarray, grid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Threshold and number of correct decisions of one group for each rate of negatives.

    Thresholds are interpolated between the sorted logits, the k-th lowest of n at the rate k / n, and numbers of
    correct decisions between those with the k lowest rows negative, as in the study.
    """
    order = np.argsort(logits, kind="stable")
    ranked, y = logits[order], labels[order]
    rates = np.arange(len(y) + 1) / len(y)
    correct = np.concatenate([[0], np.cumsum(1 - y)]) + y.sum() - np.concatenate([[0], np.cumsum(y)])
    thresholds = np.insert(ranked, 0, ranked[0] - 1e-6)
    return np.interp(grid, rates, thresholds), np.interp(grid, rates, correct)
