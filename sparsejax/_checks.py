"""The one place where error messages are built, so that their wording cannot drift."""

from __future__ import annotations

import math
from typing import NoReturn


def message(function: str, operand: str, got: str, expected: str, hint: str = "") -> str:
    """Return ``<function>: <operand> has <got>; expected <expected>. <hint>``."""
    text = f"{function}: {operand} has {got}; expected {expected}."
    return f"{text} {hint}" if hint else text


def fail(
    function: str,
    operand: str,
    got: str,
    expected: str,
    hint: str = "",
    error: type[Exception] = ValueError,
) -> NoReturn:
    """Raise ``error`` with a message of the project's form.

    >>> fail("spmm", "x", "shape (7, 3)", "last axis 8 to match the kernel of shape (8, 5)")
    Traceback (most recent call last):
    ...
    ValueError: spmm: x has shape (7, 3); expected last axis 8 to match the kernel of shape (8, 5).
    """
    raise error(message(function, operand, got, expected, hint))


def check_integer(function: str, operand: str, value: object, least: int = 1) -> None:
    """Refuse anything but an integer of at least ``least``; True and 2.0 are refused too."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        fail(function, operand, f"value {value!r}", f"an integer, at least {least}")


def check_weight(function: str, operand: str, value: float) -> None:
    """Refuse anything but a finite number of at least 0."""
    if not 0 <= value < math.inf:
        fail(function, operand, f"value {value}", "a number, at least 0")
