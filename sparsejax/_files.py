"""Files: checked before they are read, with errors that name them; whole or absent whenever a write is killed."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Generator
from pathlib import Path
from typing import BinaryIO, Literal, TypeAlias

from sparsejax._checks import fail, message

PathLike: TypeAlias = str | os.PathLike[str]


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


def place_for(function: str, path: Path, kind: Literal["file", "folder"]) -> None:
    """Refuse a path of ``--out`` where no file, or no folder, can be written, before anything is computed.

    Raises:
      FileNotFoundError: the folder of the path does not exist.
      FileExistsError: the other kind is at this place.
    """
    existing_folder(function, path.parent, "folder of --out")
    other = "folder" if kind == "file" else "file"
    if _is(path, other):
        fail(function, "--out", f"value {str(path)!r}, a {other}", f"a {kind}, or a free name", error=FileExistsError)


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


def write_atomically(path: Path, content: str | bytes | Callable[[BinaryIO], object]) -> None:
    """Write a file so that a kill or a full disk leaves the old content or the new one, never a part.

    The content goes to a draft beside the file, reaches the disk, and replaces the file at once.

    Args:
      path: the file; its folder exists.
      content: text (written as UTF-8), bytes, or a function that writes to an open binary file.

    Raises:
      OSError: the content cannot be written; the draft is removed, the file is what it was.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with draft.open("wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


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
