"""What is checked in picture files before a run: their sizes, and on request their whole content."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sparsejax._checks import fail
from sparsejax.data._preprocessing import open_image, picture_size

_THREADS = 2


def check_one_size(function: str, paths: Sequence[Path]) -> tuple[int, int]:
    """Return width and height of picture files that all have the same; only their headers are read.

    Raises:
      ValueError: two sizes, or a header that cannot be read; the message names a file.
    """
    first = picture_size(function, paths[0])
    for path in paths:
        size = picture_size(function, path)
        if size != first:
            got = f"{size[0]} x {size[1]} pixels"
            rule = f"{first[0]} x {first[1]}, the size of {paths[0].name!r}"
            fail(function, f"file {str(path)!r}", got, rule, "Give a size (--size) that all are resized to.")
    return first


def unreadable_pictures(function: str, paths: Sequence[Path]) -> list[tuple[Path, str]]:
    """Decode every picture, and return those that cannot be read with the reason, in their order."""

    def reason(path: Path) -> str:
        try:
            open_image(function, path, "RGB")
        except (ValueError, OSError) as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(_THREADS) as threads:
        reasons = list(threads.map(reason, paths))
    return [(path, why) for path, why in zip(paths, reasons, strict=True) if why]
