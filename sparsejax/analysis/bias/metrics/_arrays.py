"""The arguments of the functions of this package: labels, scores and predictions, checked and brought into one form."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from sparsejax._checks import fail
from sparsejax.analysis._arrays import ArrayLike, NumberLike, is_missing, read_number, read_numbers, refuse_missing


def labels(function: str, operand: str, values: ArrayLike, *, missing: NumberLike | None = None) -> np.ndarray:
    """Return labels as float64[n, K] of 0, 1 and NaN (missing).

    Args:
      function: public function named in errors.
      operand: argument named in errors.
      values: bool, {0, 1} or {-1, 1}; [n] or [n, K]. NaN, None and pandas.NA are missing labels.
      missing: a value that stands for a missing label as well; -1 for {-1, 0, 1} data.

    Raises:
      ValueError: another rank, or other values.

    >>> labels("f", "y_true", [-1, 1, 1])[:, 0].tolist()
    [0.0, 1.0, 1.0]
    """
    array = _columns(function, operand, values)
    if missing is not None and not is_missing(missing):
        array[array == read_number(function, "missing", missing)] = np.nan
    known = array[~np.isnan(array)]
    if not ((known == 0) | (known == 1)).all():
        if not (np.abs(known) == 1).all():
            odd = known[(known != 0) & (known != 1)][0]
            hint = "Pass missing=-1 if -1 marks a missing label." if odd == -1 else ""
            fail(function, operand, f"value {odd:g}", "labels in {0, 1} or {-1, 1}", hint)
        array = np.where(np.isnan(array), np.nan, array > 0)
    return array


def predictions(function: str, operand: str, values: ArrayLike) -> np.ndarray:
    """Return hard predictions as bool[n, K]; they must be {0, 1}, {-1, 1} or bool and none may be missing.

    >>> predictions("f", "y_pred", [0, 1])[:, 0].tolist()
    [False, True]
    """
    array = labels(function, operand, values)
    refuse_missing(function, operand, np.isnan(array), "hard predictions in {0, 1}")
    return array == 1


def scores(function: str, operand: str, values: ArrayLike) -> np.ndarray:
    """Return real-valued outputs as float64[n, K].

    Raises:
      ValueError: another rank, a missing value or NaN, or not numeric.

    >>> scores("f", "logits", [1, 2]).shape
    (2, 1)
    """
    array = _columns(function, operand, values)
    if np.isnan(array).any():
        row, column = np.argwhere(np.isnan(array))[0]
        fail(function, operand, f"NaN at row {row}, column {column}", "no NaN in the outputs of a model")
    return array


def probabilities(function: str, operand: str, values: ArrayLike) -> np.ndarray:
    """Return probabilities as float64[n, K].

    >>> probabilities("f", "y_prob", [0.0, 1.5])
    Traceback (most recent call last):
    ...
    ValueError: f: y_prob has value 1.5; expected probabilities in [0, 1]. Are these logits?
    """
    array = scores(function, operand, values)
    outside = array[(array < 0) | (array > 1)]
    if outside.size:
        fail(function, operand, f"value {outside[0]:g}", "probabilities in [0, 1]", "Are these logits?")
    return array


def class_labels(function: str, operand: str, values: ArrayLike) -> np.ndarray:
    """Return predicted or true classes of any rank as int64: whole numbers from 0, none missing.

    >>> class_labels("f", "y_true", [0.0, 2.0]).tolist()
    [0, 2]
    """
    array = read_numbers(function, operand, values)
    refuse_missing(function, operand, np.isnan(array), "whole numbers from 0")
    wrong = (array != np.floor(array)) | (array < 0) | (array >= 2**31)
    if wrong.any():
        fail(function, operand, f"value {array[wrong][0]:g}", "whole numbers from 0")
    return array.astype(np.int64)


def same_shape(function: str, **operands: np.ndarray) -> None:
    """Refuse arrays whose shapes differ, naming both.

    >>> same_shape("f", y_true=np.zeros((3, 1)), y_pred=np.zeros((2, 1)))
    Traceback (most recent call last):
    ...
    ValueError: f: y_pred has shape (2, 1); expected (3, 1), as y_true.
    """
    _same(function, operands, lambda array: array.shape, "shape {}")


def same_length(function: str, **operands: np.ndarray) -> None:
    """Refuse arrays whose numbers of samples differ, naming both."""
    _same(function, operands, len, "{} samples")


def same_columns(function: str, **operands: np.ndarray) -> None:
    """Refuse arrays whose numbers of attributes differ, naming both."""
    _same(function, operands, lambda array: array.shape[1], "{} columns")


def _same(function: str, operands: dict[str, np.ndarray], size: Callable[[Any], Any], text: str) -> None:
    (first, reference), *others = operands.items()
    for name, array in others:
        if size(array) != size(reference):
            fail(function, name, text.format(size(array)), f"{size(reference)}, as {first}")


def one_of(function: str, operand: str, value: Any, allowed: Iterable[Any]) -> None:
    """Refuse a value that is not in a list."""
    allowed = tuple(allowed)
    if value not in allowed:
        fail(function, operand, f"value {value!r}", f"one of {allowed}")


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Return 1 / (1 + exp(-z)) without overflow.

    >>> sigmoid(np.array([-1000.0, 0.0, 1000.0])).tolist()
    [0.0, 0.5, 1.0]
    """
    small = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1.0, small) / (1.0 + small)


def _columns(function: str, operand: str, values: ArrayLike) -> np.ndarray:
    array = read_numbers(function, operand, values)
    if array.ndim not in (1, 2) or array.shape[0] == 0 or (array.ndim == 2 and array.shape[1] == 0):
        fail(function, operand, f"shape {array.shape}", "(n,) or (n, K), with nothing empty")
    return array[:, None] if array.ndim == 1 else array
