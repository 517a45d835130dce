"""Boosted trees with the study's grid search, which costs one fit for all numbers of trees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from sparsejax._checks import fail
from sparsejax._extras import require
from sparsejax.analysis.multisource._inputs import Labels
from sparsejax.analysis.multisource.learners._base import FairClassifier


class BoostedTrees(FairClassifier):
    """XGBoost with number of trees and depth chosen by cross-validated accuracy; "none" on "xgboost" in the study.

    Trees are added one by one, so a model of 500 trees contains those of 100, 200, ...; each fold and depth is fitted
    once and judged at every number of trees. The choice is that of scikit-learn's ``GridSearchCV`` over both.

    Args:
      n_estimators: numbers of trees to choose from.
      max_depth: depths to choose from.
      cv: number of stratified folds.
      n_jobs: threads of XGBoost.

    Attributes:
      best_params_: the chosen ``max_depth`` and ``n_estimators``; of equally good ones the first in that order.
      cv_scores_: mean accuracy over folds, float64[depths, numbers of trees].
      estimator_: the XGBoost classifier, fitted to everything with the chosen values.

    Source: Iofinova et al. 2022, classifier "xgboost": accuracy in 5 folds over 5 numbers of trees and 4 depths.
    """

    _needs_groups = False

    def __init__(
        self,
        n_estimators: Sequence[int] = (100, 200, 300, 400, 500),
        max_depth: Sequence[int] = (3, 5, 7, 9),
        cv: int = 5,
        n_jobs: int = 1,
    ):
        self.n_estimators = n_estimators
        self.max_depth = max_depth
        self.cv = cv
        self.n_jobs = n_jobs

    def fit(self, X: ArrayLike, y: ArrayLike, *, sensitive_features: Labels = None) -> Self:
        """Choose and fit; ``sensitive_features`` is accepted as in the other learners, and not used.

        Raises:
          ImportError: xgboost is not installed.
          ValueError: labels not binary, missing values, or a class with fewer rows than folds.
        """
        matrix, labels, _ = self._inputs(X, y, sensitive_features)
        new = require("xgboost", "BoostedTrees.fit").XGBClassifier
        scores = self._scores(new, matrix, labels)
        self.cv_scores_ = np.average(scores, axis=2)
        depth, trees = map(int, np.unravel_index(np.argmax(self.cv_scores_), self.cv_scores_.shape))
        self.best_params_ = {"max_depth": self.max_depth[depth], "n_estimators": self.n_estimators[trees]}
        self.estimator_ = new(n_jobs=self.n_jobs, **self.best_params_).fit(matrix, labels)
        return self

    def _scores(self, new: Any, X: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Accuracy, float64[depths, numbers of trees, folds]."""
        from sklearn.model_selection import StratifiedKFold

        if np.bincount(y).min() < self.cv:
            shown = f"{np.bincount(y).min()} rows of one class"
            fail("BoostedTrees.fit", "y", shown, f"at least {self.cv}, one for each fold")
        scores = np.empty((len(self.max_depth), len(self.n_estimators), self.cv))
        for fold, (train, test) in enumerate(StratifiedKFold(self.cv).split(X, y)):
            for i, depth in enumerate(self.max_depth):
                model = new(n_estimators=max(self.n_estimators), max_depth=depth, n_jobs=self.n_jobs)
                model.fit(X[train], y[train])
                for j, trees in enumerate(self.n_estimators):
                    predicted = model.predict(X[test], iteration_range=(0, trees))
                    scores[i, j, fold] = (predicted == y[test]).mean()
        return scores

    def decision_function(self, X: ArrayLike) -> np.ndarray:
        """Return log-odds of the second class, float64[n]."""
        matrix = self._checked(X)
        return self.estimator_.predict(matrix, output_margin=True).astype(np.float64)
