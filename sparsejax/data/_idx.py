"""IDX files, the format of MNIST: one array of a fixed type in a file."""

from __future__ import annotations

import gzip
import math
import os
import zlib
from pathlib import Path
from typing import NoReturn

import numpy as np

from sparsejax._checks import fail, message

_GZIP_MAGIC = b"\x1f\x8b"
# Third byte of the file to the big-endian type of its elements.
_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def idx(path: str | os.PathLike[str]) -> np.ndarray:
    """Read one IDX file, gzipped or not (decided by its content, not by its name).

    Args:
      path: the file. Layout: two zero bytes, a type code, the number of axes, one big-endian 32-bit size
        for each axis, then the elements, big-endian, last axis fastest.

    Returns:
      A new array of the file's shape, in native byte order: uint8, int8, int16, int32, float32 or float64.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a bad magic number, an unknown type, or more or fewer bytes than the header promises.

    Source: LeCun, Cortes, Burges, "The MNIST database", section "The IDX file format".

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     _ = file.write(bytes([0, 0, 8, 2, 0, 0, 0, 1, 0, 0, 0, 3, 7, 8, 9])), file.flush()
    ...     idx(file.name)
    array([[7, 8, 9]], dtype=uint8)
    """
    path = Path(path)
    if not path.is_file():
        fail("idx", "path", f"value {str(path)!r}", "an existing file", error=FileNotFoundError)
    content = path.read_bytes()
    if content.startswith(_GZIP_MAGIC):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            text = message("idx", f"file {str(path)!r}", f"broken compression ({error})", "an intact gzip file")
            raise ValueError(text) from error
    if len(content) < 4 or content[:2] != b"\x00\x00" or content[2] not in _DTYPES:
        _bad(
            path,
            f"first bytes {content[:4].hex(' ') or 'absent'}",
            "00 00, a type code 08 to 0e, and the rank",
        )
    rank = content[3]
    header = 4 + 4 * rank
    if len(content) < header:
        _bad(path, f"{len(content)} bytes", f"a header of {header} for {rank} axes", "Is it truncated?")
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", rank, offset=4))
    dtype = np.dtype(_DTYPES[content[2]])
    expected = header + math.prod(shape) * dtype.itemsize
    if len(content) != expected:
        _bad(path, f"{len(content)} bytes", f"{expected} for {dtype.name}{list(shape)}", "Is it truncated?")
    return np.frombuffer(content, dtype, offset=header).reshape(shape).astype(dtype.newbyteorder("="))


def _bad(path: Path, got: str, expected: str, hint: str = "") -> NoReturn:
    fail("idx", f"file {str(path)!r}", got, expected, hint)
