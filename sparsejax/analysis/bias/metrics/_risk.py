"""A ranking, from the dense model alone, of which associations pruning may amplify."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sparsejax.analysis._arrays import ArrayLike, ColumnsLike, NumberLike
from sparsejax.analysis.bias.metrics._amplification import Association, association
from sparsejax.analysis.bias.metrics._arrays import labels, same_columns, same_length, same_shape
from sparsejax.analysis.bias.metrics._groups import read_groups, side_masks, sides
from sparsejax.analysis.bias.metrics._measured import divide, measured
from sparsejax.analysis.bias.metrics._systematic import positive_rate
from sparsejax.analysis.bias.metrics._uncertainty import Kind, uncertain_cells


class BiasRisk(NamedTuple):
    """The result of `bias_risk`.

    Attributes:
      risk: float64[K, P]; higher ranks first. NaN where undefined.
      reason: why it is NaN.
      relative_gap: float64[K, P], |f1 - f0| / min(f1, f0) on the training split.
      uncertainty: float64[K], uncertain share of the validation samples.
      uncertainty_rare: float64[K], the same over samples that have the value rarer in training.
      rare_rate: float64[K], training rate of the rarer value.
      groups: names of the P pairs.
    """

    risk: np.ndarray
    reason: np.ndarray
    relative_gap: np.ndarray
    uncertainty: np.ndarray
    uncertainty_rare: np.ndarray
    rare_rate: np.ndarray
    groups: tuple[str, ...]


def bias_risk(
    y_score_val: ArrayLike,
    y_val: ArrayLike,
    y_train: ArrayLike,
    sensitive_train: ColumnsLike,
    *,
    band: NumberLike = 0.4,
    kind: Kind = "probs",
    missing: NumberLike | None = None,
) -> BiasRisk:
    """Rank cells (attribute, group) by how exposed their association is to pruning.

    risk(a, A) = |f1 - f0| / min(f1, f0) * mean( [uncertain] over validation samples with the rarer value )

    **Exploratory.** The formula was chosen after looking at ten candidates on one small data set; it then kept its
    sign on two fresh splits of the same data. It is not the criterion of the paper, whose exact form is not
    known here, and no cut-off is supported: read it as a ranking, not as a verdict.

    Args:
      y_score_val: outputs of the dense model on the validation split, [n] or [n, K].
      y_val: labels of the same shape.
      y_train: labels of the training split [m] or [m, K].
      sensitive_train: groups of the training split.
      band: half width of the uncertain band.
      kind: "probs" or "logits", the kind of ``y_score_val``.
      missing: a value that marks a missing label.

    Returns:
      `BiasRisk`. NaN where both training frequencies or one group are absent, or the rarer value does not occur in
      the validation split ("absent_value"). One frequency of 0 gives inf, unless no such sample is uncertain.

    Raises:
      ValueError: shapes disagree, or values out of range.

    >>> group = [1, 1, 1, 0, 0, 0]
    >>> ranking = bias_risk([0.5, 0.9, 0.1, 0.2], [1, 1, 0, 0], [1, 1, 0, 1, 0, 0], group)
    >>> ranking.risk.tolist(), ranking.uncertainty_rare.tolist()
    ([[0.5]], [0.5])
    """
    function = "bias_risk"
    unsure = uncertain_cells(function, y_score_val, band, kind)
    t, train = labels(function, "y_val", y_val, missing=missing), labels(function, "y_train", y_train, missing=missing)
    groups = read_groups(function, "sensitive_train", sensitive_train)
    same_shape(function, y_val=t, y_score_val=unsure)
    same_columns(function, y_val=t, y_train=train)
    same_length(function, y_train=train, sensitive_train=groups[0].codes)
    known = association(train, *side_masks(groups))
    return risk_of(t, unsure, train, known, tuple(side.name for side in sides(groups)))


def risk_of(
    t: np.ndarray, unsure: np.ndarray, train: np.ndarray, known: Association, groups: tuple[str, ...]
) -> BiasRisk:
    """Apply the formula to arrays that have been checked; ``unsure`` may be the uncertain share over seeds."""
    labelled = ~np.isnan(t)
    rate = positive_rate(train)
    common = rate > 0.5
    rare = labelled & ((t == 1) != common)
    rare_uncertain = divide(np.where(rare, unsure, 0).sum(axis=0), rare.sum(axis=0))
    rare_uncertain = np.where(np.isnan(rate), np.nan, rare_uncertain)
    with np.errstate(invalid="ignore"):
        product = known.relative_gap * rare_uncertain[:, None]
    cells = measured(
        product,
        (known.empty, "empty_group"),
        (np.isnan(known.relative_gap), "weak_association"),
        (np.isnan(rare_uncertain)[:, None], "absent_value"),
        (np.isnan(product), "zero_reference_association"),
    )
    return BiasRisk(
        *cells,
        known.relative_gap,
        divide(np.where(labelled, unsure, 0).sum(axis=0), labelled.sum(axis=0)),
        rare_uncertain,
        np.where(common, 1 - rate, rate),
        groups,
    )
