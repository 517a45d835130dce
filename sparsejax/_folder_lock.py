"""One writer per folder: a second process is refused in one line that names the first."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Generator
from pathlib import Path

from sparsejax._checks import fail
from sparsejax._extras import require

_LOCK = ".sparsejax.lock"
_OWNER = ".sparsejax.lock.json"


class FolderInUseError(OSError):
    """Another process writes to the folder."""


@contextlib.contextmanager
def folder_lock(folder: str | os.PathLike[str], function: str) -> Generator[Path]:
    """Make the folder if absent, and keep every other process of this library from writing to it inside the block.

    A block inside another one of the same folder, in the same thread, takes the lock again; so commands may call
    functions that lock.

    The lock is ``flock`` on a hidden file, which the kernel releases when the process ends, however it ends: nothing
    has to be cleaned up after a kill. NFS passes it on to the server (Linux 2.6.12 and later). Where a file system has
    no ``flock``, recent versions of ``filelock`` use a marker file with process and host instead ("soft lock"): one
    left by a dead process of the same host is taken over, one of another host must be removed by hand.

    Args:
      folder: that is written to.
      function: name of the caller, for the message.

    Yields:
      The folder.

    Raises:
      FolderInUseError: another process holds the lock; the message has its pid and host.
      NotADirectoryError: a file is where the folder would be.
      OSError: the folder cannot be made or written to.
      ImportError: ``filelock`` is missing.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as out, folder_lock(out, "train") as folder:
    ...     (folder / ".sparsejax.lock").exists()
    True
    """
    filelock = require("filelock", function)
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        got = "a file at this place, or above it"
        fail(function, f"folder {str(path)!r}", got, "a folder, or a name that is free", error=NotADirectoryError)
    lock, owner = filelock.FileLock(path.resolve() / _LOCK, is_singleton=True), path / _OWNER
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        hint = "Wait for it, stop it, or name another folder."
        fail(function, f"folder {str(path)!r}", f"a writer, {_described(owner)}", "none", hint, FolderInUseError)
    try:
        if lock.lock_counter == 1:
            owner.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "command": function}))
        yield path
    finally:
        if lock.lock_counter == 1:
            with contextlib.suppress(OSError):
                owner.unlink(missing_ok=True)
        lock.release()


def _described(owner: Path) -> str:
    """The process that has the lock, as it wrote it down."""
    try:
        entry = json.loads(owner.read_text())
        return f"process {entry['pid']} on {entry['host']} ({entry['command']})"
    except (OSError, ValueError, KeyError, TypeError):  # between taking the lock and writing the file
        return "another process"
