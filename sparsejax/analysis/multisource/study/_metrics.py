"""Accuracy and unfairness of decisions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sparsejax._checks import fail
from sparsejax.analysis.multisource._inputs import Labels, encode_binary

METRICS = ("accuracy", "auc", "dp_violation", "eo_violation", "eodds_violation")


def evaluate_decisions(
    y_true: ArrayLike, y_pred: ArrayLike, *, sensitive_features: ArrayLike, y_score: Labels = None
) -> dict[str, float]:
    """Measure accuracy and unfairness of decisions on a test set.

    Args:
      y_true: labels, 0 or 1.
      y_pred: decisions, 0 or 1.
      sensitive_features: the protected attribute, two distinct values.
      y_score: scores, for the area under the ROC curve; without them ``auc`` is NaN.

    Returns:
      ``accuracy`` and ``auc`` (higher is better); ``dp_violation`` |difference of the groups' positive rates|,
      ``eo_violation`` |difference of true positive rates|, ``eodds_violation`` the larger of that and the |difference
      of true negative rates|: 0 is fair, 1 the worst (fairlearn's ``demographic_parity_difference``,
      ``equal_opportunity_difference``, ``equalized_odds_difference`` for two groups); and the rates behind them,
      ``positive_rate``, ``tpr``, ``tnr`` with ``_0`` and ``_1`` for the groups. A rate of no rows is NaN.

    Raises:
      ValueError: lengths differ; labels or decisions other than 0 and 1.

    >>> evaluate_decisions([1, 0, 1, 0], [1, 0, 1, 1], sensitive_features=[0, 0, 1, 1])["dp_violation"]
    0.5
    """
    y, decision = (np.asarray(values).astype(float) for values in (y_true, y_pred))
    for name, values in (("y_true", y), ("y_pred", decision)):
        if values.shape != (len(y),) or not np.isin(values, (0, 1)).all():
            shown = f"shape {values.shape} and values {np.unique(values)[:4]}"
            fail("evaluate_decisions", name, shown, f"{len(y)} zeros and ones")
    a, _ = encode_binary("evaluate_decisions", "sensitive_features", sensitive_features, len(y))
    result = {"accuracy": float((y == decision).mean()), "auc": _auc(y, y_score)}
    rates = {
        "positive_rate": [_mean(decision, a == g) for g in (0, 1)],
        "tpr": [_mean(decision, (a == g) & (y == 1)) for g in (0, 1)],
        "tnr": [_mean(1 - decision, (a == g) & (y == 0)) for g in (0, 1)],
    }
    gap = {name: abs(first - second) for name, (first, second) in rates.items()}
    result |= {"dp_violation": gap["positive_rate"], "eo_violation": gap["tpr"]}
    result["eodds_violation"] = max(gap["tpr"], gap["tnr"])
    return result | {f"{name}_{g}": rates[name][g] for name in rates for g in (0, 1)}


def _mean(values: np.ndarray, where: np.ndarray) -> float:
    return float(values[where].mean()) if where.any() else float("nan")


def _auc(y: np.ndarray, score: Any) -> float:
    from sklearn.metrics import roc_auc_score

    if score is None or len(np.unique(y)) < 2:
        return float("nan")
    return float(roc_auc_score(y, score))
