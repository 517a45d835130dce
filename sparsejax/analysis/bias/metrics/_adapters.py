"""Small adapters: multi-class outputs to one-vs-rest columns, and group names for other libraries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sparsejax._checks import fail
from sparsejax.analysis._arrays import ArrayLike
from sparsejax.analysis.bias.metrics._amplification import BiasAmplification
from sparsejax.analysis.bias.metrics._arrays import class_labels, scores
from sparsejax.analysis.bias.metrics._measured import REASONS


class OneVsRest(NamedTuple):
    """The result of `one_vs_rest`.

    Attributes:
      logits: float64[n, C]: of class c against the best other class; above 0 exactly where c is predicted.
      labels: int8[n, C].
    """

    logits: np.ndarray
    labels: np.ndarray


def one_vs_rest(logits: ArrayLike, y_true: ArrayLike) -> OneVsRest:
    """Turn multi-class outputs into columns that `compare` accepts.

    z'_c = z_c - max_{c' != c} z_c'

    So "z' > 0" is "argmax = c", where a threshold of 0.5 on softmax probabilities would leave samples without any
    class. A tie predicts no class.

    Args:
      logits: float[n, C], C at least 2.
      y_true: classes [n], whole numbers in [0, C).

    Returns:
      `OneVsRest`.

    Raises:
      ValueError: NaN, fewer than two classes, lengths differ, or a label out of range.

    >>> one_vs_rest([[2.0, 1.0, 0.0]], [1]).logits.tolist()
    [[1.0, -1.0, -2.0]]
    """
    z, t = scores("one_vs_rest", "logits", logits), class_labels("one_vs_rest", "y_true", y_true)
    if z.shape[1] < 2:
        fail("one_vs_rest", "logits", f"shape {z.shape}", "(n, C) with C at least 2")
    if t.shape != (len(z),) or t.max() >= z.shape[1]:
        got = f"shape {t.shape}" if t.shape != (len(z),) else f"value {t.max()}"
        fail("one_vs_rest", "y_true", got, f"{len(z)} classes in [0, {z.shape[1]})")
    second, first = np.partition(z, -2, axis=1)[:, -2:].T
    best_other = np.where(np.arange(z.shape[1]) == z.argmax(axis=1)[:, None], second[:, None], first[:, None])
    return OneVsRest(z - best_other, (np.arange(z.shape[1]) == t[:, None]).astype(np.int8))


def to_aif360_groups(
    result: BiasAmplification, attribute: int, group_names: Sequence[str] | None = None
) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """Name the favoured and the other side of each two-level group as aif360 does.

    Only names are mapped. The favoured side changes from attribute to attribute, which "privileged" hides.

    Args:
      result: of `bias_amplification`.
      attribute: column of the attribute.
      group_names: names to use instead of those in ``result``.

    Raises:
      ValueError: another number of names, or the training labels favour neither side of a group.

    Returns:
      (privileged_groups, unprivileged_groups), lists of dicts name -> 0.0 or 1.0.

    >>> ba = BiasAmplification(np.zeros((1, 1)), np.full((1, 1), ""), np.array([[True]]), ("male",))
    >>> to_aif360_groups(ba, 0)
    ([{'male': 1.0}], [{'male': 0.0}])
    """
    names = result.groups if group_names is None else tuple(group_names)
    if len(names) != len(result.groups):
        fail("to_aif360_groups", "group_names", f"{len(names)} names", f"{len(result.groups)}")
    for name, reason in zip(names, result.reason[attribute], strict=True):
        if reason in ("self", "empty_group", "weak_association"):
            fail("to_aif360_groups", f"group {name!r}", f"no favoured side ({REASONS[reason]})", "an association")
    favoured = [float(value) for value in result.favours_one[attribute]]
    return (
        [{name: value} for name, value in zip(names, favoured, strict=True)],
        [{name: 1.0 - value} for name, value in zip(names, favoured, strict=True)],
    )
