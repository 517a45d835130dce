"""Base classes of the learners: inputs, decisions by a score, and the minimiser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from sparsejax.analysis.multisource._inputs import Labels, encode_binary, encode_classes, read_features
from sparsejax.analysis.multisource._sklearn import (
    BaseEstimator,
    ClassifierMixin,
    check_is_fitted,
    ignore_iteration_limit,
)

CLIP = 20.0  # logits are clipped to [-CLIP, CLIP], with zero gradient outside
_SOFT = 1e-8  # of the smooth absolute value


class FairClassifier(ClassifierMixin, BaseEstimator):
    """A binary classifier with decisions by a score, trained with a protected attribute.

    Attributes:
      classes_: the two labels, sorted; the second is the positive one.
      groups_: the two values of the protected attribute, if it was passed.
    """

    classes_: np.ndarray
    groups_: np.ndarray
    _needs_groups = True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags

    def _inputs(
        self, X: ArrayLike, y: ArrayLike, sensitive_features: Labels
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return features, labels and attribute; the attribute is all zero where the learner does not need it."""
        name = f"{type(self).__name__}.fit"
        matrix = read_features(name, self, X, reset=True)
        labels, self.classes_ = encode_classes(name, y, len(matrix))
        a = np.zeros(len(labels), int)
        if self._needs_groups or sensitive_features is not None:
            a, self.groups_ = encode_binary(name, "sensitive_features", sensitive_features, len(matrix))
        return matrix, labels, a

    def decision_function(self, X: ArrayLike) -> np.ndarray:
        """Return the score of the second class, float64[n]; 0 or more predicts that class."""
        raise NotImplementedError

    def _checked(self, X: ArrayLike) -> np.ndarray:
        check_is_fitted(self)
        return read_features(f"{type(self).__name__}.predict", self, X, reset=False)

    def predict(self, X: ArrayLike, **options: Any) -> np.ndarray:
        """Predict labels; options are those of ``decision_function``."""
        positive = self.decision_function(X, **options) >= 0
        return self.classes_[positive.astype(int)]

    def predict_proba(self, X: ArrayLike, **options: Any) -> np.ndarray:
        """Return probabilities of both classes, float64[n, 2]; for fair learners only their order has a meaning."""
        one = sigmoid(self.decision_function(X, **options))
        return np.stack([1 - one, one], axis=1)


class LinearFit(NamedTuple):
    """Weights with the intercept last, float64[d + 1], and the iterations that they took."""

    theta: np.ndarray
    n_iter: int


class LinearClassifier(FairClassifier):
    """A `FairClassifier` whose score is linear.

    Attributes:
      coef_: float64[1, d].
      intercept_: float64[1].
      n_iter_: iterations of the solver.
    """

    coef_: np.ndarray
    intercept_: np.ndarray
    n_iter_: int

    def _set(self, fit: LinearFit) -> None:
        self.coef_, self.intercept_, self.n_iter_ = fit.theta[None, :-1], fit.theta[-1:], fit.n_iter

    def decision_function(self, X: ArrayLike) -> np.ndarray:
        """Return logits, float64[n]; the second class is predicted where they are at least 0."""
        return self._checked(X) @ self.coef_[0] + self.intercept_[0]


def logistic_start(X: np.ndarray, y: np.ndarray, C: float, max_iter: int) -> LinearFit:
    """Fit scikit-learn's logistic regression."""
    from sklearn.linear_model import LogisticRegression

    with ignore_iteration_limit():
        model = LogisticRegression(C=C, max_iter=max_iter).fit(X, y)
    return LinearFit(np.append(model.coef_[0], model.intercept_), int(model.n_iter_[0]))


Objective = Callable[[np.ndarray], tuple[float, np.ndarray]]


def minimise(
    objective: Objective, X: np.ndarray, start: np.ndarray, max_iter: int, tol: float, l2: float = 0.0
) -> LinearFit:
    """Minimise a function of the logits of all rows over linear classifiers, by BFGS.

    Args:
      objective: value and gradient, float64[n], for clipped logits.
      X: float64[n, d].
      start: float64[d + 1], the intercept last.
      max_iter: most iterations.
      tol: on the largest entry of the gradient in the weights.
      l2: half of it times the sum of squared weights, the intercept left out, is added.
    """
    from scipy.optimize import minimize

    columns = np.column_stack([X, np.ones(len(X))])
    penalty = np.append(np.full(X.shape[1], l2), 0.0)

    def of_weights(theta: np.ndarray) -> tuple[Any, np.ndarray]:
        logits = columns @ theta
        value, slope = objective(np.clip(logits, -CLIP, CLIP))
        gradient = (slope * (np.abs(logits) <= CLIP)) @ columns
        return value + 0.5 * penalty @ theta**2, gradient + penalty * theta

    options = {"gtol": tol, "maxiter": max_iter}
    result = minimize(of_weights, start, jac=True, method="BFGS", options=options)
    return LinearFit(result.x, max(int(result.nit), 1))


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-logits)), without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * logits))


def cross_entropy(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    """ln(1 + exp(logits)) - y * logits for each row."""
    return np.logaddexp(0, logits) - y * logits


def softabs(r: float) -> tuple[float, float]:
    """r^2 / sqrt(r^2 + 1e-8), a smooth absolute value, and its derivative."""
    root = np.sqrt(r * r + _SOFT)
    return r * r / root, r * (r * r + 2 * _SOFT) / root**3
