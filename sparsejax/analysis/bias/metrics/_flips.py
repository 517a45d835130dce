"""Flips: decisions that differ between a dense and a sparse model, and how well they were predicted."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sparsejax.analysis._arrays import ArrayLike, NumberLike
from sparsejax.analysis.bias.metrics._arrays import labels, predictions, same_columns, same_shape, scores
from sparsejax.analysis.bias.metrics._measured import divide
from sparsejax.analysis.bias.metrics._rates import auc
from sparsejax.analysis.bias.metrics._systematic import positive_rate


class Flips(NamedTuple):
    """Kinds of flips; each bool[n, K].

    Attributes:
      flip: the two decisions differ.
      right_to_wrong: the dense decision was right; None without labels.
      wrong_to_right: the sparse decision is right; None without labels.
      to_common: the sparse decision is the value that is commoner in training; None without training labels.
      from_common: the dense decision was; None without training labels.
    """

    flip: np.ndarray
    right_to_wrong: np.ndarray | None
    wrong_to_right: np.ndarray | None
    to_common: np.ndarray | None
    from_common: np.ndarray | None


def flips(
    dense_pred: ArrayLike,
    sparse_pred: ArrayLike,
    *,
    y_true: ArrayLike | None = None,
    y_train: ArrayLike | None = None,
    missing: NumberLike | None = None,
) -> Flips:
    """Find the decisions that change from a dense to a sparse model.

    flip = yhat_dense != yhat_sparse

    Args:
      dense_pred: hard predictions [n] or [n, K].
      sparse_pred: the same for the sparse model.
      y_true: labels, which tell harmful from helpful flips; cells without a label are in neither kind.
      y_train: labels of the training split, which define the commoner value; without a label there is none.
      missing: a value that marks a missing label.

    Returns:
      `Flips`.

    Raises:
      ValueError: shapes disagree, or values are not labels.

    >>> kinds = flips([1, 0, 1], [1, 1, 0], y_true=[1, 1, 1])
    >>> kinds.wrong_to_right[:, 0].tolist(), kinds.right_to_wrong[:, 0].tolist()
    ([False, True, False], [False, False, True])
    """
    dense, sparse = predictions("flips", "dense_pred", dense_pred), predictions("flips", "sparse_pred", sparse_pred)
    same_shape("flips", dense_pred=dense, sparse_pred=sparse)
    flip = dense != sparse
    harmed = helped = towards = away = None
    if y_true is not None:
        t = labels("flips", "y_true", y_true, missing=missing)
        same_shape("flips", dense_pred=dense, y_true=t)
        harmed, helped = flip & (t == dense), flip & (t == sparse)
    if y_train is not None:
        train = labels("flips", "y_train", y_train, missing=missing)
        same_columns("flips", dense_pred=dense, y_train=train)
        rate = positive_rate(train)
        common, known = rate > 0.5, ~np.isnan(rate)
        towards, away = flip & known & (sparse == common), flip & known & (dense == common)
    return Flips(flip, harmed, helped, towards, away)


class FlipCoverage(NamedTuple):
    """How flips and uncertain cells overlap; numbers in [0, 1].

    Attributes:
      flip_rate: share of cells that flip.
      uncertain_share: share of cells in the band.
      coverage: share of the flips that lie in the band; NaN without flips.
      flip_rate_inside: flip rate in the band.
      flip_rate_outside: flip rate outside it.
      auc: area under the ROC curve of the uncertainty score as a predictor of a flip.
    """

    flip_rate: float
    uncertain_share: float
    coverage: float
    flip_rate_inside: float
    flip_rate_outside: float
    auc: float


def flip_coverage(flip: ArrayLike, mask: ArrayLike, score: ArrayLike | None = None) -> FlipCoverage:
    """Measure how many flips a mask of susceptible cells predicted.

    coverage = sum(flip & mask) / sum(flip)

    Always compute the same for two dense models that differ in the seed alone ("churn"): flips below that level
    are not an effect of pruning.

    Args:
      flip: bool[n, K], see `flips`.
      mask: bool[n, K], see `susceptible_samples`.
      score: float[n, K], higher is more uncertain; the mask itself if absent.

    Returns:
      `FlipCoverage`.

    Raises:
      ValueError: shapes differ, or values are not boolean.

    >>> flip_coverage([1, 1, 0, 0], [1, 0, 1, 0]).coverage
    0.5
    """
    flipped, inside = predictions("flip_coverage", "flip", flip), predictions("flip_coverage", "mask", mask)
    same_shape("flip_coverage", flip=flipped, mask=inside)
    ranking = inside.astype(float) if score is None else scores("flip_coverage", "score", score)
    same_shape("flip_coverage", flip=flipped, score=ranking)
    both = (flipped & inside).sum()
    return FlipCoverage(
        float(flipped.mean()),
        float(inside.mean()),
        float(divide(both, flipped.sum())),
        float(divide(both, inside.sum())),
        float(divide(flipped.sum() - both, (~inside).sum())),
        float(auc(flipped.ravel(), ranking.ravel()).value[0]),
    )
