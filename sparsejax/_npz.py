"""Untrusted NumPy archives: every header is compared with the size of its file before memory is reserved."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Callable
from typing import Any, cast

import numpy as np

from sparsejax._files import PathLike, existing_file, unreadable

# Deflate packs at most 1032 bytes into one.
_MOST_COMPRESSION = 1032
_HEADERS: dict[tuple[int, int], Callable[..., tuple[tuple[int, ...], bool, np.dtype[Any]]]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_CHUNK = 1 << 20


def read_npz(function: str, path: PathLike) -> dict[str, np.ndarray]:
    """Read all arrays of an ``.npz`` file; objects are never unpickled.

    Args:
      function: the caller, for the message.
      path: an archive as `numpy.savez` or `numpy.savez_compressed` writes it.

    Returns:
      The arrays by their names.

    Raises:
      FileNotFoundError: no such file.
      ValueError: no archive, an array of objects, or a header that does not match the size of its data.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/a.npz", x=np.arange(3))
    ...     read_npz("f", f"{folder}/a.npz")
    {'x': array([0, 1, 2])}
    """
    path = existing_file(function, path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if sum(member.compress_size for member in members) > path.stat().st_size:
                raise ValueError("its members overlap")
            return {member.filename.removesuffix(".npy"): _read_array(archive, member) for member in members}
    except Exception as error:  # zipfile and numpy raise many kinds for damaged files
        raise unreadable(function, path, error, "an .npz archive of plain arrays") from error


def _read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    name = f"array {member.filename!r}"
    if member.file_size > _MOST_COMPRESSION * member.compress_size:
        raise ValueError(f"{name} declares {member.file_size} bytes in {member.compress_size}")
    with archive.open(member) as stream:
        version: tuple[int, int] = np.lib.format.read_magic(stream)
        if version not in _HEADERS:
            raise ValueError(f"{name} has format version {version}")
        shape, is_fortran, dtype = _HEADERS[version](stream)
        if dtype.hasobject or not dtype.itemsize:
            raise ValueError(f"{name} has dtype {dtype}")
        size = math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or len(shape) > 32 or math.prod(max(1, side) for side in shape) >= 2**48:
            raise ValueError(f"{name} has shape {shape[:32]}")
        if size != member.file_size - stream.tell():
            raise ValueError(f"{name} declares {size} bytes and has {member.file_size - stream.tell()}")
        content = np.empty(size, np.uint8)
        for start in range(0, size, _CHUNK):
            chunk = content[start : start + _CHUNK]
            if cast("io.BufferedIOBase", stream).readinto(chunk.data) != len(chunk):
                raise ValueError(f"{name} is truncated")
        stream.read(1)  # reaching the end compares the checksum
    array = content.view(dtype) if size else np.empty(0, dtype)
    return array.reshape(shape, order="F" if is_fortran else "C")
