"""``configure``: the settings of the process that make steps faster, made by one call, which says what it did."""

from __future__ import annotations

import ctypes
import dataclasses
import os
from collections.abc import Mapping, MutableMapping

from sparsejax._compat import backend_has_started

# Of mallopt(3) in glibc.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
_EXTRA = "--xla_backend_extra_options"
XLA_FLAG = f"{_EXTRA}=xla_cpu_disable_tiled_emitter"
_ALLOCATOR_VARIABLES = ("GLIBC_TUNABLES", "MALLOC_")


@dataclasses.dataclass(frozen=True)
class Configuration:
    """What ``configure`` did; ``str`` is one line.

    Attributes:
      keeps_memory: whether the allocator keeps freed memory for the next step because of the call.
      sets_xla_flag: whether XLA, which had not started, will compile without its tiled emitter.
      memory_reason, xla_reason: why, in words.
    """

    keeps_memory: bool
    sets_xla_flag: bool
    memory_reason: str
    xla_reason: str

    def __str__(self) -> str:
        """One line."""
        memory = "freed memory stays with the process" if self.keeps_memory else "the allocator is left as it was"
        xla = "XLA's tiled emitter is off" if self.sets_xla_flag else "XLA is left as it was"
        return f"sparsejax.configure: {memory} ({self.memory_reason}); {xla} ({self.xla_reason})"


def configure(environment: MutableMapping[str, str] = os.environ) -> Configuration:
    """Keep freed memory in this process, so that the system need not zero it again in every training step.

    Call it once, at any time, also in a notebook in which JAX has computed already. Without it glibc returns the
    temporary memory of a compiled step to the system after each step, and gets fresh pages for the next one. It is a
    call and no effect of ``import``, because it changes the allocator of the whole process: peak memory grows by a
    tenth to six tenths. The commands of sparsejax make it for themselves. Numbers do not change.

    XLA reads its flags once, at the first computation. Called before it, ``configure`` also turns off XLA's tiled
    emitter, which (jaxlib 0.10) makes scalar code of a lone addition or product in the batch-minor layout. The sum of
    gradients where a residual block with ``sparsejax.nn.norm_act`` begins is fast without it.

    Args:
      environment: variables of the process. Settings of glibc's allocator in it (``MALLOC_...``, ``GLIBC_TUNABLES``)
        and extra options in ``XLA_FLAGS`` are left as they are.

    Returns:
      What was done and why.

    >>> print(configure({"MALLOC_ARENA_MAX": "2"}))  # doctest: +ELLIPSIS
    sparsejax.configure: the allocator is left as it was (MALLOC_ARENA_MAX is set in the environment); XLA...
    """
    setting = _user_setting(environment)
    if setting is not None:
        memory = False, f"{setting} is set in the environment"
    elif _keep_memory():
        memory = True, "settings of glibc's allocator; peak memory may grow"
    else:
        memory = False, "the allocator is not glibc's"
    flags = environment.get("XLA_FLAGS", "")
    if _EXTRA in flags:
        xla = False, "XLA_FLAGS has extra options already"
    elif backend_has_started():
        xla = False, "it has computed already; call this first to turn its tiled emitter off"
    else:
        environment["XLA_FLAGS"] = f"{flags} {XLA_FLAG}".strip()
        xla = True, "a flag, read at the first computation"
    return Configuration(memory[0], xla[0], memory[1], xla[1])


def _user_setting(environment: Mapping[str, str]) -> str | None:
    """Return the first variable by which a user has set glibc's allocator, or None."""
    return next((name for name in environment if name.startswith(_ALLOCATOR_VARIABLES)), None)


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
