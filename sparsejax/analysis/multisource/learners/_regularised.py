"""Linear learners without and with a penalty on unfairness."""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from sparsejax.analysis.multisource._inputs import Labels
from sparsejax.analysis.multisource.learners._base import (
    LinearClassifier,
    cross_entropy,
    logistic_start,
    minimise,
    sigmoid,
    softabs,
)


class PlainLearner(LinearClassifier):
    """Logistic regression without penalty on unfairness; "none" in the study.

    Args:
      max_iter: most iterations of L-BFGS.
      l2: half of it times the squared weights, the intercept left out, is added to the mean loss.

    Source: Iofinova et al. 2022, learner "unregularized"; the solver is scikit-learn's.
    """

    _needs_groups = False

    def __init__(self, max_iter: int = 700, l2: float = 0.0):
        self.max_iter = max_iter
        self.l2 = l2

    def fit(self, X: ArrayLike, y: ArrayLike, *, sensitive_features: Labels = None) -> Self:
        """Fit; ``sensitive_features`` is accepted as in the other learners, and not used."""
        matrix, labels, _ = self._inputs(X, y, sensitive_features)
        C = 1 / (self.l2 * len(labels)) if self.l2 > 0 else np.inf  # scikit-learn's penalty is on the sum of losses
        self._set(logistic_start(matrix, labels, C, self.max_iter))
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

    def fit(self, X: ArrayLike, y: ArrayLike, *, sensitive_features: Labels = None) -> Self:
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
