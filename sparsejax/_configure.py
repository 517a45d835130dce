"""``configure``: the one setting of the process that makes steps faster, made by one call, which says what it did."""

from __future__ import annotations

import ctypes
import dataclasses
import os
from collections.abc import Mapping

# Of mallopt(3) in glibc.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
_OWN_SETTINGS = ("GLIBC_TUNABLES", "MALLOC_")


@dataclasses.dataclass(frozen=True)
class Configuration:
    """What ``configure`` did; ``str`` is one line.

    Attributes:
      keeps_memory: whether the allocator keeps freed memory for the next step because of the call.
      reason: why, in words.
    """

    keeps_memory: bool
    reason: str

    def __str__(self) -> str:
        """One line."""
        what = "freed memory stays with the process" if self.keeps_memory else "nothing changed"
        return f"sparsejax.configure: {what} ({self.reason})"


def configure(environment: Mapping[str, str] = os.environ) -> Configuration:
    """Keep freed memory in this process, so that the system need not zero it again in every training step.

    Call it once, at any time, also in a notebook in which JAX has computed already. Without it glibc returns the
    temporary memory of a compiled step to the system after each step, and gets fresh pages for the next one. It is a
    call and no effect of ``import``, because it changes the allocator of the whole process: peak memory grows by a
    tenth to six tenths. The commands of sparsejax make it for themselves. Numbers do not change.

    Args:
      environment: variables of the process. Settings of glibc's allocator in it (``MALLOC_...``, ``GLIBC_TUNABLES``)
        stand, and the call does nothing.

    Returns:
      What was done and why.

    >>> print(configure({"MALLOC_ARENA_MAX": "2"}))
    sparsejax.configure: nothing changed (MALLOC_ARENA_MAX is set in the environment)
    """
    own = _own_settings(environment)
    if own is not None:
        return Configuration(False, f"{own} is set in the environment")
    if _keep_memory():
        return Configuration(True, "settings of glibc's allocator; peak memory may grow")
    return Configuration(False, "the allocator is not glibc's")


def _own_settings(environment: Mapping[str, str]) -> str | None:
    """Return the first variable by which a user has set glibc's allocator, or None."""
    return next((name for name in environment if name.startswith(_OWN_SETTINGS)), None)


def _keep_memory() -> bool:
    """Tell glibc's allocator to keep what is freed.

    By default blocks above 32 MiB, such as the temporary memory of a compiled step, go back to the system when they are
    freed, and the next step gets fresh pages, which the kernel zeroes one after another: a fifth to a half of a step of
    a sparse ResNet-18. In return the heap fragments: peak memory grows by a tenth to six tenths.

    Returns:
      Whether the allocator took the settings. Only glibc's does; musl, macOS or Windows have other rules.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # no such function; no handle for the program itself (Windows)
        return False
    # -1 is the largest threshold. One arena: the heaps of others are small, and what is large would not be kept.
    options = {_TRIM_THRESHOLD: -1, _TOP_PAD: 64 << 20, _MMAP_MAX: 0, _ARENA_MAX: 1}
    return all([mallopt(option, value) == 1 for option, value in options.items()])
