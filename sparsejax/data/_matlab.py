"""MATLAB 5 files: the numbers, texts and structures that lists of images need, read with every size checked."""

from __future__ import annotations

import math
import zlib
from collections.abc import Collection, Iterator
from typing import Any, Literal, TypeAlias

import numpy as np

from sparsejax._files import PathLike, existing_file, unreadable

_ORDERS: dict[bytes, Literal["<", ">"]] = {b"IM": "<", b"MI": ">"}
_COMPRESSED, _ARRAY = 15, 14
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TEXTS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
# Classes of arrays: structure, text, and from 6 to 15 the numbers.
_STRUCTURE, _TEXT, _FIRST_NUMBER, _LAST_NUMBER = 2, 4, 6, 15
_DEEPEST = 8

Element: TypeAlias = tuple[int, memoryview]  # type and data


def read_matlab(function: str, path: PathLike, names: Collection[str], hint: str = "") -> dict[str, Any]:
    """Read variables of a MATLAB 5 file.

    Args:
      function: the caller, for messages.
      path: the file, compressed or not.
      names: variables to read; others are skipped.
      hint: end of the message where the file is missing.

    Returns:
      The variables by name: an array of numbers in its shape, a text, or for an array of structures a list of dicts
      in MATLAB's order (first axis fastest).

    Raises:
      FileNotFoundError: no such file.
      ValueError: the file is damaged or of another version, or it has not all these variables.

    Source: MathWorks, "MAT-File Level 5 File Format".
    """
    path = existing_file(function, path, hint=hint)
    content = path.read_bytes()
    try:
        order = _ORDERS[content[126:128]]
        variables = dict(_variables(memoryview(content)[128:], order, names, packed=False))
        if missing := [name for name in names if name not in variables]:
            raise ValueError(f"no variable {missing[0]}")
    except (ValueError, KeyError, IndexError, zlib.error, OverflowError) as error:
        raise unreadable(function, path, error, f"a MATLAB 5 file with {', '.join(names)}") from error
    return variables


def _variables(data: memoryview, order: str, names: Collection[str], *, packed: bool) -> Iterator[tuple[str, Any]]:
    for kind, element in _elements(data, order):
        if kind == _COMPRESSED and not packed:
            yield from _variables(memoryview(zlib.decompress(element)), order, names, packed=True)
        elif kind == _ARRAY and (name := _text(list(_elements(element, order))[2])) in names:
            yield name, _array(element, order, 0)


def _elements(data: memoryview, order: str) -> Iterator[Element]:
    """Return the elements of some bytes: type, number of bytes, data up to a multiple of 8."""
    start = 0
    while start + 8 <= len(data):
        kind, size = (int(word) for word in np.frombuffer(data[start : start + 8], f"{order}u4"))
        if kind >> 16:  # a small element: its size is in the upper half of the type, its data in the second word
            kind, size, first, last = kind & 0xFFFF, kind >> 16, start + 4, start + 8
        else:
            first = start + 8
            last = first + size + (0 if kind == _COMPRESSED else -size % 8)
        if first + size > len(data) or first + size > last:
            raise ValueError(f"an element declares {size} bytes, more than it has")
        yield kind, data[first : first + size]
        start = last


def _array(data: memoryview, order: str, depth: int) -> Any:
    elements = list(_elements(data, order))
    if not elements:
        return np.empty((0, 0))
    flags, shape, _, *parts = elements
    kind = int(_numbers(flags, order)[0]) & 0xFF
    sides = [int(side) for side in _numbers(shape, order)]
    count = math.prod(sides)
    if kind == _TEXT:
        return _text(parts[0], order)
    if kind == _STRUCTURE and depth < _DEEPEST:
        width = int(_numbers(parts[0], order)[0])
        fields = bytes(parts[1][1])
        names = [fields[i : i + width].split(b"\0")[0].decode("latin-1") for i in range(0, len(fields), max(1, width))]
        if not names or count < 0 or len(parts) - 2 != count * len(names):
            raise ValueError(f"{len(parts) - 2} values for {count} structures of {len(names)} fields")
        values = iter([_array(value, order, depth + 1) for _, value in parts[2:]])
        return [{name: next(values) for name in names} for _ in range(count)]
    if _FIRST_NUMBER <= kind <= _LAST_NUMBER:
        return _numbers(parts[0], order).reshape(sides, order="F")
    raise ValueError(f"an array of class {kind}")


def _numbers(element: Element, order: str) -> np.ndarray:
    kind, data = element
    return np.frombuffer(data, np.dtype(order + _NUMBERS[kind])).astype(_NUMBERS[kind])


def _text(element: Element, order: str = "<") -> str:
    kind, data = element
    encoding = _TEXTS[kind]
    if encoding in ("utf-16", "utf-32"):
        encoding += "-le" if order == "<" else "-be"
    return bytes(data).decode(encoding)
