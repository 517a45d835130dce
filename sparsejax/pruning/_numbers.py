"""Checks of plain numbers among the arguments."""

from __future__ import annotations

import math
from typing import Any

from sparsejax._checks import fail


def check_integer(function: str, operand: str, value: Any, least: int = 1) -> None:
    """Refuse what is no integer of at least ``least``; True and 2.0 are none."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        fail(function, operand, f"value {value!r}", f"an integer, at least {least}")


def check_weight(function: str, operand: str, value: float) -> None:
    """Refuse what is no finite number of at least 0."""
    if not 0 <= value < math.inf:
        fail(function, operand, f"value {value}", "a number, at least 0")
