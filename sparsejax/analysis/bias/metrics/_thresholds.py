"""Hard decisions, and the thresholds that make the predicted rate right."""

from __future__ import annotations

from typing import Literal

import numpy as np

from sparsejax._checks import fail
from sparsejax.analysis._arrays import ArrayLike, NumberLike, read_array, read_numbers
from sparsejax.analysis.bias.metrics._arrays import labels, one_of, same_shape, scores

Rule = Literal["midpoint", "legacy"]


def hard_predictions(logits: ArrayLike, thresholds: ArrayLike = 0.0) -> np.ndarray:
    """Decide: yhat = 1 where z > theta, strictly.

    A score equal to its threshold is negative.

    Args:
      logits: float[n], [n, K], or [R, n, K] for R models. Probabilities work too, with thresholds=0.5.
      thresholds: one number, or float[K]; may be infinite.

    Returns:
      int8 of the shape of ``logits``.

    Raises:
      ValueError: NaN, or a number of thresholds other than 1 and K.

    Source: Iofinova et al. 2023, "Bias in Pruned Vision Models", released code.

    >>> hard_predictions([-1.0, 0.0, 0.1]).tolist()
    [0, 0, 1]
    """
    values = read_numbers("hard_predictions", "logits", logits)
    if values.ndim == 3:
        return np.stack([hard_predictions(one, thresholds) for one in values])
    z = scores("hard_predictions", "logits", values)
    theta = check_thresholds("hard_predictions", thresholds, z.shape[1])
    return (z > theta).astype(np.int8).reshape(values.shape)


def check_thresholds(function: str, thresholds: ArrayLike, columns: int) -> np.ndarray:
    """Return thresholds as float64[K]; one number stands for all."""
    theta = np.atleast_1d(read_numbers(function, "thresholds", thresholds))
    if theta.ndim != 1 or len(theta) not in (1, columns) or np.isnan(theta).any():
        got = f"shape {theta.shape}" if not np.isnan(theta).any() else "NaN"
        fail(function, "thresholds", got, f"one number, or {columns}, as many as attributes")
    return np.broadcast_to(theta, (columns,))


def calibrate_thresholds(
    logits: ArrayLike, y_true: ArrayLike, *, rule: Rule = "midpoint", missing: NumberLike | None = None
) -> np.ndarray | float:
    """Fit one threshold per attribute so that as many validation samples are predicted positive as are positive.

    k = sum(t);  theta = midpoint of the k-th and the (k+1)-th largest logit

    k = 0 gives +inf, k = n gives -inf. Where the k-th and the (k+1)-th logit are equal, theta is that value,
    so at most k samples are positive. It sets the predicted rate, not the accuracy, and it is one threshold
    per attribute, not per group. AUC, uncertainty and calibration error do not depend on it.

    Args:
      logits: float[n] or [n, K] of the validation split.
      y_true: labels of the same shape; missing ones are left out of their attribute.
      rule: "midpoint", or "legacy": the k-th largest logit itself, as in the paper's code, which yields k - 1
        positives under the strict comparison and is undefined for k = 0.
      missing: a value that marks a missing label, such as -1.

    Returns:
      float64[K], or a float for a single column.

    Raises:
      ValueError: shapes differ, NaN, no label in a column, or rule "legacy" with a column without positives.

    Source: Iofinova et al. 2023, released code (rule "legacy").

    >>> calibrate_thresholds([3.0, 2.0, 1.0, 0.0, -1.0], [1, 1, 0, 0, 0])
    1.5
    >>> calibrate_thresholds([3.0, 2.0, 1.0, 0.0, -1.0], [1, 1, 0, 0, 0], rule="legacy")
    2.0
    """
    function = "calibrate_thresholds"
    one_of(function, "rule", rule, ("midpoint", "legacy"))
    z, t = scores(function, "logits", logits), labels(function, "y_true", y_true, missing=missing)
    same_shape(function, logits=z, y_true=t)
    theta = np.array([_calibrate(z[:, a], t[:, a], a, rule) for a in range(z.shape[1])])
    return float(theta[0]) if read_array(function, "logits", logits)[0].ndim == 1 else theta


def _calibrate(z: np.ndarray, t: np.ndarray, column: int, rule: Rule) -> float:
    known = ~np.isnan(t)
    if not known.any():
        fail("calibrate_thresholds", f"y_true, column {column},", "no label", "at least one")
    ordered, k = np.sort(z[known])[::-1], int(t[known].sum())
    if rule == "legacy":
        if k == 0:
            fail("calibrate_thresholds", f"y_true, column {column},", "no positive", "at least one for rule 'legacy'")
        return ordered[k - 1]
    if k == 0:
        return np.inf
    if k == len(ordered):
        return -np.inf
    above, below = ordered[k - 1], ordered[k]
    middle = below + (above - below) / 2
    # Between neighbouring floats the midpoint rounds to one of them; the lower one still separates the two.
    return below if below < above <= middle else middle
