"""The base classes of scikit-learn, which this part of the package needs as a whole."""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Generator, Sequence
from typing import Any

import numpy as np

from sparsejax._checks import fail, message

try:
    from sklearn import get_config
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.base import clone as _clone
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.utils import validation
    from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, process_routing
    from sklearn.utils.metaestimators import available_if
    from sklearn.utils.validation import check_is_fitted
except ImportError as error:
    _HINT = "Install it: pip install 'sparsejax[all]'."
    raise ImportError(
        message("sparsejax.analysis.multisource", "the environment", "no scikit-learn", "scikit-learn", _HINT)
    ) from error

__all__ = [
    "BaseEstimator",
    "ClassifierMixin",
    "accepted_arguments",
    "available_if",
    "check_is_fitted",
    "clone",
    "estimator_tags",
    "ignore_iteration_limit",
    "record_columns",
    "require_method",
    "routed_parameters",
    "router_of",
    "validate_matrix",
]


def clone(estimator: Any) -> Any:
    """Return an unfitted copy; scikit-learn's function is typed as if it might return a list."""
    return _clone(estimator)


def accepted_arguments(estimator: Any, **values: Any) -> dict[str, Any]:
    """Return those of ``sensitive_features`` and ``source`` that the estimator's ``fit`` takes.

    It takes what it names. The reductions of fairlearn take ``sensitive_features`` as any keyword; scikit-learn's
    composites take any keyword to route it on, and get what their parts have requested (``set_fit_request``).
    """
    parameters = inspect.signature(estimator.fit).parameters.values()
    named = {p.name for p in parameters}
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        if not type(estimator).__module__.startswith("sklearn."):
            named.add("sensitive_features")
        elif get_config().get("enable_metadata_routing"):
            named |= estimator.get_metadata_routing().consumes("fit", list(values))
    return {name: value for name, value in values.items() if name in named}


def router_of(owner: Any, methods: Sequence[str], **estimators: Any) -> MetadataRouter:
    """Return the routing of a meta-estimator: each method takes metadata for itself and for the same inner method."""
    mapping = MethodMapping()
    for method in methods:
        mapping.add(caller=method, callee=method)
    return MetadataRouter(owner=type(owner).__name__).add_self_request(owner).add(method_mapping=mapping, **estimators)


def routed_parameters(owner: Any, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters for the inner estimator: all of them, or with metadata routing those that it requested."""
    if not parameters or not get_config().get("enable_metadata_routing"):
        return parameters
    return process_routing(owner, method, **parameters).estimator[method]


def estimator_tags(estimator: Any) -> Any:
    """Return the tags of an estimator (scikit-learn 1.6 and later)."""
    from sklearn.utils import get_tags

    return get_tags(estimator)


def require_method(function: str, estimator: Any, *methods: str) -> None:
    """Refuse an inner estimator that has none of some methods.

    Raises:
      ValueError: naming them.
    """
    if not any(hasattr(estimator, method) for method in methods):
        fail(function, "estimator", f"type {type(estimator).__name__}", f"a classifier with {' or '.join(methods)}")


def validate_matrix(estimator: Any, X: Any, *, reset: bool) -> np.ndarray:
    """Return X as an array, and record or compare the number and names of its features as scikit-learn does.

    Missing values pass: `check_features` names the place.
    """
    if hasattr(validation, "validate_data"):  # scikit-learn 1.6 and later
        options: dict[str, Any] = {"X": X, "ensure_all_finite": False}
        return np.asarray(validation.validate_data(estimator, reset=reset, dtype=np.float64, **options))
    return estimator._validate_data(X, reset=reset, dtype=np.float64, force_all_finite=False)


def record_columns(estimator: Any, frame: Any, *, reset: bool) -> None:
    """Record or compare the number and names of a data frame's columns as scikit-learn does."""
    if hasattr(validation, "validate_data"):
        options: dict[str, Any] = {"X": frame, "skip_check_array": True}
        validation.validate_data(estimator, reset=reset, **options)
    else:
        estimator._check_feature_names(frame, reset=reset)
        estimator._check_n_features(frame, reset=reset)


@contextlib.contextmanager
def ignore_iteration_limit() -> Generator[None]:
    """Silence warnings about the iteration limit: the published methods take the last iterate by design."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield
