"""Two related definitions of bias amplification, for comparison with other work."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sparsejax.analysis._arrays import ArrayLike, ColumnsLike, NumberLike
from sparsejax.analysis.bias.metrics._amplification import read_training_groups
from sparsejax.analysis.bias.metrics._arrays import labels, predictions, same_columns, same_length, same_shape
from sparsejax.analysis.bias.metrics._groups import Group, read_groups
from sparsejax.analysis.bias.metrics._measured import Measured, divide, measured, nanmean


class ZhaoAmplification(NamedTuple):
    """The result of `bias_amplification_zhao`.

    Attributes:
      mean: sum of the defined entries of ``value``, divided by the number of outputs; NaN if none is defined.
      value: float64[K, L], btilde(o, g) - b*(o, g) for the levels that the training data favours, NaN elsewhere.
      reason: array of str [K, L]: why an entry is NaN.
      levels: the L levels of the group.
    """

    mean: float
    value: np.ndarray
    reason: np.ndarray
    levels: tuple[str, ...]


def bias_amplification_zhao(
    y_pred: ArrayLike, sensitive_pred: ArrayLike, *, y_train: ArrayLike, sensitive_train: ArrayLike
) -> ZhaoAmplification:
    """Measure bias amplification as Zhao et al. do.

    b(o, g) = c(o, g) / sum_g' c(o, g')
    mean = 1 / |O| * sum_g sum_{o : b*(o, g) > 1 / |G|} ( btilde(o, g) - b*(o, g) )

    b* uses training counts, btilde the predicted outputs **and the predicted group**. Positive means that
    predictions are more one-sided than the training labels. Differs from `bias_amplification`, which compares
    predictions with the labels of the same split, so that a shift from training to test does not enter.

    Args:
      y_pred: predicted outputs [n] or [n, K], {0, 1}.
      sensitive_pred: predicted group, one attribute [n] of any number of levels.
      y_train: training labels [m] or [m, K].
      sensitive_train: group of the training samples [m].

    Returns:
      `ZhaoAmplification`. An output that is never predicted has no btilde ("no_predicted_positives").

    Raises:
      ValueError: shapes disagree, or values are not labels.

    Source: Zhao et al. 2017, "Men Also Like Shopping", section 3.

    >>> train = bias_amplification_zhao([1, 1, 1, 1], [1, 1, 1, 1], y_train=[1, 1, 1, 0], sensitive_train=[1, 1, 0, 0])
    >>> round(train.mean, 4)
    0.3333
    """
    function = "bias_amplification_zhao"
    yhat, train = predictions(function, "y_pred", y_pred), labels(function, "y_train", y_train)
    (group,) = read_groups(function, "sensitive_train", {"group 0": sensitive_train})
    predicted = read_groups(function, "sensitive_pred", {"group 0": sensitive_pred})[0].like(group)
    same_columns(function, y_pred=yhat, y_train=train)
    same_length(function, y_pred=yhat, sensitive_pred=predicted.codes)
    same_length(function, y_train=train, sensitive_train=group.codes)
    before, after = _shares(train == 1, group), _shares(yhat, predicted)
    favoured = before > 1 / len(group.levels)
    result = measured(
        after - before,
        (np.isnan(before), "too_few_positives"),
        (~favoured, "weak_association"),
        (np.isnan(after), "no_predicted_positives"),
    )
    total = np.nansum(result.value) if (result.reason == "").any() else np.nan
    return ZhaoAmplification(float(total) / yhat.shape[1], *result, group.levels)


def _shares(outputs: np.ndarray, group: Group) -> np.ndarray:
    counts = outputs.T.astype(float) @ group.masks().T.astype(float)
    return divide(counts, counts.sum(axis=1, keepdims=True))


def bias_amplification_directional(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    sensitive_features: ColumnsLike,
    *,
    y_train: ArrayLike,
    sensitive_train: ColumnsLike,
    missing: NumberLike | None = None,
) -> tuple[float, Measured]:
    """Measure directional bias amplification, from the group A to the attribute T.

    BiasAmp(A -> T) = 1 / (|A| |T|) * sum_{a, t} ( y_at D_at - (1 - y_at) D_at )
    y_at = [ P(A_a = 1, T_t = 1) > P(A_a = 1) P(T_t = 1) ] on the training split
    D_at = P(That_t = 1 | A_a = 1) - P(T_t = 1 | A_a = 1)

    Positive means that the model pushes the rate of t within group a further in the direction of the training
    association. Not made of ratios of positives, so it stays finite when a model stops predicting an attribute.

    Args:
      y_true: labels [n] or [n, K].
      y_pred: hard predictions of the same shape.
      sensitive_features: groups as for `bias_amplification`; every level of every group is one A_a, except that
        a {0, 1} group stands for its value 1 alone.
      y_train: labels of the training split.
      sensitive_train: groups of the training split.
      missing: a value that marks a missing label.

    Returns:
      (mean over the defined terms, `Measured` of the terms [K, A]). A term is NaN where the group is empty in
      either split, or has no label ("empty_group").

    Raises:
      ValueError: shapes or names disagree, or values are not labels.

    Source: Wang & Russakovsky 2021, "Directional Bias Amplification", equation 1 (A -> T).

    >>> a = np.array([1, 1, 0, 0])
    >>> mean, terms = bias_amplification_directional([1, 0, 0, 0], [1, 1, 0, 0], a, y_train=a, sensitive_train=a)
    >>> mean
    0.5
    """
    function = "bias_amplification_directional"
    t = labels(function, "y_true", y_true, missing=missing)
    yhat, train = predictions(function, "y_pred", y_pred), labels(function, "y_train", y_train, missing=missing)
    groups = read_groups(function, "sensitive_features", sensitive_features)
    train_groups = read_training_groups(function, groups, sensitive_train)
    same_shape(function, y_true=t, y_pred=yhat)
    same_columns(function, y_true=t, y_train=train)
    same_length(function, y_true=t, sensitive_features=groups[0].codes)
    same_length(function, y_train=train, sensitive_train=train_groups[0].codes)
    members, train_members = _members(groups), _members(train_groups)
    terms = directional_terms(t, yhat, members, positively_associated(train, train_members))
    return float(nanmean(terms.value)), terms


def _members(groups: list[Group]) -> np.ndarray:
    """Return bool[A, n]: all levels of categorical groups, value 1 of binary ones."""
    return np.concatenate([g.masks()[1:] if g.levels == ("0", "1") else g.masks() for g in groups])


def positively_associated(train: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Return float[K, A]: 1 or 0, and NaN for a group without training samples."""
    known, one = ~np.isnan(train), train == 1
    total = known.sum(axis=0)[:, None]
    joint = divide(one.T.astype(float) @ members.T, total)
    p_group = divide(known.T.astype(float) @ members.T, total)
    p_label = divide(one.sum(axis=0)[:, None], total)
    return np.where(p_group > 0, joint > p_group * p_label, np.nan)


def directional_terms(t: np.ndarray, yhat: np.ndarray, members: np.ndarray, positive: np.ndarray) -> Measured:
    """Return the terms [K, A] of the sum, from arrays that have been checked."""
    known = ~np.isnan(t)
    size = known.T.astype(float) @ members.T
    change = divide((yhat & known).T.astype(float) @ members.T - (t == 1).T.astype(float) @ members.T, size)
    return measured((2 * positive - 1) * change, (np.isnan(positive) | (size == 0), "empty_group"))
