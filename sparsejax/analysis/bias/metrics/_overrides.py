"""A countermeasure: replace the sparse decision where the dense model was uncertain."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from sparsejax._checks import fail
from sparsejax.analysis._arrays import ArrayLike
from sparsejax.analysis.bias.metrics._arrays import labels, one_of, predictions, same_shape

Source = Literal["dense", "label", "abstain"]
ABSTAINED = -1


class Overridden(NamedTuple):
    """The result of `override_predictions`.

    Attributes:
      y_pred: int8[n, K]; -1 where the model abstains.
      share: fraction of the cells that were overridden.
    """

    y_pred: np.ndarray
    share: float


def override_predictions(
    sparse_pred: ArrayLike,
    mask: ArrayLike,
    *,
    source: Source,
    dense_pred: ArrayLike | None = None,
    y_true: ArrayLike | None = None,
) -> Overridden:
    """Replace decisions on exposed cells.

    Args:
      sparse_pred: hard predictions of the sparse model [n] or [n, K].
      mask: bool of the same shape, see `susceptible_samples`. It needs the *dense* output of every sample: free
        for a fixed catalogue, but online it means running the dense model, or a proxy that must be evaluated
        by itself.
      source: "dense" takes the dense decision (a cascade), "label" the label (a human; an upper bound), "abstain"
        none (-1).
      dense_pred: hard predictions of the dense model, for source="dense".
      y_true: labels without missing entries under the mask, for source="label".

    Returns:
      `Overridden`.

    Raises:
      ValueError: the operand that ``source`` needs is absent, shapes differ, or a label is missing.

    >>> override_predictions([1, 0, 1], [1, 0, 1], source="dense", dense_pred=[0, 1, 1]).y_pred[:, 0].tolist()
    [0, 0, 1]
    """
    function = "override_predictions"
    one_of(function, "source", source, ("dense", "label", "abstain"))
    sparse, where = predictions(function, "sparse_pred", sparse_pred), predictions(function, "mask", mask)
    same_shape(function, sparse_pred=sparse, mask=where)
    if source == "abstain":
        other = np.full(sparse.shape, ABSTAINED, np.int8)
    elif source == "dense":
        if dense_pred is None:
            fail(function, "dense_pred", "no value", "the dense decisions for source 'dense'")
        other = predictions(function, "dense_pred", dense_pred)
    else:
        if y_true is None:
            fail(function, "y_true", "no value", "the labels for source 'label'")
        other = labels(function, "y_true", y_true)
        if np.isnan(other[where]).any() if other.shape == where.shape else False:
            fail(function, "y_true", "missing labels under the mask", "a label for every overridden cell")
    same_shape(function, sparse_pred=sparse, replacement=other)
    return Overridden(np.where(where, np.nan_to_num(other), sparse).astype(np.int8), float(where.mean()))
