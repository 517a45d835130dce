"""The one place where error messages are built, so that their wording cannot drift."""

from __future__ import annotations

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
