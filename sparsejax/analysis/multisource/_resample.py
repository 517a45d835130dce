"""Resampled learning, and boosted trees as in the study."""

from __future__ import annotations

from typing import Any

import numpy as np

from sparsejax._checks import fail, message
from sparsejax.analysis.multisource._learners import PlainLearner
from sparsejax.analysis.multisource._linear import FairClassifier
from sparsejax.analysis.multisource._sklearn import clone


class ResampledLearner(FairClassifier):
    """Any classifier on a resampled training set in which label and attribute are independent; "resample".

    From each cell (a, y), floor(n_a * n_y / n) rows are drawn with replacement.

    Args:
      estimator: the classifier; `PlainLearner()` if None.
      random_state: seed of the draw.

    Source: Kamiran and Calders 2012, "Data preprocessing techniques for classification without discrimination".
    """

    def __init__(self, estimator: Any = None, random_state: int | None = None):
        self.estimator = estimator
        self.random_state = random_state

    def fit(self, X: Any, y: Any, *, sensitive_features: Any = None) -> ResampledLearner:
        """Resample and fit.

        Raises:
          ValueError: labels or attribute not binary, missing values, or nothing of one class left to learn from.
        """
        matrix, labels, a = self._inputs(X, y, sensitive_features)
        rng = np.random.default_rng(self.random_state)
        chosen = []
        for group in (0, 1):
            for label in (0, 1):
                cell = np.flatnonzero((a == group) & (labels == label))
                count = int((a == group).sum() * (labels == label).sum() // len(labels))
                if len(cell):
                    chosen.append(rng.choice(cell, count))
        rows = np.concatenate(chosen)
        if len(np.unique(labels[rows])) < 2:
            fail("ResampledLearner.fit", "y", "one class after resampling", "both classes")
        self.estimator_ = clone(PlainLearner() if self.estimator is None else self.estimator)
        self.estimator_.fit(matrix[rows], labels[rows])
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Log-odds of the second class, float64[n]."""
        matrix = self._checked(X)
        if hasattr(self.estimator_, "decision_function"):
            return self.estimator_.decision_function(matrix)
        p = self.estimator_.predict_proba(matrix)[:, 1].astype(np.float64)
        with np.errstate(divide="ignore"):
            return np.log(p) - np.log1p(-p)


def boosted_trees(n_jobs: int = 1) -> Any:
    """XGBoost under the study's grid search: accuracy in 5 folds over 5 numbers of trees and 4 depths.

    Raises:
      ImportError: xgboost is not installed.
    """
    try:
        from xgboost import XGBClassifier
    except ImportError as error:
        hint = "Install it: pip install 'sparsejax[xgboost]'."
        raise ImportError(message("boosted_trees", "the environment", "no xgboost", "xgboost", hint)) from error
    from sklearn.model_selection import GridSearchCV

    grid = {"n_estimators": [100, 200, 300, 400, 500], "max_depth": [3, 5, 7, 9]}
    return GridSearchCV(XGBClassifier(n_jobs=n_jobs), grid, scoring="accuracy", cv=5)
