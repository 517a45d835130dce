"""A filter of sources and a learner, as one classifier."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from sparsejax.analysis.multisource._inputs import Labels, encode_classes, read_labels, take_rows
from sparsejax.analysis.multisource._sklearn import (
    BaseEstimator,
    ClassifierMixin,
    accepted_arguments,
    available_if,
    check_is_fitted,
    clone,
    estimator_tags,
    routed_parameters,
    router_of,
)
from sparsejax.analysis.multisource.filter._base import SourceFilter
from sparsejax.analysis.multisource.filter._flea import FLEA


def _has(method: str) -> Callable[[FLEAClassifier], bool]:
    """Return a check whether the inner estimator, fitted if there is one, has a method."""

    def check(classifier: FLEAClassifier) -> bool:
        getattr(getattr(classifier, "estimator_", classifier.estimator), method)  # its AttributeError is the message
        return True

    return check


class FLEAClassifier(ClassifierMixin, BaseEstimator):
    """Filter the sources, pool the kept ones, and train any classifier on the pool.

    A meta-estimator by scikit-learn's conventions: ``predict_proba``, ``predict_log_proba`` and ``decision_function``
    exist if the classifier has them, and metadata is routed to it. The filter needs finite numbers; it encodes text
    columns of a data frame one-hot for its distances. The classifier gets the rows unchanged, so its pipeline can
    encode them in another way.

    Args:
      estimator: a classifier of scikit-learn, fairlearn or this module. It gets ``sensitive_features`` if its ``fit``
        has that parameter or, as fairlearn's reductions do, takes any keyword.
      source_filter: `FLEA()` if None, or another filter such as `KonstantinovFilter`.

    Attributes:
      filter_: the fitted filter.
      estimator_: the fitted classifier.
      classes_: labels.
      n_features_in_, feature_names_in_: of the training set; names if X was a data frame.

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

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False  # the filter compares two classes
        inner = estimator_tags(self.estimator)
        tags.input_tags.string, tags.input_tags.categorical = inner.input_tags.string, inner.input_tags.categorical
        return tags

    def get_metadata_routing(self) -> Any:
        """Return which metadata each method takes for itself and for the classifier."""
        methods = ("fit", "predict", "predict_proba", "predict_log_proba", "decision_function")
        return router_of(self, methods, estimator=self.estimator)

    def fit(
        self, X: ArrayLike, y: ArrayLike, *, sensitive_features: Labels = None, source: Labels = None, **fit_params: Any
    ) -> Self:
        """Fit filter and classifier.

        Args:
          X: features, array-like or data frame, [n, d].
          y: labels, two distinct values.
          sensitive_features: the protected attribute, two distinct values.
          source: label of the source of each row.
          **fit_params: for the ``fit`` of the classifier; of values with one entry per row, such as ``sample_weight``,
            it gets the rows of the kept sources.

        Raises:
          ValueError: as the filter and the classifier say.
        """
        place, classes = encode_classes("FLEAClassifier.fit", y)
        filter_: Any = clone(self.source_filter) if self.source_filter is not None else FLEA()
        filter_.fit(X, classes[place], sensitive_features=sensitive_features, source=source)
        kept = filter_.support_
        known = {
            name: None if values is None else read_labels("FLEAClassifier.fit", name, values, len(kept))[kept]
            for name, values in (("sensitive_features", sensitive_features), ("source", source))
        }
        estimator = clone(self.estimator)
        more = accepted_arguments(estimator, **known)
        for name, value in routed_parameters(self, "fit", fit_params).items():
            per_row = not isinstance(value, (str, dict)) and hasattr(value, "__len__") and len(value) == len(kept)
            more[name] = take_rows(value, kept) if per_row else value
        self.filter_, self.estimator_ = filter_, estimator.fit(take_rows(X, kept), classes[place[kept]], **more)
        self.classes_ = getattr(self.estimator_, "classes_", classes)
        self.n_features_in_ = filter_.n_features_in_
        if hasattr(filter_, "feature_names_in_"):
            self.feature_names_in_ = filter_.feature_names_in_
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_
        return self

    def predict(self, X: ArrayLike, **options: Any) -> np.ndarray:
        """Predict with the fitted classifier; options such as ``sensitive_features`` go to its ``predict``.

        Raises:
          NotFittedError: before ``fit``.
        """
        check_is_fitted(self)
        return self.estimator_.predict(X, **options)

    @available_if(_has("predict_proba"))
    def predict_proba(self, X: ArrayLike, **options: Any) -> np.ndarray:
        """Return probabilities of the fitted classifier."""
        check_is_fitted(self)
        return self.estimator_.predict_proba(X, **options)

    @available_if(_has("predict_log_proba"))
    def predict_log_proba(self, X: ArrayLike, **options: Any) -> np.ndarray:
        """Return logarithms of the probabilities of the fitted classifier."""
        check_is_fitted(self)
        return self.estimator_.predict_log_proba(X, **options)

    @available_if(_has("decision_function"))
    def decision_function(self, X: ArrayLike, **options: Any) -> np.ndarray:
        """Return scores of the fitted classifier."""
        check_is_fitted(self)
        return self.estimator_.decision_function(X, **options)
