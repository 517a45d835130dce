"""What every estimator here accepts, checked in one place."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from sparsejax._checks import fail

# One value per row, or no values.
Labels: TypeAlias = ArrayLike | None


class Sources(NamedTuple):
    """A training set that came from several sources.

    Attributes:
      X: features, float64[n, d].
      y: labels, int[n], 0 or 1 (the position in ``classes``).
      a: protected attribute, int[n], 0 or 1 (the position in ``groups``).
      source: position of each row's source in ``names``, int[n].
      names: the distinct source labels, sorted.
      classes: the two labels as given, sorted.
      groups: the two values of the protected attribute as given, sorted.
    """

    X: np.ndarray
    y: np.ndarray
    a: np.ndarray
    source: np.ndarray
    names: np.ndarray
    classes: np.ndarray
    groups: np.ndarray


def check_features(function: str, X: ArrayLike) -> np.ndarray:
    """Return the features as float64[n, d].

    Raises:
      ValueError: not two-dimensional, empty, or with a value that is missing or infinite.
    """
    try:
        array = np.asarray(X, dtype=np.float64)
    except (TypeError, ValueError) as error:
        fail(function, "X", f"values that are no numbers ({error})", "numbers", "Encode categories first.")
    if array.ndim != 2 or 0 in array.shape:
        fail(function, "X", f"shape {array.shape}", "(rows, features), both at least 1")
    if not np.isfinite(array).all():
        row, column = np.argwhere(~np.isfinite(array))[0]
        shown = str(array[row, column]).replace("nan", "NaN")
        fail(function, "X", f"value {shown} in row {row}, column {column}", "finite numbers")
    return array


def encode_binary(function: str, operand: str, values: Any, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return positions 0 or 1 of the values among the two distinct ones, and these, sorted.

    Raises:
      ValueError: missing altogether, of another length, or not exactly two distinct values.
    """
    distinct, positions = encode_labels(function, operand, values, rows)
    if len(distinct) != 2:
        shown = f"{len(distinct)} distinct value{'s' * (len(distinct) != 1)} {distinct[:4].tolist()}"
        fail(function, operand, shown, "exactly two distinct values")
    return positions, distinct


def encode_classes(function: str, y: ArrayLike, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return positions 0 or 1 of the labels, and the two labels, sorted; in scikit-learn's words where they are wrong.

    Raises:
      ValueError: see `encode_binary`.
    """
    from sklearn.utils.multiclass import check_classification_targets, type_of_target
    from sklearn.utils.validation import assert_all_finite, column_or_1d

    vector = column_or_1d(y, warn=True)
    assert_all_finite(vector, input_name="y")
    distinct, positions = encode_labels(function, "y", vector, rows)
    check_classification_targets(vector)
    if len(distinct) != 2:
        shown = f"{len(distinct)} distinct value{'s' * (len(distinct) != 1)} {distinct[:4].tolist()}"
        hint = "Training needs more than one class."
        if len(distinct) > 2:
            hint = f"Only binary classification is supported. The type of the target is {type_of_target(vector)}."
        fail(function, "y", shown, "exactly two distinct values", hint)
    return positions, distinct


def encode_sources(function: str, X: ArrayLike, y: ArrayLike, sensitive_features: Labels, source: Labels) -> Sources:
    """Check and encode a training set from several sources.

    Raises:
      ValueError: see `check_features` and `encode_binary`; or fewer than two sources.
    """
    matrix = check_features(function, X)
    rows = len(matrix)
    labels, classes = encode_binary(function, "y", y, rows)
    a, groups = encode_binary(function, "sensitive_features", sensitive_features, rows)
    names, positions = encode_labels(function, "source", source, rows)
    if len(names) < 2:
        fail(
            function,
            "source",
            f"one source, {names.tolist()[0]!r}",
            "at least two",
            "There is nothing to compare it with.",
        )
    return Sources(matrix, labels, a, positions, names, classes, groups)


def take_rows(array: Any, mask: np.ndarray) -> Any:
    """Rows of an array, a data frame or a list."""
    return array[mask] if hasattr(array, "shape") else np.asarray(array)[mask]


def encode_labels(function: str, operand: str, values: Any, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct values, sorted, and the position of each row's value among them.

    A column of shape (rows, 1), such as a data frame with one column, is taken as a vector.

    Raises:
      ValueError: missing altogether or in a row, or of another length.
    """
    if values is None:
        fail(function, operand, "value None", f"one value per row, {rows} in all")
    array = np.asarray(values)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.shape != (rows,):
        fail(function, operand, f"shape {array.shape}", f"({rows},), one value per row of X")
    missing = np.array([value is None or value != value for value in array.tolist()], dtype=bool)
    if missing.any():
        fail(function, operand, f"a missing value in row {missing.argmax()}", "a value in every row")
    distinct, positions = np.unique(array, return_inverse=True)
    return distinct, positions.reshape(array.shape)
