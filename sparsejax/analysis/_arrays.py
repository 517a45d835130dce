"""Array-likes read in one place: lists, NumPy, masked, JAX and pandas, with their missing entries."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike as ArrayLike

from sparsejax._checks import fail

ColumnsLike: TypeAlias = ArrayLike | Mapping[Any, ArrayLike]
"""One column [n], columns [n, G], a data frame, or a mapping name -> [n]."""
NumberLike: TypeAlias = float | np.number | jax.Array

# NumPy and pandas write missing entries like this when a column becomes text.
_MISSING_AS_TEXT = ("nan", "<NA>", "NaT")


def is_missing(value: Any) -> bool:
    """Whether one entry is missing: None, NaN, NaT, pandas.NA or a masked entry.

    >>> [is_missing(value) for value in (None, float("nan"), np.ma.masked, 0, "", "None")]
    [True, True, True, False, False, False]
    """
    if value is None or value is np.ma.masked:
        return True
    try:
        return bool(value != value)
    except TypeError:  # pandas.NA is neither true nor false
        return True
    except ValueError:  # an array
        return False


def read_array(function: str, operand: str, values: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Read an array-like of any rank by position; the index of pandas objects is not used.

    Args:
      function: public function named in errors.
      operand: argument named in errors.
      values: a scalar, list, NumPy, masked or JAX array (bfloat16 too), pandas Series, Index, array or DataFrame of any
        dtype (nullable, string, categorical), or a list of those.

    Returns:
      (array, missing): booleans, integers, floats with NaN where they are missing, or objects (text, dates, mixed
      values); and bool of the same shape, true where an entry is missing.

    Raises:
      ValueError: rows of different lengths.

    >>> read_array("f", "x", [True, None, 1])
    (array([ 1., nan,  1.]), array([False,  True, False]))
    """
    if isinstance(values, np.ma.MaskedArray):
        array, missing = read_array(function, operand, values.data)
        return _with_missing(array, missing | np.ma.getmaskarray(values))
    if isinstance(values, (list, tuple)) and any(isinstance(v, np.ma.MaskedArray) or _is_pandas(v) for v in values):
        parts = [read_array(function, operand, value) for value in values]
        if len({array.shape for array, _ in parts}) > 1:
            fail(function, operand, f"shapes {[array.shape for array, _ in parts]}", "one shape")
        return np.stack([array for array, _ in parts]), np.stack([missing for _, missing in parts])
    try:
        array = np.asarray(values.to_numpy() if _is_pandas(values) else values)
    except ValueError:
        fail(function, operand, "rows of different lengths", "an array")
    if array.dtype.kind == "V" and jnp.issubdtype(array.dtype, np.number):
        array = array.astype(np.float64)  # bfloat16 and other types of JAX
    if array.dtype.kind in "Mm":
        return array.astype(str).astype(object), np.isnat(array)
    if array.dtype.kind in "UST" and not (array.dtype.kind == "U" and isinstance(values, np.ndarray)):
        # A list of text and NaN is text to NumPy; its entries are not.
        array = np.array(values, dtype=object) if isinstance(values, (list, tuple)) else array.astype(object)
    if array.dtype.kind == "O":
        return _read_objects(array)
    return array, np.isnan(array) if array.dtype.kind in "fc" else np.zeros(array.shape, bool)


def _is_pandas(values: Any) -> TypeGuard[Any]:
    return hasattr(values, "to_numpy")


def _is_frame(values: Any) -> TypeGuard[Any]:
    return hasattr(values, "columns") and np.ndim(values) == 2  # a series may have a label "columns"


def _with_missing(array: np.ndarray, missing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return (np.where(missing, np.nan, array) if missing.any() and array.dtype.kind in "biuf" else array), missing


def _read_objects(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers and booleans where all present entries are such, the objects otherwise."""
    flat = array.ravel()
    missing = np.fromiter(map(is_missing, flat), bool, flat.size)
    present = [value.item() if getattr(value, "ndim", None) == 0 else value for value in flat[~missing]]
    if not all(isinstance(value, (bool, int, float)) for value in present):
        return array, missing.reshape(array.shape)
    numbers = np.array(present)
    if missing.any() or numbers.dtype.kind not in "biuf":
        every = np.full(flat.size, np.nan)
        every[~missing] = numbers
        numbers = every
    return numbers.reshape(array.shape), missing.reshape(array.shape)


def refuse_missing(function: str, operand: str, missing: np.ndarray, expected: str, hint: str = "") -> None:
    """Refuse an array with missing entries, naming the first row (and column).

    >>> refuse_missing("f", "groups", np.array([False, True, True]), "a level for every sample")
    Traceback (most recent call last):
    ...
    ValueError: f: groups has a missing value at row 1 (2 in all); expected a level for every sample.
    """
    if missing.any():
        names = ("row", "column") if missing.ndim < 3 else ("run", "row", "column")
        at = ", ".join(f"{name} {i}" for name, i in zip(names, np.argwhere(missing)[0], strict=False))
        where = f"a missing value{f' at {at}' if at else ''}"
        fail(function, operand, f"{where} ({missing.sum()} in all)" if missing.sum() > 1 else where, expected, hint)


def read_numbers(function: str, operand: str, values: ArrayLike) -> np.ndarray:
    """Read numbers or booleans of any rank as float64, NaN where they are missing.

    >>> read_numbers("f", "x", ["a"])
    Traceback (most recent call last):
    ...
    ValueError: f: x has dtype object; expected numbers or booleans.
    """
    array, _ = read_array(function, operand, values)
    if array.dtype.kind not in "biuf":
        fail(function, operand, f"dtype {array.dtype}", "numbers or booleans")
    return array.astype(np.float64)


def read_number(
    function: str, operand: str, value: NumberLike, low: float = -math.inf, high: float = math.inf
) -> float:
    """Read one number in [low, high], a Python, NumPy or JAX scalar; NaN and other missing values are refused."""
    array, missing = read_array(function, operand, value)
    if array.ndim or missing.any() or array.dtype.kind not in "biuf" or not low <= array <= high:
        within = "a number" if (low, high) == (-math.inf, math.inf) else f"a number from {low:g} to {high:g}"
        fail(function, operand, f"value {value}", within)
    return float(array)


def read_integer(function: str, operand: str, value: int | np.integer | jax.Array, low: int, high: int) -> int:
    """Read one whole number in [low, high]."""
    number = read_number(function, operand, value, low, high)
    if number != round(number):
        fail(function, operand, f"value {value}", "a whole number")
    return round(number)


def read_categories(function: str, operand: str, values: ArrayLike) -> np.ndarray:
    """Read one categorical column [n] as booleans, integers or text.

    Raises:
      ValueError: another rank, no entry, a missing entry (the text "nan", which NumPy makes of NaN, counts as one),
        fractions, or two different values that are written alike, such as 1 and "1".

    >>> read_categories("f", "g", ["x", "y", None])
    Traceback (most recent call last):
    ...
    ValueError: f: g has a missing value at row 2; expected a value for every sample.
    """
    array, missing = read_array(function, operand, values)
    if array.ndim != 1 or len(array) == 0:
        fail(function, operand, f"shape {array.shape}", "(n,) with n at least 1")
    refuse_missing(function, operand, missing, "a value for every sample")
    if array.dtype.kind == "f":
        if not (array == np.round(array)).all() or not (np.abs(array) < 2.0**53).all():
            row = int(np.flatnonzero((array != np.round(array)) | (np.abs(array) >= 2.0**53))[0])
            fail(function, operand, f"fraction {array[row]:g} at row {row}", "whole numbers, booleans or text")
        return array.astype(np.int64)
    if array.dtype.kind in "biu":
        return array
    if array.dtype.kind not in "OU":
        fail(function, operand, f"dtype {array.dtype}", "whole numbers, booleans or text")
    text = np.array([_text(value) for value in array])
    refuse_missing(function, operand, np.isin(text, _MISSING_AS_TEXT), "a value for every sample", "It was made text.")
    meaning: dict[str, Any] = {}
    for written, value in zip(text, array, strict=True):
        if meaning.setdefault(str(written), value) != value:
            fail(function, operand, f"values {meaning[str(written)]!r} and {value!r}", "values of one type")
    return text


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def read_columns(
    function: str, operand: str, values: ColumnsLike, names: Iterable[Any] | None = None, *, default: str = "group"
) -> dict[str, Any]:
    """Return named columns [n] of a mapping, a data frame, or an array [n] or [n, G]; they are not read yet.

    Args:
      function: public function named in errors.
      operand: argument named in errors.
      values: the columns.
      names: of the columns of an array; "<default> 0", ... if None.
      default: word for unnamed columns.

    Raises:
      ValueError: another rank, or names that are not different or not as many as columns.
    """
    if isinstance(values, Mapping) or _is_frame(values):
        keys = list(values if isinstance(values, Mapping) else values.columns)
        chosen = read_names(function, f"names of {operand}", keys, len(keys))
        return {name: values[key] for name, key in zip(chosen, keys, strict=True)}  # type: ignore[index]
    array, missing = read_array(function, operand, values)  # type: ignore[arg-type]
    if array.ndim not in (1, 2):
        fail(function, operand, f"shape {array.shape}", "(n,), (n, G), or a mapping name -> (n,)")
    count = 1 if array.ndim == 1 else array.shape[1]
    chosen = [f"{default} {i}" for i in range(count)] if names is None else names
    chosen = read_names(function, f"{default}_names", chosen, count)
    if array.ndim == 1:
        return {chosen[0]: values}
    if array.dtype.kind == "O":
        array = array.copy()
        array[missing] = None
    return {name: array[:, i] for i, name in enumerate(chosen)}


def read_names(function: str, operand: str, names: Iterable[Any], count: int) -> tuple[str, ...]:
    """Read ``count`` different names, none of them missing, as text."""
    entries: Sequence[Any] = [names] if isinstance(names, str) else list(names)
    refuse_missing(function, operand, np.array([is_missing(name) for name in entries], bool), "a name for each")
    text = tuple(_text(name) for name in entries)
    if len(text) != count or len(set(text)) != count:
        fail(function, operand, f"{len(set(text))} different names", f"{count}")
    return text
