"""Files that are whole or absent, whenever the process is killed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


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
