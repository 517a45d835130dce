"""Accuracies, and the error of a sparse model relative to that of the dense one."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sparsejax._checks import fail
from sparsejax.analysis._arrays import read_array, read_number, read_numbers, refuse_missing


def top1_accuracy(y_true: ArrayLike, y_pred: ArrayLike) -> float:
    """Return top-1 accuracy, the fraction of examples that are classified correctly, in [0, 1]; higher is better.

    Args:
      y_true: classes [n], numbers or text.
      y_pred: predicted classes [n], of the same kind.

    Raises:
      ValueError: different lengths, no example, a missing class, or numbers beside text.

    >>> top1_accuracy([0, 0, 0, 1], [0, 0, 0, 0])
    0.75
    """
    y_true, y_pred = _checked("top1_accuracy", y_true, y_pred)
    return float((y_true == y_pred).mean())


def per_class_accuracy(y_true: ArrayLike, y_pred: ArrayLike, num_classes: int) -> np.ndarray:
    """Return for each class the fraction of its examples that are classified correctly, NaN where it has none.

    Args:
      y_true: int[n], classes in [0, num_classes).
      y_pred: int[n].
      num_classes: K.

    Returns:
      float64[K].

    Raises:
      ValueError: different lengths, no example, a missing class, or one that is no whole number in [0, K).

    >>> per_class_accuracy([0, 0, 2], [0, 1, 2], 3).tolist()
    [0.5, nan, 1.0]
    """
    y_true, y_pred = _class_numbers("per_class_accuracy", y_true, y_pred)
    num_classes = operator.index(num_classes)
    if y_true.min() < 0 or y_true.max() >= num_classes:
        got = f"values {y_true.min()} to {y_true.max()}"
        fail("per_class_accuracy", "y_true", got, f"the range 0 to {num_classes - 1}")
    total = np.bincount(y_true, minlength=num_classes)
    right = np.bincount(y_true[y_true == y_pred], minlength=num_classes)
    return np.where(total > 0, right / np.maximum(total, 1), np.nan)


def mean_per_class_accuracy(y_true: ArrayLike, y_pred: ArrayLike, num_classes: int | None = None) -> float:
    """Return the mean over classes of the fraction classified correctly, in [0, 1]; higher is better.

    mean over c of (correct in c / examples in c), over the classes that have examples

    Equal to `top1_accuracy` where all classes have equally many examples.

    Args:
      y_true: int[n].
      y_pred: int[n].
      num_classes: K; the largest class plus one if None. Classes without examples do not count.

    Raises:
      ValueError: different lengths, no example, a missing class, or one that is no whole number in [0, K).

    Source: Iofinova et al. 2022, "How Well Do Sparse ImageNet Models Transfer?", evaluation of the authors' code,
      which divides by zero where a class has no example.

    >>> mean_per_class_accuracy([0, 0, 0, 1], [0, 0, 0, 0])
    0.5
    """
    y_true, y_pred = _class_numbers("mean_per_class_accuracy", y_true, y_pred)
    count = int(y_true.max()) + 1 if num_classes is None else num_classes
    return float(np.nanmean(per_class_accuracy(y_true, y_pred, count)))


METRICS: dict[str, Callable[[Any, Any], float]] = {"top1": top1_accuracy, "mean_per_class": mean_per_class_accuracy}


def relative_error_increase(
    accuracy: ArrayLike, dense: ArrayLike, *, min_error: float | None = None, below: str = "floor"
) -> float | np.ndarray:
    """Return the relative increase of the error from the dense to the sparse model; negative is better than dense.

    r = ((1 - accuracy) - (1 - dense)) / (1 - dense) = (dense - accuracy) / (1 - dense)

    From -1 (no error left) upwards; 0 is as good as dense. It is large where the dense error is small: at 0.5 %, half a
    point lost is +1. ``min_error`` and ``below`` say what to do there.

    Args:
      accuracy: float or array in [0, 1], of the sparse model.
      dense: float or array, of the dense model.
      min_error: least dense error for which r is taken as it is; None takes all, and refuses a dense error of 0.
      below: with ``min_error``: "floor" divides by ``min_error`` instead, "exclude" gives NaN.

    Returns:
      float or float64 array.

    Raises:
      ValueError: an accuracy outside [0, 1], a dense error of 0 without ``min_error``, or an unknown ``below``.

    Source: Iofinova et al. 2022; the formula is this project's reading.

    >>> round(relative_error_increase(0.85, 0.9), 6), round(relative_error_increase(0.92, 0.9), 6)
    (0.5, -0.2)
    """
    a, b = (read_numbers("relative_error_increase", *side) for side in (("accuracy", accuracy), ("dense", dense)))
    for operand, values in (("accuracy", a), ("dense", b)):
        refuse_missing("relative_error_increase", operand, np.isnan(values), "fractions in [0, 1]")
        if not ((values >= 0) & (values <= 1)).all():
            got = f"values from {values.min():g} to {values.max():g}"
            fail("relative_error_increase", operand, got, "fractions in [0, 1]", "Are these percent?")
    if below not in ("floor", "exclude"):
        fail("relative_error_increase", "below", f"value {below!r}", "'floor' or 'exclude'")
    error = 1.0 - b
    least = 0.0 if min_error is None else read_number("relative_error_increase", "min_error", min_error, 0, 1)
    if (error <= 0).any() and least <= 0:
        fail("relative_error_increase", "dense", "an error of 0", "errors above 0, or min_error")
    ratio = (b - a) / np.maximum(error, least)
    if below == "exclude":
        ratio = np.where(error < least, np.nan, ratio)
    return float(ratio) if ratio.ndim == 0 else ratio


def _checked(function: str, y_true: ArrayLike, y_pred: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    sides = {}
    for name, values in (("y_true", y_true), ("y_pred", y_pred)):
        sides[name], missing = read_array(function, name, values)
        refuse_missing(function, name, missing, "a class for every example")
    true, predicted = sides.values()
    if true.ndim != 1 or true.shape != predicted.shape:
        fail(function, "y_pred", f"shape {predicted.shape}", f"one class for each of y_true, of shape {true.shape}")
    if not len(true):
        fail(function, "y_true", "no element", "at least one example")
    kinds = ["numbers" if side.dtype.kind in "biuf" else "text" for side in sides.values()]
    if kinds[0] != kinds[1]:
        fail(function, "y_pred", kinds[1], f"{kinds[0]}, as y_true")
    return true, predicted


def _class_numbers(function: str, y_true: ArrayLike, y_pred: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return int64 classes; whole numbers of another type are converted."""
    sides = _checked(function, y_true, y_pred)
    for name, side in zip(("y_true", "y_pred"), sides, strict=True):
        if side.dtype.kind not in "biuf":
            fail(function, name, f"value {side[0]!r}", "class numbers from 0")
        if (side != np.trunc(side)).any():
            fail(function, name, f"value {side[side != np.trunc(side)][0]:g}", "class numbers from 0")
    return sides[0].astype(np.int64), sides[1].astype(np.int64)
