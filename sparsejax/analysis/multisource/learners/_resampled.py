"""Training sets in which label and protected attribute are independent: by resampling, or by weights."""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from sparsejax._checks import fail
from sparsejax.analysis.multisource._inputs import Labels, encode_binary, encode_labels
from sparsejax.analysis.multisource._sklearn import BaseEstimator, accepted_arguments, clone, require_method
from sparsejax.analysis.multisource.learners._base import FairClassifier
from sparsejax.analysis.multisource.learners._regularised import PlainLearner


class ResampledLearner(FairClassifier):
    """Any classifier on a resampled training set in which label and attribute are independent; "resample".

    From each cell (a, y), floor(n_a * n_y / n) rows are drawn with replacement.

    Args:
      estimator: the classifier; `PlainLearner()` if None.
      random_state: seed of the draw.

    Source: Kamiran and Calders 2012, "Data preprocessing techniques for classification without discrimination".
    """

    def __init__(self, estimator: BaseEstimator | None = None, random_state: int | None = None):
        self.estimator = estimator
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike, *, sensitive_features: Labels = None, source: Labels = None) -> Self:
        """Resample and fit.

        Args:
          X: features.
          y: labels.
          sensitive_features: the protected attribute; goes to the classifier if that takes it.
          source: label of the source of each row, or None. If passed, each source is resampled separately, and
            it goes to the classifier if that takes it.

        Raises:
          ValueError: labels or attribute not binary, missing values, or no row of one class left after resampling.
        """
        matrix, labels, a = self._inputs(X, y, sensitive_features)
        origin = np.zeros(len(labels), int)
        if source is not None:
            origin = encode_labels("ResampledLearner.fit", "source", source, len(labels))[1]
        rng = np.random.default_rng(self.random_state)
        parts = [np.flatnonzero(origin == index) for index in np.unique(origin)]
        rows = np.concatenate([part[_draw(labels[part], a[part], rng)] for part in parts])
        if len(np.unique(labels[rows])) < 2:
            fail("ResampledLearner.fit", "y", "one class after resampling", "both classes")
        self.estimator_ = clone(PlainLearner() if self.estimator is None else self.estimator)
        require_method("ResampledLearner.fit", self.estimator_, "decision_function", "predict_proba")
        more = accepted_arguments(self.estimator_, sensitive_features=a[rows], source=origin[rows])
        self.estimator_.fit(matrix[rows], labels[rows], **more)
        return self

    def decision_function(self, X: ArrayLike) -> np.ndarray:
        """Return log-odds of the second class, float64[n]."""
        matrix = self._checked(X)
        if hasattr(self.estimator_, "decision_function"):
            return self.estimator_.decision_function(matrix)
        p = self.estimator_.predict_proba(matrix)[:, 1].astype(np.float64)
        with np.errstate(divide="ignore"):
            return np.log(p) - np.log1p(-p)


def reweigh(y: ArrayLike, *, sensitive_features: ArrayLike) -> np.ndarray:
    """Return weights that make label and attribute independent: the expectation of what `ResampledLearner` draws.

    Args:
      y: labels, two distinct values.
      sensitive_features: the protected attribute, two distinct values.

    Returns:
      n_a n_y / (n n_ay) for each row, float64[n]; to be passed as ``sample_weight``.

    Raises:
      ValueError: labels or attribute not binary, or missing values.

    Source: Kamiran and Calders 2012, "Data preprocessing techniques for classification without discrimination".

    >>> reweigh([1, 1, 0, 1], sensitive_features=[0, 0, 0, 1]).round(3).tolist()
    [1.125, 1.125, 0.75, 0.75]
    """
    labels, _ = encode_binary("reweigh", "y", y)
    a, _ = encode_binary("reweigh", "sensitive_features", sensitive_features, len(labels))
    cell = 2 * a + labels
    expected = np.outer(np.bincount(a), np.bincount(labels)).ravel() / len(labels)
    return expected[cell] / np.bincount(cell, minlength=4)[cell]


def _draw(labels: np.ndarray, a: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    chosen = []
    for group in (0, 1):
        for label in (0, 1):
            cell = np.flatnonzero((a == group) & (labels == label))
            count = int((a == group).sum() * (labels == label).sum() // len(labels))
            if len(cell):
                chosen.append(rng.choice(cell, count))
    return np.concatenate(chosen)
