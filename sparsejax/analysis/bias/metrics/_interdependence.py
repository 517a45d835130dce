"""Interdependence: how well each output is explained by all others."""

from __future__ import annotations

from typing import Literal

import numpy as np

from sparsejax._checks import fail
from sparsejax.analysis._arrays import ArrayLike
from sparsejax.analysis.bias.metrics._arrays import one_of, scores, sigmoid
from sparsejax.analysis.bias.metrics._measured import Measured, measured, nanmean
from sparsejax.analysis.bias.metrics._thresholds import check_thresholds

On = Literal["hard", "prob", "logit", "values"]


def interdependence(
    logits: ArrayLike, *, on: On = "hard", thresholds: ArrayLike = 0.0, legacy: bool = False
) -> Measured:
    """Regress each output on all others and return the share of its variance that they explain.

    R2(a) = 1 - |x_a - X_{-a} w - c|^2 / |x_a - mean x_a|^2,  ordinary least squares with intercept, in-sample

    In [0, 1]; higher is more dependence. Not adjusted for the number of attributes and not cross-validated. On hard
    predictions, as in the paper's code, the collapse of a predicted rate can hide a rise; probabilities show it.

    Args:
      logits: float[n, K].
      on: "hard" decisions at ``thresholds``, "prob", "logit", or "values": the numbers as they are, for instance
        true labels as the level of reference.
      thresholds: one number or float[K], for on="hard".
      legacy: give 1.0 for a constant column, as scikit-learn does, where the default is NaN.

    Returns:
      `Measured` [K]: NaN where K < 2 or n <= K ("too_few_samples") or the column is "constant". With regressors
      that depend on each other the solution of least norm is taken, which changes no R2.

    Raises:
      ValueError: NaN, or an unknown ``on``.

    Cost: one QR factorisation of [n, K] and K least-squares problems of size K.
    Source: Iofinova et al. 2023, released code (on="hard", legacy=True).

    >>> x = np.array([[0.0, 0.0, 1.0], [1.0, 2.0, 0.0], [2.0, 4.0, 0.0], [3.0, 6.0, 1.0]])
    >>> interdependence(x, on="values").value.round(6).tolist()
    [1.0, 1.0, 0.0]
    """
    one_of("interdependence", "on", on, ("hard", "prob", "logit", "values"))
    x = scores("interdependence", "logits", logits)
    if on == "hard":
        x = (x > check_thresholds("interdependence", thresholds, x.shape[1])).astype(float)
    elif on == "prob":
        x = sigmoid(x)
    _refuse_infinite("interdependence", "logits", x)
    rows, columns = x.shape
    if columns < 2 or rows <= columns:
        return measured(np.zeros(columns), (np.ones(columns, bool), "too_few_samples"))
    constant = x.max(axis=0) == x.min(axis=0)
    # Residuals are unchanged by an orthogonal transformation, so the small factor stands for all samples.
    r = np.asarray(np.linalg.qr(np.where(constant, 0.0, x - x.mean(axis=0)), mode="r"))
    value = np.array([0.0 if constant[a] else _explained(r, a) for a in range(columns)])
    if legacy:
        return measured(np.where(constant, 1.0, value))
    return measured(value, (constant, "constant"))


def _refuse_infinite(function: str, operand: str, x: np.ndarray) -> None:
    if not np.isfinite(x).all():
        row, column = np.argwhere(~np.isfinite(x))[0]
        fail(function, operand, f"value {x[row, column]:g} at row {row}, column {column}", "finite numbers")


def _explained(r: np.ndarray, column: int) -> float:
    target, others = r[:, column], np.delete(r, column, axis=1)
    solution = np.linalg.lstsq(others, target, rcond=None)[0]
    return 1.0 - float(((target - others @ solution) ** 2).sum() / (target**2).sum())


def mean_absolute_correlation(values: ArrayLike) -> float:
    """Return the mean |correlation| over pairs of different columns; constant columns are left out.

    Args:
      values: float[n, K]: logits, probabilities, predictions or labels.

    Returns:
      A number in [0, 1]; NaN with fewer than two columns that vary.

    >>> round(mean_absolute_correlation([[0.0, 1.0], [1.0, 0.0], [2.0, -1.0]]), 6)
    1.0
    """
    x = scores("mean_absolute_correlation", "values", values)
    _refuse_infinite("mean_absolute_correlation", "values", x)
    x = x[:, x.max(axis=0) > x.min(axis=0)]
    if x.shape[1] < 2:
        return float("nan")
    correlation = np.abs(np.corrcoef(x, rowvar=False))
    return float(nanmean(correlation[~np.eye(len(correlation), dtype=bool)]))
