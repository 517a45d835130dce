"""Accuracy and unfairness of decisions."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from sparsejax._checks import fail
from sparsejax.analysis._arrays import read_numbers, refuse_missing
from sparsejax.analysis.multisource._inputs import Labels, encode_binary, read_zeros_and_ones

METRICS = ("accuracy", "auc", "dp_violation", "eo_violation", "eodds_violation")


class DecisionMetrics(dict[str, float]):
    """Metrics by name.

    Attributes:
      undefined: the reason of each metric that is NaN, by name.
    """

    def __init__(self, values: dict[str, float], undefined: dict[str, str]):
        super().__init__(values)
        self.undefined = undefined


def evaluate_decisions(
    y_true: ArrayLike, y_pred: ArrayLike, *, sensitive_features: ArrayLike, y_score: Labels = None
) -> DecisionMetrics:
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
      ``positive_rate``, ``tpr``, ``tnr`` with ``_0`` and ``_1`` for the groups. A rate of no rows is NaN, as are the
      violations that depend on it; ``undefined`` of the result gives the reasons.

    Raises:
      ValueError: lengths differ; missing values; labels or decisions other than 0 and 1.

    >>> evaluate_decisions([1, 0, 1, 0], [1, 0, 1, 1], sensitive_features=[0, 0, 1, 1])["dp_violation"]
    0.5
    >>> evaluate_decisions([1, 1, 1, 0], [1, 0, 1, 1], sensitive_features=[0, 0, 1, 1], y_score=[1, 2, 3, 4]).undefined
    {'tnr_0': 'no row with label 0 in the first group', 'eodds_violation': 'tnr_0 is undefined'}
    """
    y = read_zeros_and_ones("evaluate_decisions", "y_true", y_true)
    decision = read_zeros_and_ones("evaluate_decisions", "y_pred", y_pred, len(y))
    a, _ = encode_binary("evaluate_decisions", "sensitive_features", sensitive_features, len(y))
    undefined: dict[str, str] = {}
    result = {"accuracy": float((y == decision).mean()), "auc": _auc(y, y_score, undefined)}
    rates = {}
    for name, right, label in (("positive_rate", decision, None), ("tpr", decision, 1), ("tnr", 1 - decision, 0)):
        for group in (0, 1):
            rows = (a == group) if label is None else (a == group) & (y == label)
            rates[f"{name}_{group}"] = float(right[rows].mean()) if rows.any() else float("nan")
            if not rows.any():
                undefined[f"{name}_{group}"] = f"no row with label {label} in the {('first', 'second')[group]} group"
    for violation, names in _VIOLATIONS.items():
        result[violation] = float(np.max([abs(rates[f"{name}_0"] - rates[f"{name}_1"]) for name in names]))  # keeps NaN
        behind = [f"{name}_{group}" for name in names for group in (0, 1) if f"{name}_{group}" in undefined]
        if behind:
            undefined[violation] = f"{' and '.join(behind)} {'are' if len(behind) > 1 else 'is'} undefined"
    return DecisionMetrics(result | rates, undefined)


_VIOLATIONS = {"dp_violation": ("positive_rate",), "eo_violation": ("tpr",), "eodds_violation": ("tpr", "tnr")}


def _auc(y: np.ndarray, y_score: Labels, undefined: dict[str, str]) -> float:
    from sklearn.metrics import roc_auc_score

    if y_score is None:
        undefined["auc"] = "no scores"
        return float("nan")
    score = read_numbers("evaluate_decisions", "y_score", y_score)
    if score.shape != y.shape:
        fail("evaluate_decisions", "y_score", f"shape {score.shape}", f"{y.shape}, one score per row")
    refuse_missing("evaluate_decisions", "y_score", np.isnan(score), "a score in every row")
    if len(np.unique(y)) < 2:
        undefined["auc"] = f"only label {y[0]} occurs"
        return float("nan")
    return float(roc_auc_score(y, score))
