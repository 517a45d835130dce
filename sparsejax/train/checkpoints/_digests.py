"""Digests of files and arrays, by which a damaged checkpoint is recognized."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


class DamagedCheckpointError(ValueError):
    """A checkpoint is not what was written; the message names the file or the array."""


def array_digests(arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    """SHA-256 of dtype, shape and bytes of each array, by its name."""
    digests = {}
    for name, array in arrays.items():
        digest = hashlib.sha256(f"{array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
        digests[name] = digest.hexdigest()
    return digests


def file_digests(folder: Path, record: str) -> dict[str, str]:
    """SHA-256 of every file of a checkpoint but its record and hidden files, by its path in the folder."""
    digests: dict[str, str] = {}
    for path in sorted(path for path in folder.rglob("[!.]*") if path.is_file() and path != folder / record):
        with path.open("rb") as file:
            digests[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def record_of(folder: Path, name: str) -> dict[str, Any]:
    """Read the file with the digests of a checkpoint.

    Raises:
      DamagedCheckpointError: it is missing, or no JSON object.
    """
    try:
        record = json.loads((folder / name).read_text())
    except (OSError, ValueError) as error:
        reason = "is missing" if isinstance(error, FileNotFoundError) else "cannot be read"
        raise DamagedCheckpointError(f"Checkpoint {str(folder)!r} is damaged: file {name!r} {reason}.") from error
    if not isinstance(record, dict):
        raise DamagedCheckpointError(f"Checkpoint {str(folder)!r} is damaged: file {name!r} cannot be read.")
    return record


def verify(folder: Path, what: str, actual: Any, recorded: Any) -> None:
    """Compare a part of a checkpoint, or a mapping of names to digests, with the record.

    Raises:
      DamagedCheckpointError: they differ; the message has the first name that does.
    """
    if actual == recorded:
        return
    if what not in ("file", "array") or not isinstance(recorded, dict):
        raise DamagedCheckpointError(f"Checkpoint {str(folder)!r} is damaged: {what} is not the recorded one.")
    name = min(name for name in actual.keys() | recorded.keys() if actual.get(name) != recorded.get(name))
    reason = "is missing" if name not in actual else "is not what was written"
    raise DamagedCheckpointError(f"Checkpoint {str(folder)!r} is damaged: {what} {name!r} {reason}.")
