"""A number together with the reason for which it is undefined."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# Every reason for a NaN in this package, and its meaning.
REASONS = {
    "self": "the attribute is the group itself",
    "weak_association": "the training labels have no clear favoured side",
    "too_few_positives": "too few true positives on one side",
    "too_few_negatives": "too few true negatives on one side",
    "no_predicted_positives": "the model never predicts the attribute",
    "empty_group": "no sample of this group",
    "one_class": "only one class is present",
    "absent_value": "the rarer value does not occur",
    "constant": "the column is constant",
    "too_few_samples": "too few samples for the number of attributes",
    "no_labels": "no sample has a label",
    "too_few_levels": "fewer than two levels have a value",
    "zero_reference": "the value of the dense model is 0",
    "zero_reference_association": "the smaller training frequency is 0",
    "both_infinite": "both values are infinite",
    "no_flips": "the two models agree everywhere",
    "no_direction": "flips between two dense models have no direction",
    "no_common_cells": "no cell is defined in every run",
}


class Measured(NamedTuple):
    """Values, and why those that are NaN are NaN.

    Attributes:
      value: float64 array.
      reason: array of str of the same shape: "" where the value is defined, else a key of `REASONS`.
    """

    value: np.ndarray
    reason: np.ndarray


def measured(value: np.ndarray, *reasons: tuple[np.ndarray, str]) -> Measured:
    """Set entries to NaN under conditions; the first condition that holds names the reason.

    >>> measured(np.array([1.0, 2.0]), (np.array([True, False]), "constant"))
    Measured(value=array([nan,  2.]), reason=array(['constant', ''], dtype='<U26'))
    """
    value = np.array(value, np.float64)
    reason = np.full(value.shape, "", dtype="<U26")
    for condition, name in reversed(reasons):
        reason[np.broadcast_to(condition, value.shape)] = name
    value[reason != ""] = np.nan
    return Measured(value, reason)


def divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Divide without warnings: x / 0 is NaN, whatever x is."""
    numerator, denominator = np.broadcast_arrays(np.asarray(numerator, float), np.asarray(denominator, float))
    out = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=out, where=denominator != 0)
    return out


def nanmean(values: np.ndarray, axis: int | tuple[int, ...] | None = None) -> np.ndarray:
    """Return the mean of the defined values; NaN, without a warning, where there is none."""
    values = np.asarray(values, float)
    defined = ~np.isnan(values)
    return divide(np.where(defined, values, 0.0).sum(axis=axis), defined.sum(axis=axis))
