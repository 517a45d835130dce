"""What the kernels run on: instruction set and threads."""

from __future__ import annotations

import os
from dataclasses import dataclass

from sparsejax._native import ffi


@dataclass(frozen=True)
class CpuInfo:
    """The processor as the kernels see it.

    Attributes:
      isa: instruction set in use; ``SPARSEJAX_ISA`` chooses another one when the package is imported.
      supported_isas: instruction sets that this processor can run, best first.
      threads: threads of XLA's pool, which the kernels share with every other operation.
    """

    isa: str
    supported_isas: tuple[str, ...]
    threads: int


def cpu_info() -> CpuInfo:
    """Return the instruction set in use, those supported, and the number of threads.

    threads = NPROC if that environment variable is a positive number, else the processors this process may run on

    Returns:
      A ``CpuInfo``. Starts no JAX backend; ``NPROC`` and the affinity count as they are when XLA starts its pool.

    Source: XLA, ``xla/pjrt/utils.cc``, ``DefaultThreadPoolSize``.

    >>> info = cpu_info()
    >>> info.isa in info.supported_isas, info.threads >= 1
    (True, True)
    """
    return CpuInfo(ffi.isa(), tuple(ffi.supported_isas()), _threads())


def _threads() -> int:
    wanted = os.environ.get("NPROC", "").strip()
    if wanted.isdigit() and int(wanted) > 0:
        return int(wanted)
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
