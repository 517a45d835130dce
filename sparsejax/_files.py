"""Files that a user names: checked before they are read, with errors that name them."""

from __future__ import annotations

import contextlib
import io
import mmap
import os
import pickletools
import re
from collections.abc import Generator
from pathlib import Path
from typing import IO, TypeAlias, cast

from sparsejax._checks import fail, message

PathLike: TypeAlias = str | os.PathLike[str]

_DEEPEST_PICKLE = 500
_CHANGES_ITS_OPERAND = ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD")


def existing_file(function: str, path: PathLike, expected: str = "an existing file", hint: str = "") -> Path:
    """Return the path of a file.

    Args:
      function: the caller, for the message.
      path: the file.
      expected: what should be there, for the message.
      hint: end of the message.

    Raises:
      FileNotFoundError: no file has this path.
    """
    path = Path(path)
    if not _is(path, "file"):
        fail(function, "path", f"value {str(path)!r}", expected, hint, FileNotFoundError)
    return path


def existing_folder(function: str, path: PathLike, operand: str = "folder", hint: str = "") -> Path:
    """Return the path of a folder; ``operand`` is the name of the argument, for the message.

    Raises:
      FileNotFoundError: no folder has this path.
    """
    path = Path(path)
    if not _is(path, "folder"):
        fail(function, operand, f"value {str(path)!r}", "an existing folder", hint, FileNotFoundError)
    return path


def text_lines(function: str, path: PathLike, hint: str = "") -> list[str]:
    """Return the lines of a UTF-8 file that are not blank, without their ends.

    Raises:
      FileNotFoundError: no file has this path.
      ValueError: the file is not UTF-8.
    """
    path = existing_file(function, path, hint=hint)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise unreadable(function, path, error, "text in UTF-8") from error
    return [line for line in text.splitlines() if line.strip()]


@contextlib.contextmanager
def naming(path: PathLike) -> Generator[None, None, None]:
    """Add a path to the message of a ValueError that does not name it."""
    try:
        yield
    except ValueError as error:
        if repr(str(path))[1:-1] in str(error):
            raise
        raise ValueError(f"{error} Path: {str(path)!r}.") from error


def unreadable(function: str, path: PathLike, error: BaseException, expected: str, hint: str = "") -> ValueError:
    """Return the error for a file of another form, with the first line of the reader's own error as its reason."""
    lines = str(error).splitlines()
    reason = f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
    return ValueError(message(function, f"file {str(path)!r}", f"other content ({reason})", expected, hint))


def _is(path: Path, kind: str) -> bool:
    try:
        return path.is_file() if kind == "file" else path.is_dir()
    except (OSError, ValueError):  # a name that no file can have
        return False


def whole_number(text: str) -> int | None:
    """Return the integer that a text of up to 9 ASCII digits means, with or without a minus; None for other texts.

    >>> whole_number("-3"), whole_number("--3"), whole_number("²")
    (-3, None, None)
    """
    return int(text) if re.fullmatch(r"-?[0-9]{1,9}", text) else None


def path_below(function: str, folder: Path, name: str, source: Path) -> Path:
    """Return ``folder / name`` for a relative name that a file lists.

    Args:
      function: the caller, for the message.
      folder: where the listed files are.
      name: a relative path with "/" between its parts.
      source: the file that lists it, for the message.

    Raises:
      ValueError: the name is absolute, leads out of the folder, or no file system has it.
    """
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or "\0" in name or max(map(len, parts)) > 255:
        fail(function, f"file {str(source)!r}", f"the name {name[:60]!r}", "names of files below its folder")
    return folder / name


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
