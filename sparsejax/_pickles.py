"""Untrusted pickles, checked before anything is unpickled."""

from __future__ import annotations

import io
import mmap
import pickletools
from typing import IO, cast

_DEEPEST_PICKLE = 500
_CHANGES_ITS_OPERAND = ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD")


def check_pickles(stream: io.BytesIO | mmap.mmap, count: int = 1) -> None:
    """Refuse pickles that ask for more memory or deeper nesting than their own bytes explain; nothing is unpickled.

    Python's unpickler grows its memo to any index and reserves any declared length before it reads, and hashing a
    deeply nested tuple overflows the stack.

    Args:
      stream: at the beginning of the first pickle.
      count: number of pickles, one after the other.

    Raises:
      ValueError: a pickle is truncated or malformed, or it asks for too much.
    """
    for _ in range(count):
        _check_pickle(stream)


def _check_pickle(stream: io.BytesIO | mmap.mmap) -> None:
    depths: list[int | None] = []  # of the objects on the unpickler's stack; None is a mark
    memo: dict[int, int] = {}
    for number, (opcode, argument, _) in enumerate(pickletools.genops(cast("IO[bytes]", stream))):
        name = opcode.name
        if name.endswith("GET"):
            depths.append(memo.get(argument or 0, 0))
        elif name.endswith("PUT") or name == "MEMOIZE":
            key: int = len(memo) if name == "MEMOIZE" else argument or 0
            if key > number:
                raise ValueError(f"a pickle stores object {key} after {number} operations")
            memo[key] = (depths[-1] if depths else 0) or 0
        elif name == "MARK":
            depths.append(None)
        else:
            operands = _pop(depths, opcode)
            inner = max(operands, default=-1) + 1
            if name in _CHANGES_ITS_OPERAND and operands:
                inner = max(operands[0], max(operands[1:], default=-1) + 1)
            depths.extend([inner] * len(opcode.stack_after))
            if inner > _DEEPEST_PICKLE:
                raise ValueError(f"a pickle nests objects {inner} deep")


def _pop(depths: list[int | None], opcode: pickletools.OpcodeInfo) -> list[int]:
    """Take the operands of an opcode from the stack and return their depths, the lowest first."""
    operands: list[int] = []
    count = len(opcode.stack_before)
    if pickletools.markobject in opcode.stack_before:
        while depths and (depth := depths.pop()) is not None:
            operands.append(depth)
        count = opcode.stack_before.index(pickletools.markobject)
    for _ in range(min(count, len(depths))):
        operands.append(depths.pop() or 0)
    return operands[::-1]
