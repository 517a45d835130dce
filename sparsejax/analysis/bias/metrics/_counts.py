"""Confusion counts: nearly every number of an audit is a ratio of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sparsejax.analysis.bias.metrics._measured import divide

# float32 holds every integer up to here, and multiplies twice as fast as float64.
_EXACT_IN_FLOAT32 = 2**24


class Counts(NamedTuple):
    """Numbers of samples, each float64[..., K]: the four outcomes, and the uncertain ones.

    Samples without a label are in none of them.
    """

    true_positive: np.ndarray
    false_positive: np.ndarray
    false_negative: np.ndarray
    true_negative: np.ndarray
    uncertain: np.ndarray

    @property
    def positives(self) -> np.ndarray:
        """True positives by label: t = 1."""
        return self.true_positive + self.false_negative

    @property
    def negatives(self) -> np.ndarray:
        """True negatives by label: t = 0."""
        return self.false_positive + self.true_negative

    @property
    def predicted(self) -> np.ndarray:
        """Predicted positives."""
        return self.true_positive + self.false_positive

    @property
    def total(self) -> np.ndarray:
        """Samples with a label."""
        return self.positives + self.negatives

    def rates(self) -> dict[str, np.ndarray]:
        """Return every rate; NaN where its denominator is 0."""
        return {
            "accuracy": divide(self.true_positive + self.true_negative, self.total),
            "predicted_positive_rate": divide(self.predicted, self.total),
            "false_positive_rate": divide(self.false_positive, self.negatives),
            "false_negative_rate": divide(self.false_negative, self.positives),
            "uncertainty": divide(self.uncertain, self.total),
        }

    def at(self, index: int | slice | list[int] | np.ndarray) -> Counts:
        """Index the leading axes of all five."""
        return Counts(*(field[index] for field in self))

    def minus(self, other: Counts) -> Counts:
        """Return the counts of the samples that are here but not in a subset of them."""
        return Counts(*(every - part for every, part in zip(self, other, strict=True)))


def indicators(y_true: np.ndarray, y_pred: np.ndarray, uncertain: np.ndarray | None = None) -> np.ndarray:
    """Return float[n, 5 * K], one column per count: labels with NaN for missing, bool predictions."""
    one, zero = y_true == 1, y_true == 0
    unsure = np.zeros_like(one) if uncertain is None else uncertain & (one | zero)
    columns = (one & y_pred, zero & y_pred, one & ~y_pred, zero & ~y_pred, unsure)
    return np.concatenate(columns, axis=1).astype(np.float32 if len(y_true) < _EXACT_IN_FLOAT32 else np.float64)


def count(flags: np.ndarray, weights: np.ndarray) -> Counts:
    """Sum `indicators` over sets of samples.

    Args:
      flags: float[n, 5 * K] from `indicators`.
      weights: bool or whole numbers [..., n]: how often each sample counts in each set.

    Returns:
      Counts of shape [..., K].
    """
    sums = (weights.astype(flags.dtype) @ flags).astype(np.float64)
    return Counts(*np.split(sums, 5, axis=-1))
