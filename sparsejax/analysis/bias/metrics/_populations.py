"""Examples and classes that pruning changes, measured on populations of models: PIE, CIE, class-level tests."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from sparsejax._checks import fail
from sparsejax.analysis._arrays import ArrayLike, NumberLike, read_number
from sparsejax.analysis.bias.metrics._arrays import class_labels, one_of
from sparsejax.analysis.bias.metrics._measured import divide

Tie = Literal["largest", "drop"]
DROPPED = -1


def modal_labels(y_pred: ArrayLike, *, tie: Tie = "largest") -> np.ndarray:
    """Return the label that most models of a population predict.

    Args:
      y_pred: predicted labels, whole numbers from 0, [R, n] (classes) or [R, n, K] (one binary decision per
        attribute).
      tie: "largest" takes the largest label of those that are equally frequent (for binary decisions and an even
        R that is the positive one); "drop" gives -1.

    Returns:
      int64[n] or [n, K].

    Raises:
      ValueError: another rank, or values that are not whole numbers from 0.

    Source: Hooker et al. 2019, "What Do Compressed Deep Neural Networks Forget?", and its code (ties).

    >>> modal_labels([[0, 1, 2], [0, 1, 1], [1, 0, 0]]).tolist()
    [0, 1, 2]
    """
    one_of("modal_labels", "tie", tie, ("largest", "drop"))
    votes = _votes("modal_labels", "y_pred", _labels("modal_labels", "y_pred", y_pred))
    best = votes.max(axis=0)
    largest = len(votes) - 1 - np.argmax(votes[::-1] == best, axis=0)
    return largest if tie == "largest" else np.where((votes == best).sum(axis=0) > 1, DROPPED, largest)


def pie(dense_pred: ArrayLike, sparse_pred: ArrayLike, *, tie: Tie = "largest") -> np.ndarray:
    """Find pruning identified exemplars: samples whose modal label differs between two populations.

    PIE(x) = [ mode of the dense models != mode of the sparse models ]

    The truth is not used. With a handful of models instead of the published 30, part of the PIE is noise; compare
    with the PIE between two dense populations.

    Args:
      dense_pred: predicted labels of the dense population, [R, n] or [R, n, K].
      sparse_pred: those of the sparse population; R may differ.
      tie: as for `modal_labels`; a sample that is dropped in either population is no PIE.

    Returns:
      bool[n] or [n, K].

    Raises:
      ValueError: the two differ in n or K, or as for `modal_labels`.

    Source: Hooker et al. 2019, "What Do Compressed Deep Neural Networks Forget?", section 3; for a binary task the
    modal CIE of Hooker et al. 2020, "Characterising Bias in Compressed Models".

    >>> pie([[0, 1], [0, 1], [1, 1]], [[1, 1], [1, 1], [0, 1]]).tolist()
    [True, False]
    """
    first, second = _labels("pie", "dense_pred", dense_pred), _labels("pie", "sparse_pred", sparse_pred)
    _same_samples("pie", first, second)
    dense, sparse = modal_labels(first, tie=tie), modal_labels(second, tie=tie)
    return (dense != sparse) & (dense != DROPPED) & (sparse != DROPPED)


class Taxicab(NamedTuple):
    """The result of `cie_taxicab`.

    Attributes:
      score: float64[n] or [n, K], in [0, 2].
      selected: bool of the same shape, the score is above the cut.
      cut: the percentile of the scores.
    """

    score: np.ndarray
    selected: np.ndarray
    cut: float


def cie_taxicab(dense_pred: ArrayLike, sparse_pred: ArrayLike, *, percentile: NumberLike = 90.0) -> Taxicab:
    """Find compression identified exemplars by how far the votes of the population move.

    score = sum_c | h_s(c) - h_0(c) |,  h(c) = share of the models that predict c

    For a binary decision that is 2 |v_s - v_0| with v the share of positive votes. 0: the populations vote alike;
    2: no model of one agrees with any of the other.

    Args:
      dense_pred: predicted labels of the dense population, [R, n] or [R, n, K].
      sparse_pred: those of the sparse population.
      percentile: samples strictly above this percentile of all scores are selected (published: 90, 95, 99).

    Returns:
      `Taxicab`.

    Raises:
      ValueError: the two differ in n or K, or a percentile outside [0, 100].

    Source: the name is from Hooker et al. 2020, "Characterising Bias in Compressed Models"; the formula is a
    reconstruction that has not been checked against the text.

    >>> cie_taxicab([[1, 1], [0, 1]], [[0, 1], [0, 1]], percentile=50).score.tolist()
    [1.0, 0.0]
    """
    function = "cie_taxicab"
    percent = read_number(function, "percentile", percentile, 0, 100)
    dense, sparse = _labels(function, "dense_pred", dense_pred), _labels(function, "sparse_pred", sparse_pred)
    _same_samples(function, dense, sparse)
    classes = int(max(dense.max(), sparse.max())) + 1
    shares = [_votes(function, "y_pred", y, classes) / len(y) for y in (dense, sparse)]
    score = np.abs(shares[1] - shares[0]).sum(axis=0)
    cut = float(np.percentile(score, percent))
    return Taxicab(score, score > cut, cut)


class RecallShift(NamedTuple):
    """The result of `class_recall_shift`; arrays [C].

    Attributes:
      shift: mean normalised recall of the sparse population minus that of the dense one; below 0 the class lost
        more than the average class did.
      p_value: of the two-sided Welch test; NaN where both populations are constant, or the class is absent.
      q_value: the p-values after Benjamini and Hochberg's correction over the classes tested.
    """

    shift: np.ndarray
    p_value: np.ndarray
    q_value: np.ndarray


def class_recall_shift(y_true: ArrayLike, dense_pred: ArrayLike, sparse_pred: ArrayLike) -> RecallShift:
    """Test for each class whether its recall moved more than the accuracy of the models did.

    x_c^r = recall of class c in model r - mean top-1 accuracy of the population;  Welch's t-test between the two

    Args:
      y_true: classes [n], whole numbers from 0.
      dense_pred: predicted classes [R, n], R at least 2.
      sparse_pred: predicted classes [R', n], R' at least 2.

    Returns:
      `RecallShift`. The publication flags p < 0.05 without a correction; q-values are added here.

    Raises:
      ValueError: fewer than two models in a population, lengths differ, or values that are not classes.

    Source: Hooker et al. 2019, "What Do Compressed Deep Neural Networks Forget?", section 2, and its code.

    >>> t = [0, 0, 1, 1]
    >>> result = class_recall_shift(t, [[0, 0, 1, 1], [0, 1, 1, 1]], [[1, 1, 1, 1], [0, 1, 1, 1]])
    >>> result.shift.tolist()
    [-0.25, 0.25]
    """
    function = "class_recall_shift"
    truth = class_labels(function, "y_true", y_true)
    if truth.ndim != 1 or not len(truth):
        fail(function, "y_true", f"shape {truth.shape}", "(n,) with n at least 1")
    recalls = []
    for operand, values in (("dense_pred", dense_pred), ("sparse_pred", sparse_pred)):
        y = _labels(function, operand, values)
        if y.ndim != 2 or len(y) < 2 or y.shape[1] != len(truth):
            fail(function, operand, f"shape {y.shape}", f"(R, {len(truth)}) with R at least 2")
        right = (y == truth).astype(float)
        classes = np.arange(truth.max() + 1)[:, None] == truth
        recalls.append(divide(right @ classes.T, classes.sum(axis=1)) - right.mean())
    dense, sparse = recalls
    p_value = _welch(sparse, dense)
    return RecallShift(sparse.mean(axis=0) - dense.mean(axis=0), p_value, benjamini_hochberg(p_value))


def _welch(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    from scipy import special  # a dependency of jax

    sizes = (len(first), len(second))
    errors = [x.var(axis=0, ddof=1) / size for x, size in zip((first, second), sizes, strict=True)]
    total = errors[0] + errors[1]
    freedom = divide(total**2, errors[0] ** 2 / (sizes[0] - 1) + errors[1] ** 2 / (sizes[1] - 1))
    statistic = divide(first.mean(axis=0) - second.mean(axis=0), np.sqrt(total))
    return 2 * special.stdtr(freedom, -np.abs(statistic))


def benjamini_hochberg(p_value: np.ndarray) -> np.ndarray:
    """Return q-values: the least false discovery rate at which each hypothesis is rejected; NaN stays NaN.

    >>> benjamini_hochberg(np.array([0.01, 0.04, np.nan, 0.03])).round(3).tolist()
    [0.03, 0.04, nan, 0.04]
    """
    q = np.full(p_value.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(p_value))
    order = tested[np.argsort(p_value[tested])]
    scaled = p_value[order] * len(order) / np.arange(1, len(order) + 1)
    q[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return q


def _labels(function: str, operand: str, values: ArrayLike) -> np.ndarray:
    array = class_labels(function, operand, values)
    if array.ndim not in (2, 3) or array.size == 0:
        fail(function, operand, f"shape {array.shape}", "(R, n) or (R, n, K), with nothing empty")
    return array


def _votes(function: str, operand: str, array: np.ndarray, classes: int | None = None) -> np.ndarray:
    """Return int64[C, n, ...], the number of models that predict each class."""
    return np.stack([(array == c).sum(axis=0) for c in range(classes or int(array.max()) + 1)])


def _same_samples(function: str, dense: np.ndarray, sparse: np.ndarray) -> None:
    if dense.shape[1:] != sparse.shape[1:]:
        fail(function, "sparse_pred", f"shape {sparse.shape}", f"(R, *{dense.shape[1:]}), as dense_pred")
