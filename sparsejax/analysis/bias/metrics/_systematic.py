"""Systematic bias: errors of the predicted rate that refer to no group."""

from __future__ import annotations

import numpy as np

from sparsejax.analysis._arrays import ArrayLike, NumberLike
from sparsejax.analysis.bias.metrics._arrays import labels, predictions, same_columns, same_shape
from sparsejax.analysis.bias.metrics._measured import Measured, divide, measured


def rare_value_ratio(
    y_true: ArrayLike, y_pred: ArrayLike, *, y_train: ArrayLike, missing: NumberLike | None = None
) -> Measured:
    """Measure how often the rarer value is predicted, relative to how often it occurs.

    rare(a) = (1 - mean yhat) / (1 - mean t)  if the training rate of positives is above 0.5
              mean yhat / mean t              otherwise

    1 is calibrated; below 1 the rarer value is predicted too seldom; 0 means never.

    Args:
      y_true: labels of the evaluation split [n] or [n, K].
      y_pred: hard predictions of the same shape.
      y_train: labels of the training split [m] or [m, K], which define the rarer value.
      missing: a value that marks a missing label.

    Returns:
      `Measured` [K]: NaN where the rarer value does not occur in the evaluation split ("absent_value"), or a split
      has no label ("no_labels").

    Raises:
      ValueError: shapes disagree, or values are not labels.

    Source: Iofinova et al. 2023, released code.

    >>> t, yhat = np.repeat([1, 0], [7, 3]), np.repeat([1, 0], [8, 2])
    >>> round(float(rare_value_ratio(t, yhat, y_train=t).value[0]), 4)
    0.6667
    """
    function = "rare_value_ratio"
    t, yhat = labels(function, "y_true", y_true, missing=missing), predictions(function, "y_pred", y_pred)
    train = labels(function, "y_train", y_train, missing=missing)
    same_shape(function, y_true=t, y_pred=yhat)
    same_columns(function, y_true=t, y_train=train)
    known = ~np.isnan(t)
    predicted, actual = (yhat & known).sum(axis=0), (t == 1).sum(axis=0)
    return rare_ratio_of_counts(predicted, actual, known.sum(axis=0), positive_rate(train))


def tcb(y_true: ArrayLike, y_pred: ArrayLike, *, y_train: ArrayLike, missing: NumberLike | None = None) -> Measured:
    """Measure the threshold calibration bias: log2 of `rare_value_ratio`.

    0 is calibrated, -1 means that the rarer value is predicted half as often as it should be, -inf never.
    It is not known whether the paper's quantity of that name is this logarithm, the ratio or a difference; its code
    computes the ratio.

    Args:
      y_true: labels of the evaluation split [n] or [n, K].
      y_pred: hard predictions of the same shape.
      y_train: labels of the training split.
      missing: a value that marks a missing label.

    Returns:
      `Measured` [K], as for `rare_value_ratio`.

    Raises:
      ValueError: shapes disagree, or values are not labels.

    >>> t, yhat = np.repeat([1, 0], [7, 3]), np.repeat([1, 0], [8, 2])
    >>> round(float(tcb(t, yhat, y_train=t).value[0]), 3)
    -0.585
    """
    ratio = rare_value_ratio(y_true, y_pred, y_train=y_train, missing=missing)
    return Measured(log2(ratio.value), ratio.reason)


def log2(ratio: np.ndarray) -> np.ndarray:
    """Return the base-2 logarithm, with log2(0) = -inf and no warning."""
    with np.errstate(divide="ignore"):
        return np.log2(ratio)


def positive_rate(labels: np.ndarray) -> np.ndarray:
    """Return float64[K], the share of positives among the labelled samples; NaN where there is no label."""
    return divide((labels == 1).sum(axis=0), (~np.isnan(labels)).sum(axis=0))


def rare_ratio_of_counts(
    predicted: np.ndarray, actual: np.ndarray, total: np.ndarray, train_rate: np.ndarray
) -> Measured:
    """Return the ratio from numbers of predicted positives, true positives and samples [..., K].

    ``train_rate`` is `positive_rate` of the training labels [K]; without any, no value is the rarer one.
    """
    common_positive = train_rate > 0.5
    occurs = np.where(common_positive, total - actual, actual)
    ratio = divide(np.where(common_positive, total - predicted, predicted), occurs)
    no_labels = np.broadcast_to((total == 0) | np.isnan(train_rate), ratio.shape)
    return measured(ratio, (no_labels, "no_labels"), (occurs == 0, "absent_value"))
