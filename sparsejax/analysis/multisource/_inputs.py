"""Features, labels, groups and sources of every estimator here, read and checked in one place."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from sparsejax._checks import fail
from sparsejax.analysis._arrays import read_array
from sparsejax.analysis.multisource._sklearn import BaseEstimator, record_columns, validate_matrix

# One value per row, or no values.
Labels: TypeAlias = ArrayLike | None

_NAN_AS_TEXT = ("nan", "<NA>", "NaT")  # what NumPy makes of a missing value in an array of text
_MAX_CATEGORIES = 255


class Sources(NamedTuple):
    """A training set that was pooled from several sources.

    Attributes:
      X: features, float64[n, d].
      y: labels, int[n], 0 or 1 (the position in ``classes``).
      a: protected attribute, int[n], 0 or 1 (the position in ``groups``).
      source: position of each row's source in ``names``, int[n].
      names: the distinct source labels, sorted.
      classes: the two labels, sorted.
      groups: the two values of the protected attribute, sorted.
    """

    X: np.ndarray
    y: np.ndarray
    a: np.ndarray
    source: np.ndarray
    names: np.ndarray
    classes: np.ndarray
    groups: np.ndarray


def read_features(
    function: str, estimator: BaseEstimator, X: ArrayLike, *, reset: bool, one_hot: bool = False
) -> np.ndarray:
    """Return features as float64[n, d]; record or compare their number and names on the estimator.

    Args:
      function: for messages.
      estimator: its ``n_features_in_`` and ``feature_names_in_`` are set, or compared.
      X: array-like or data frame.
      reset: whether to set them.
      one_hot: encode the text columns of a data frame, one column for each value but the first, instead of refusing.

    Raises:
      ValueError: not two-dimensional, empty, text, or a value that is missing or infinite.
    """
    if not hasattr(X, "select_dtypes"):
        return check_features(function, validate_matrix(estimator, X, reset=reset))
    frame: Any = X
    record_columns(estimator, frame, reset=reset)
    parts = []
    for position, name in enumerate(frame.columns):
        values, _ = read_array(function, f"X[{name!r}]", frame.iloc[:, position])
        if values.dtype.kind in "biuf":
            parts.append(values[:, None].astype(np.float64))
        elif one_hot:
            distinct, place = encode_labels(function, f"X[{name!r}]", frame.iloc[:, position], len(frame))
            if len(distinct) > _MAX_CATEGORIES:
                rule = f"at most {_MAX_CATEGORIES} in a text column"
                fail(function, f"X[{name!r}]", f"{len(distinct)} distinct values", rule, "Encode or drop it.")
            parts.append((place[:, None] == np.arange(1, len(distinct))).astype(np.float64))
        else:
            fail(function, "X", f"text in column {name!r}", "numbers", "Encode categories first.")
    return check_features(function, np.concatenate(parts, axis=1) if parts else np.empty(frame.shape))


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


def read_labels(function: str, operand: str, values: Labels, rows: int | None = None) -> np.ndarray:
    """Return one value per row, [n]: booleans, numbers, or objects of one type.

    A column of shape (rows, 1), such as a data frame with one column, is taken as a vector.

    Args:
      function, operand: for messages.
      values: list, NumPy or JAX array, pandas series of any dtype; its index is not used.
      rows: how many; None accepts any number but 0.

    Raises:
      ValueError: None, another shape, a missing value (the row is named), or values of several types.
    """
    if values is None:
        fail(function, operand, "value None", f"one value per row{f', {rows} in total' if rows else ''}")
    array, missing = read_array(function, operand, values)
    if array.ndim == 2 and array.shape[1] == 1:
        array, missing = array[:, 0], missing[:, 0]
    if array.ndim != 1 or len(array) != (rows or len(array)) or not len(array):
        wanted = "(rows,)" if rows is None else f"({rows},)"
        fail(function, operand, f"shape {array.shape}", f"{wanted}, one value per row{' of X' * (rows is not None)}")
    if array.dtype.kind == "U":
        missing = missing | np.isin(array, _NAN_AS_TEXT)
    if missing.any():
        fail(function, operand, f"a missing value in row {missing.argmax()}", "a value in every row")
    if array.dtype.kind == "O":
        kinds = sorted({"str" if isinstance(value, str) else type(value).__name__ for value in array})
        if len(kinds) > 1:
            fail(function, operand, f"values of the types {' and '.join(kinds)}", "values of one type")
    return array


def refuse_single_rows(function: str, operand: str, labels: np.ndarray) -> None:
    """Refuse a source with a single row, to which no distance can be measured.

    Raises:
      ValueError: a label that occurs once.
    """
    distinct, counts = np.unique(labels, return_counts=True)
    alone = distinct[counts < 2].tolist()
    if alone:
        got = f"{len(alone)} source{'s' * (len(alone) > 1)} with one row, such as {alone[0]!r}"
        hint = "Distances to a source need more rows: drop it, or merge it with another."
        fail(function, operand, got, "at least two rows in each source", hint)


def read_zeros_and_ones(function: str, operand: str, values: Labels, rows: int | None = None) -> np.ndarray:
    """Return int[n] of values that are 0 or 1, numbers or booleans.

    Raises:
      ValueError: see `read_labels`; or another value.
    """
    array = read_labels(function, operand, values, rows)
    if array.dtype.kind not in "biuf" or not np.isin(array, (0, 1)).all():
        fail(function, operand, f"values {np.unique(array)[:4].tolist()}", f"{len(array)} zeros and ones")
    return array.astype(int)


def encode_labels(
    function: str, operand: str, values: Labels, rows: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct values, sorted, and the position of each row's value among them.

    Raises:
      ValueError: see `read_labels`.
    """
    distinct, positions = np.unique(read_labels(function, operand, values, rows), return_inverse=True)
    return distinct, positions.reshape(-1)


def encode_binary(
    function: str, operand: str, values: Labels, rows: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return positions 0 or 1 of the values among the two distinct ones, and these, sorted.

    Raises:
      ValueError: see `read_labels`; or not exactly two distinct values.
    """
    distinct, positions = encode_labels(function, operand, values, rows)
    if len(distinct) != 2:
        fail(function, operand, _count(distinct), "exactly two distinct values")
    return positions, distinct


def encode_classes(function: str, y: ArrayLike, rows: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return positions 0 or 1 of the labels, and the two labels, sorted; in scikit-learn's words where they are wrong.

    Raises:
      ValueError: see `encode_binary`.
    """
    from sklearn.utils.multiclass import check_classification_targets, type_of_target
    from sklearn.utils.validation import assert_all_finite, column_or_1d

    if y is None:
        fail(function, "y", "value None", "one label per row", "requires y to be passed, but the target y is None.")
    array, missing = read_array(function, "y", y)
    vector = column_or_1d(array, warn=True)
    if not missing.any():
        assert_all_finite(vector, input_name="y")
    distinct, positions = encode_labels(function, "y", np.ma.masked_array(vector, missing.reshape(vector.shape)), rows)
    check_classification_targets(vector)
    if len(distinct) != 2:
        hint = "Training needs more than one class."
        if len(distinct) > 2:
            hint = f"Only binary classification is supported. The type of the target is {type_of_target(vector)}."
        fail(function, "y", _count(distinct), "exactly two distinct values", hint)
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
        hint = "There is nothing to compare it with."
        fail(function, "source", f"one source, {names.tolist()[0]!r}", "at least two", hint)
    return Sources(matrix, labels, a, positions, names, classes, groups)


def positions_of(function: str, operand: str, values: Labels, names: np.ndarray, rows: int | None = None) -> np.ndarray:
    """Return the position of each row's value among known ones.

    Raises:
      ValueError: see `read_labels`; or a value that is not known, which is named.
    """
    known = {name: place for place, name in enumerate(names.tolist())}
    labels = read_labels(function, operand, values, rows).tolist()
    unknown = [value for value in labels if value not in known]
    if unknown:
        fail(function, operand, f"the unknown label {unknown[0]!r}", f"labels among {names.tolist()}")
    return np.array([known[value] for value in labels])


def take_rows(array: Any, mask: np.ndarray) -> Any:
    """Return the rows of an array, a data frame or a list; None stays None."""
    if array is None:
        return None
    if hasattr(array, "iloc"):
        return array.iloc[np.flatnonzero(mask)]
    if isinstance(array, (list, tuple)):
        return [row for row, kept in zip(array, mask, strict=True) if kept]
    return (array if hasattr(array, "shape") else np.asarray(array))[mask]


def _count(distinct: np.ndarray) -> str:
    return f"{len(distinct)} distinct value{'s' * (len(distinct) != 1)} {distinct[:4].tolist()}"
