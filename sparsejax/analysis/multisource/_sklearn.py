"""The base classes of scikit-learn, which this part of the package needs as a whole."""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sparsejax._checks import message

try:
    from sklearn import get_config
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.base import clone as _clone
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.utils import validation
except ImportError as error:
    _HINT = "Install it: pip install 'sparsejax[analysis]'."
    raise ImportError(
        message("sparsejax.analysis.multisource", "the environment", "no scikit-learn", "scikit-learn", _HINT)
    ) from error

__all__ = ["BaseEstimator", "ClassifierMixin", "accepted_arguments", "clone", "ignore_iteration_limit", "register"]


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


def register(estimator: Any, X: ArrayLike, *, reset: bool) -> np.ndarray:
    """Return X as an array, and record or compare the number and names of its features as scikit-learn does.

    Missing values pass: `check_features` names the place.
    """
    if hasattr(validation, "validate_data"):  # scikit-learn 1.6 and later
        options: dict[str, Any] = {"X": X, "ensure_all_finite": False}
        return np.asarray(validation.validate_data(estimator, reset=reset, dtype=np.float64, **options))
    return estimator._validate_data(X, reset=reset, dtype=np.float64, force_all_finite=False)


@contextlib.contextmanager
def ignore_iteration_limit() -> Iterator[None]:
    """Silence warnings about the iteration limit: the published methods take the last iterate by design."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield
