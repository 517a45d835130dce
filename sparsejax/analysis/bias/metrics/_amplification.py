"""Bias amplification: how far a model exaggerates an association of its training data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from sparsejax._checks import fail
from sparsejax.analysis._arrays import ArrayLike, ColumnsLike, NumberLike, read_number
from sparsejax.analysis.bias.metrics._arrays import labels, one_of, predictions, same_columns, same_length, same_shape
from sparsejax.analysis.bias.metrics._counts import Counts, count, indicators
from sparsejax.analysis.bias.metrics._groups import Group, read_groups, side_masks, sides
from sparsejax.analysis.bias.metrics._measured import Measured, divide, measured, nanmean


class Association(NamedTuple):
    """Which side the training labels favour; every field has shape [K, P] (attributes, pairs of sides).

    Attributes:
      favours_one: bool, the positive label is more frequent on side 1.
      relative_gap: |f1 - f0| / min(f1, f0); inf where one frequency is 0, NaN where both are or a side is empty.
      empty: bool, a side has no training sample.
    """

    favours_one: np.ndarray
    relative_gap: np.ndarray
    empty: np.ndarray


class BiasAmplification(NamedTuple):
    """The result of `bias_amplification`; arrays of shape [K, P].

    Attributes:
      value: the amplification, in (-1, 1); NaN where it is undefined.
      reason: why it is NaN, "" where it is not.
      favours_one: bool, the training labels favour side 1.
      groups: names of the P pairs.
    """

    value: np.ndarray
    reason: np.ndarray
    favours_one: np.ndarray
    groups: tuple[str, ...]


def association(y_train: np.ndarray, ones: np.ndarray, zeros: np.ndarray) -> Association:
    """Measure the association of labels float[n, K] with sides bool[P, n] on the training split."""
    flags = indicators(y_train, np.zeros_like(y_train, bool))
    one, zero = count(flags, ones), count(flags, zeros)
    f1, f0 = divide(one.positives, one.total).T, divide(zero.positives, zero.total).T
    low, gap = np.minimum(f1, f0), np.abs(f1 - f0)
    relative = np.where((low == 0) & (gap > 0), np.inf, divide(gap, low))
    return Association(f1 > f0, relative, np.isnan(f1) | np.isnan(f0))


def amplification(one: Counts, zero: Counts, favours_one: np.ndarray) -> np.ndarray:
    """Apply the formula to counts [..., P, K] of the two sides; favours_one is [P, K]. NaN for 0 / 0."""
    predicted = np.where(favours_one, one.predicted, zero.predicted)
    positives = np.where(favours_one, one.positives, zero.positives)
    share = divide(predicted, one.predicted + zero.predicted)
    return share - divide(positives, one.positives + zero.positives)


def amplification_with_reasons(
    one: Counts, zero: Counts, known: Association, is_self: np.ndarray, min_count: float, min_rel_gap: float
) -> Measured:
    """Return the amplification [K, P] with the reasons for NaN, from counts [P, K]."""
    empty = (one.total == 0).T | (zero.total == 0).T | known.empty
    weak = ~(known.relative_gap >= min_rel_gap)
    few = (one.positives < min_count).T | (zero.positives < min_count).T
    return measured(
        amplification(one, zero, known.favours_one.T).T,
        (is_self, "self"),
        (empty, "empty_group"),
        (weak, "weak_association"),
        (few, "too_few_positives"),
        ((one.predicted + zero.predicted).T == 0, "no_predicted_positives"),
        ((one.positives + zero.positives).T == 0, "too_few_positives"),
    )


def equals_side(y_true: np.ndarray, ones: np.ndarray, zeros: np.ndarray) -> np.ndarray:
    """Return bool[K, P]: the attribute is the pair of sides itself, sample by sample."""
    known = ~np.isnan(y_true)
    agrees = [
        [(y[k] == one[k]).all() and (one | zero)[k].all() for one, zero in zip(ones, zeros, strict=True)]
        for y, k in zip(y_true.T, known.T, strict=True)
    ]
    return np.array(agrees, bool).reshape(y_true.shape[1], len(ones))


def read_training_groups(function: str, groups: Sequence[Group], values: ColumnsLike) -> list[Group]:
    """Read the groups of the training split with the levels of the evaluation split."""
    read = read_groups(function, "sensitive_train", values, [group.name for group in groups])
    if [group.name for group in read] != [group.name for group in groups]:
        got, expected = [group.name for group in read], [group.name for group in groups]
        fail(function, "sensitive_train", f"groups {got}", f"{expected}, as sensitive_features")
    return [in_train.like(group) for in_train, group in zip(read, groups, strict=True)]


def bias_amplification(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    sensitive_features: ColumnsLike,
    *,
    y_train: ArrayLike,
    sensitive_train: ColumnsLike,
    min_count: NumberLike = 10,
    min_rel_gap: NumberLike = 0.1,
    missing: NumberLike | None = None,
) -> BiasAmplification:
    """Measure how far predictions exaggerate the training data's association of attribute a with group A.

    v* = the side of A on which a is more frequent in the training labels (1 if f1 > f0, else 0)
    BA(a, A) = sum_{A = v*} yhat / sum yhat - sum_{A = v*} t / sum t

    Sums run over the evaluation split; groups come from its ground truth, never from predictions. In (-1, 1):
    positive means that among predicted positives the favoured side is over-represented, 0 is best. Only
    positives enter, so relabelling 0 and 1 changes it.

    NaN, with the reason, where a is A itself ("self"), a side is empty ("empty_group"), the association is too
    weak for a direction ("weak_association": |f1 - f0| / min(f1, f0) < min_rel_gap, or 0 / 0), a side has fewer
    than min_count true positives ("too_few_positives"), or nothing is predicted positive
    ("no_predicted_positives"). The last one is not harmless: it happens where a model is damaged most, so average
    several models with `mean_amplification`.

    Args:
      y_true: labels [n] or [n, K]; NaN (or ``missing``) entries are left out of their attribute.
      y_pred: hard predictions of the same shape.
      sensitive_features: groups: mapping name -> [n], [n], or [n, G]; binary or categorical. A categorical group
        of more than two levels is taken one level against the rest.
      y_train: labels of the training split [m] or [m, K].
      sensitive_train: groups of the training split, in the same form.
      min_count: true positives that each side needs.
      min_rel_gap: least relative gap of the training frequencies.
      missing: a value that marks a missing label, such as -1.

    Returns:
      `BiasAmplification` with arrays [K, P].

    Raises:
      ValueError: shapes or names disagree, or values are not labels.

    Source: Iofinova et al. 2023, "Bias in Pruned Vision Models", released code.

    >>> side = np.repeat([1, 0], 40)
    >>> t, yhat = np.zeros(80), np.zeros(80)
    >>> t[:30] = t[40:52] = yhat[:33] = yhat[40:49] = 1
    >>> ba = bias_amplification(t, yhat, side, y_train=t, sensitive_train=side)
    >>> round(float(ba.value[0, 0]), 7)
    0.0714286
    """
    function = "bias_amplification"
    least = read_number(function, "min_count", min_count, 0)
    least_gap = read_number(function, "min_rel_gap", min_rel_gap, 0)
    t = labels(function, "y_true", y_true, missing=missing)
    yhat, train = predictions(function, "y_pred", y_pred), labels(function, "y_train", y_train, missing=missing)
    groups = read_groups(function, "sensitive_features", sensitive_features)
    train_groups = read_training_groups(function, groups, sensitive_train)
    same_shape(function, y_true=t, y_pred=yhat)
    same_columns(function, y_true=t, y_train=train)
    same_length(function, y_true=t, sensitive_features=groups[0].codes)
    same_length(function, y_train=train, sensitive_train=train_groups[0].codes)
    ones, zeros = side_masks(groups)
    train_ones, train_zeros = side_masks(train_groups)
    known = association(train, train_ones, train_zeros)
    is_self = equals_side(t, ones, zeros) & equals_side(train, train_ones, train_zeros)
    flags = indicators(t, yhat)
    cells = amplification_with_reasons(count(flags, ones), count(flags, zeros), known, is_self, least, least_gap)
    return BiasAmplification(*cells, known.favours_one, tuple(side.name for side in sides(groups)))


class MeanAmplification(NamedTuple):
    """The result of `mean_amplification`.

    Attributes:
      value: float64[R, P], mean over the attributes for each run and pair of sides; NaN if no cell is left.
      overall: float64[R], mean over all cells.
      cells: int[R], how many cells each overall mean is over.
      lost: int[R], cells of the run that are undefined because nothing was predicted positive.
    """

    value: np.ndarray
    overall: np.ndarray
    cells: np.ndarray
    lost: np.ndarray


def mean_amplification(
    runs: Sequence[BiasAmplification | Measured], *, aggregate: Literal["common", "nanmean"] = "common"
) -> MeanAmplification:
    """Average bias amplification over attributes for runs that are to be compared.

    Args:
      runs: results of `bias_amplification` for the same attributes and groups.
      aggregate: "common" averages over the cells that are defined in every run; "nanmean" over those of each
        run, which understates the bias of a run that stopped predicting an attribute.

    Returns:
      `MeanAmplification`.

    Raises:
      ValueError: no run, runs of different shape, or an unknown aggregate.

    >>> good = measured(np.array([[0.1], [0.3]]))
    >>> bad = measured(np.array([[0.2], [0.0]]), (np.array([[False], [True]]), "no_predicted_positives"))
    >>> mean_amplification([good, bad]).overall.tolist(), mean_amplification([good, bad]).lost.tolist()
    ([0.1, 0.2], [0, 1])
    """
    one_of("mean_amplification", "aggregate", aggregate, ("common", "nanmean"))
    if not runs or len({run.value.shape for run in runs}) != 1:
        got = f"shapes {[run.value.shape for run in runs]}"
        fail("mean_amplification", "runs", got, "at least one run, all of one shape")
    values = np.stack([run.value for run in runs])
    if aggregate == "common":
        values = np.where(np.isnan(values).any(axis=0), np.nan, values)
    lost = np.array([(run.reason == "no_predicted_positives").sum() for run in runs])
    return MeanAmplification(
        nanmean(values, axis=1), nanmean(values, axis=(1, 2)), (~np.isnan(values)).sum(axis=(1, 2)), lost
    )


def marker_bias_amplification(
    y_true: ArrayLike, y_pred: ArrayLike, marked: ArrayLike, *, missing: NumberLike | None = None
) -> Measured:
    """Measure how far a model leans on a marker that was put into images (a "backdoor").

    bBA(a) = sum_{i marked} yhat / sum yhat - sum_{i marked} t / sum t

    The marker goes with the positive class by construction, so there is no test of direction and no minimum
    count. With a marker on half of the evaluation samples the second term is about 0.5, so the range is about
    (-0.5, 0.5); 0 means that the marker has no influence, higher is more reliance on it.

    Args:
      y_true: labels [n] or [n, K].
      y_pred: hard predictions of the same shape.
      marked: bool[n], which evaluation samples carry the marker.
      missing: a value that marks a missing label.

    Returns:
      `Measured` of shape [K]; NaN where nothing is marked ("empty_group"), predicted positive
      ("no_predicted_positives") or positive ("too_few_positives").

    Raises:
      ValueError: lengths differ, or values are not labels.

    Source: Iofinova et al. 2023, released code.

    >>> marker_bias_amplification([1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 1, 0]).value.tolist()
    [0.5]
    """
    function = "marker_bias_amplification"
    t, yhat = labels(function, "y_true", y_true, missing=missing), predictions(function, "y_pred", y_pred)
    inside = predictions(function, "marked", marked)
    same_shape(function, y_true=t, y_pred=yhat)
    same_length(function, y_true=t, marked=inside)
    one = inside[:, 0]
    counts = count(indicators(t, yhat), np.stack([one, ~one]))
    value = amplification(counts.at(0), counts.at(1), np.ones(t.shape[1], bool))
    return measured(
        value,
        (np.array(not one.any()), "empty_group"),
        (counts.predicted.sum(axis=0) == 0, "no_predicted_positives"),
        (counts.positives.sum(axis=0) == 0, "too_few_positives"),
    )
