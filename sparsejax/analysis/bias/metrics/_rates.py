"""Rates: of one model, and in each group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sparsejax._checks import fail
from sparsejax.analysis._arrays import ArrayLike, ColumnsLike, NumberLike, read_array, read_number
from sparsejax.analysis.bias.metrics._arrays import labels, one_of, predictions, same_length, same_shape, scores
from sparsejax.analysis.bias.metrics._counts import Counts, count, indicators
from sparsejax.analysis.bias.metrics._groups import read_groups
from sparsejax.analysis.bias.metrics._measured import Measured, divide, measured

SpreadMethod = Literal["between_groups", "to_overall"]
RATES = ("accuracy", "predicted_positive_rate", "false_positive_rate", "false_negative_rate", "uncertainty")


def _rate(name: str, formula: str, direction: str) -> Callable[[ArrayLike, ArrayLike], float | np.ndarray]:
    def rate(y_true: ArrayLike, y_pred: ArrayLike) -> float | np.ndarray:
        t, yhat = labels(name, "y_true", y_true), predictions(name, "y_pred", y_pred)
        same_shape(name, y_true=t, y_pred=yhat)
        value = count(indicators(t, yhat), np.ones((1, len(t)))).at(0).rates()[name]
        return float(value[0]) if read_array(name, "y_true", y_true)[0].ndim == 1 else value

    rate.__name__ = rate.__qualname__ = name
    rate.__doc__ = f"""Return {formula}. In [0, 1]; {direction}.

    Args:
      y_true: labels [n] or [n, K]; NaN entries are left out.
      y_pred: hard predictions of the same shape.

    Returns:
      A float for [n], float64[K] for [n, K]; NaN where the denominator is 0. Fits into fairlearn's MetricFrame.
    """
    return rate


accuracy = _rate("accuracy", "mean(yhat == t)", "higher is better")
predicted_positive_rate = _rate("predicted_positive_rate", "mean(yhat)", "compare it with the rate of the labels")
false_positive_rate = _rate("false_positive_rate", "P(yhat = 1 | t = 0)", "lower is better")
false_negative_rate = _rate("false_negative_rate", "P(yhat = 0 | t = 1)", "lower is better")


def auc(y_true: ArrayLike, y_score: ArrayLike, *, missing: NumberLike | None = None) -> Measured:
    """Return the area under the ROC curve, ties averaged.

    AUC = P(score of a positive > score of a negative) + P(equal) / 2

    In [0, 1]; 0.5 is chance, higher is better. The same for logits and probabilities.

    Args:
      y_true: labels [n] or [n, K].
      y_score: scores of the same shape.
      missing: a value that marks a missing label.

    Returns:
      `Measured` [K]: NaN ("one_class") where the labels are all equal.

    Raises:
      ValueError: shapes differ, NaN scores, or values are not labels.

    >>> auc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]).value.tolist()
    [0.75]
    """
    t, z = labels("auc", "y_true", y_true, missing=missing), scores("auc", "y_score", y_score)
    same_shape("auc", y_true=t, y_score=z)
    value = np.array([_auc(t[:, a], z[:, a]) for a in range(t.shape[1])])
    return measured(value, (np.isnan(value), "one_class"))


def _auc(t: np.ndarray, z: np.ndarray) -> float:
    known = ~np.isnan(t)
    levels, where = np.unique(z[known], return_inverse=True)
    positive = np.bincount(where, t[known], minlength=len(levels))
    negative = np.bincount(where, 1 - t[known], minlength=len(levels))
    below = np.cumsum(negative) - negative
    pairs = positive.sum() * negative.sum()
    return float(divide((positive * (below + negative / 2)).sum(), pairs))


def precision_at_recall(
    y_true: ArrayLike, y_score: ArrayLike, recall: NumberLike, *, tolerance: NumberLike = 0.05
) -> float:
    """Return the precision at the point of the precision-recall curve nearest to a recall.

    Args:
      y_true: labels [n].
      y_score: scores [n].
      recall: the recall asked for, in [0, 1].
      tolerance: NaN if no point lies within this distance of ``recall``.

    Returns:
      A float in [0, 1]. Of equally near points the most precise one counts.

    Raises:
      ValueError: shapes differ, or values are not labels.

    Source: monitoring in the released code of Iofinova et al. 2023, at recall 0.5, 0.75, 0.9 and 0.95.

    >>> precision_at_recall([0, 1, 1, 0], [0.1, 0.9, 0.4, 0.6], 0.5)
    1.0
    """
    t, z = labels("precision_at_recall", "y_true", y_true), scores("precision_at_recall", "y_score", y_score)
    same_shape("precision_at_recall", y_true=t, y_score=z)
    aim = read_number("precision_at_recall", "recall", recall, 0, 1)
    within = read_number("precision_at_recall", "tolerance", tolerance, 0)
    known = ~np.isnan(t[:, 0])
    t, z = t[known, 0], z[known, 0]
    order = np.argsort(-z, kind="stable")
    last_of_tie = np.append(np.diff(z[order]) != 0, True)
    hits, tried = np.cumsum(t[order])[last_of_tie], np.flatnonzero(last_of_tie) + 1
    reached = divide(hits, t.sum())
    distance = np.abs(reached - aim)
    if np.isnan(distance).any() or distance.min() > within:
        return float("nan")
    return float((hits / tried)[distance == distance.min()].max())


@dataclass(frozen=True)
class GroupRates:
    """Rates in each level of one group, with fairlearn's words.

    Attributes:
      levels: the L levels.
      overall: rate -> float64[K], over all samples.
      by_group: rate -> `Measured` [L, K].
      counts: `Counts` [L, K].
    """

    levels: tuple[str, ...]
    overall: dict[str, np.ndarray]
    by_group: dict[str, Measured]
    counts: Counts

    def group_min(self) -> dict[str, np.ndarray]:
        """Return rate -> the least defined value over levels [K]."""
        return {name: np.fmin.reduce(rates.value, axis=0) for name, rates in self.by_group.items()}

    def group_max(self) -> dict[str, np.ndarray]:
        """Return rate -> the greatest defined value over levels [K]."""
        return {name: np.fmax.reduce(rates.value, axis=0) for name, rates in self.by_group.items()}

    def difference(self, method: SpreadMethod = "between_groups") -> dict[str, np.ndarray]:
        """Return rate -> the largest absolute difference [K], between levels or from a level to all samples.

        NaN where fewer than two levels are defined; `by_group` has the reasons.

        >>> group_rates([1, 1, 1, 1], [1, 1, 1, 0], [0, 0, 1, 1], min_count=1).difference()["accuracy"].tolist()
        [0.5]
        """
        return {
            name: difference_of_levels(rates.value, self.overall[name], method, "GroupRates.difference")
            for name, rates in self.by_group.items()
        }

    def ratio(self, method: SpreadMethod = "between_groups") -> dict[str, np.ndarray]:
        """Return rate -> the smallest ratio [K] in [0, 1], between levels or of a level to all samples.

        NaN where fewer than two levels are defined; `by_group` has the reasons.

        >>> group_rates([1, 1, 1, 1], [1, 1, 1, 0], [0, 0, 1, 1], min_count=1).ratio()["accuracy"].tolist()
        [0.5]
        """
        return {
            name: ratio_of_levels(rates.value, self.overall[name], method, "GroupRates.ratio")
            for name, rates in self.by_group.items()
        }


def difference_of_levels(rates: np.ndarray, overall: np.ndarray, method: SpreadMethod, function: str) -> np.ndarray:
    """Return the largest absolute difference [K] of rates [L, K], between levels or from overall [K].

    NaN where fewer than two levels, or for "to_overall" none, are defined: there is nothing to compare.
    """
    one_of(function, "method", method, ("between_groups", "to_overall"))
    if method == "to_overall":
        return np.fmax.reduce(np.abs(rates - overall), axis=0)
    spread = np.fmax.reduce(rates, axis=0) - np.fmin.reduce(rates, axis=0)
    return np.where((~np.isnan(rates)).sum(axis=0) < 2, np.nan, spread)


def ratio_of_levels(rates: np.ndarray, overall: np.ndarray, method: SpreadMethod, function: str) -> np.ndarray:
    """Return the smallest ratio [K] of rates [L, K], between levels or of a level to overall [K]; NaN as above."""
    one_of(function, "method", method, ("between_groups", "to_overall"))
    if method == "to_overall":
        return np.fmin.reduce(np.fmin(divide(rates, overall), divide(overall, rates)), axis=0)
    ratio = divide(np.fmin.reduce(rates, axis=0), np.fmax.reduce(rates, axis=0))
    return np.where((~np.isnan(rates)).sum(axis=0) < 2, np.nan, ratio)


def rates_with_reasons(counts: Counts, min_count: float) -> dict[str, Measured]:
    """Return every rate of counts [..., K] with the reasons for NaN."""
    empty = counts.total == 0
    conditions = {
        "false_positive_rate": (counts.negatives < min_count, "too_few_negatives"),
        "false_negative_rate": (counts.positives < min_count, "too_few_positives"),
    }
    return {
        name: measured(value, (empty, "empty_group"), *([conditions[name]] if name in conditions else []))
        for name, value in counts.rates().items()
    }


def group_rates(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    sensitive_features: ColumnsLike,
    *,
    uncertain: ArrayLike | None = None,
    min_count: NumberLike = 10,
    missing: NumberLike | None = None,
) -> GroupRates:
    """Measure each rate in each level of one group.

    FPR = P(yhat = 1 | t = 0, A = v);  FNR = P(yhat = 0 | t = 1, A = v);  accuracy, predicted positive rate and
    uncertain share alike

    Args:
      y_true: labels [n] or [n, K].
      y_pred: hard predictions of the same shape.
      sensitive_features: one group attribute [n], binary or categorical.
      uncertain: bool of the same shape as ``y_true``, which cells are uncertain; none if absent, and then there is
        no "uncertainty" in the result.
      min_count: negatives that a false positive rate needs, and positives that a false negative rate needs.
      missing: a value that marks a missing label.

    Returns:
      `GroupRates`. NaN where a level is empty ("empty_group") or too small ("too_few_positives", "..._negatives").

    Raises:
      ValueError: shapes disagree, or values are not labels.

    Source: Iofinova et al. 2023, released code; Hooker et al. 2020, "Characterising Bias in Compressed Models".

    >>> rates = group_rates([1, 0, 1, 0], [1, 1, 0, 0], ["x", "x", "y", "y"], min_count=1)
    >>> rates.by_group["false_negative_rate"].value[:, 0].tolist()
    [0.0, 1.0]
    """
    function = "group_rates"
    t, yhat = labels(function, "y_true", y_true, missing=missing), predictions(function, "y_pred", y_pred)
    same_shape(function, y_true=t, y_pred=yhat)
    unsure = None if uncertain is None else predictions(function, "uncertain", uncertain)
    if unsure is not None:
        same_shape(function, y_true=t, uncertain=unsure)
    groups = read_groups(function, "sensitive_features", sensitive_features)
    if len(groups) != 1:
        fail(function, "sensitive_features", f"{len(groups)} attributes", "one")
    same_length(function, y_true=t, sensitive_features=groups[0].codes)
    counts = count(indicators(t, yhat, unsure), np.concatenate([groups[0].masks(), np.ones((1, len(t)), bool)]))
    names = RATES if unsure is not None else RATES[:-1]
    by_level = rates_with_reasons(counts.at(slice(-1)), read_number(function, "min_count", min_count, 0))
    overall = counts.at(-1).rates()
    return GroupRates(
        groups[0].levels, {n: overall[n] for n in names}, {n: by_level[n] for n in names}, counts.at(slice(-1))
    )


def rate_gaps(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    sensitive_features: ColumnsLike,
    *,
    uncertain: ArrayLike | None = None,
    min_count: NumberLike = 10,
    missing: NumberLike | None = None,
) -> dict[str, Measured]:
    """Return the signed gap of each rate: value(A = 1) - value(A = 0).

    Args:
      y_true: labels [n] or [n, K].
      y_pred: hard predictions of the same shape.
      sensitive_features: one group attribute [n] of two levels; the gap is the second (1) minus the first (0).
      uncertain: which cells are uncertain, as for `group_rates`.
      min_count: as for `group_rates`.
      missing: a value that marks a missing label.

    Returns:
      rate -> `Measured` [K], in [-1, 1]; 0 is parity.

    Raises:
      ValueError: the group has not exactly two levels (use `GroupRates.difference`), or as for `group_rates`.

    >>> rate_gaps([1, 1, 1, 1], [1, 1, 1, 0], [0, 0, 1, 1], min_count=1)["accuracy"].value.tolist()
    [-0.5]
    """
    rates = group_rates(y_true, y_pred, sensitive_features, uncertain=uncertain, min_count=min_count, missing=missing)
    if len(rates.levels) != 2:
        hint = "GroupRates.difference handles any number."
        fail("rate_gaps", "sensitive_features", f"{len(rates.levels)} levels", "two", hint)
    return {name: gap(measure, 1, 0) for name, measure in rates.by_group.items()}


def gap(rates: Measured, one: int, zero: int) -> Measured:
    """Return the gap between two levels (indices of the leading axis), with the first reason of the two."""
    reason = np.where(rates.reason[one] != "", rates.reason[one], rates.reason[zero])
    return Measured(rates.value[one] - rates.value[zero], reason)
