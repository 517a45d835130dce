"""Pinning threads, and saying what the numbers were taken on."""

from __future__ import annotations

import datetime
import os
import platform
import re
from importlib import metadata
from pathlib import Path
from typing import Any

# The variables by which each library decides how many threads to use.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_PACKAGES = (
    "sparsejax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "numpy",
    "scipy",
    "torch",
    "sparseprop",
    "sparse-dot-mkl",
    "mkl",
)
_PINNED = "SPARSEJAX_BENCH_PINNED"
NOTHING_SET = "SPARSEJAX_BENCH_NOTHING_SET"
# What keeps PyTorch's two libraries for products from using AMX; they read it when they load.
_ONEDNN_LIMIT = "ONEDNN_MAX_CPU_ISA"
WITHOUT_AMX = {_ONEDNN_LIMIT: "AVX512_CORE_BF16", "MKL_ENABLE_INSTRUCTIONS": "AVX512_E3"}


def pinned_environment(threads: int) -> dict[str, str]:
    """Environment of a process that shall compute with so many threads; `pin` in that process does the rest."""
    environment = {name: value for name, value in os.environ.items() if name != "NPROC"}  # XLA would obey NPROC
    environment |= dict.fromkeys(_THREAD_VARIABLES, str(threads))
    environment["KMP_BLOCKTIME"] = "0"  # Intel's threads would spin for 200 ms, while other implementations are timed
    environment[_PINNED] = str(threads)
    return environment


def pin() -> int:
    """Keep this process to as many processors as `pinned_environment` said, the first of those it may use.

    Must run before JAX, NumPy or PyTorch are imported: XLA sizes its pool by the affinity.

    Returns:
      The number of threads.

    Raises:
      ValueError: fewer processors than threads.
    """
    threads = int(os.environ[_PINNED])
    available = sorted(os.sched_getaffinity(0))
    if threads > len(available):
        text = f"bench: --threads has value {threads}; expected at most {len(available)}, the processors available."
        raise ValueError(text)
    os.sched_setaffinity(0, available[:threads])
    return threads


def describe() -> dict[str, Any]:
    """Processor, instruction set, threads, caches, versions, time."""
    from sparsejax import cpu_info

    info = cpu_info()
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "isa": info.isa,
        "supported_isas": list(info.supported_isas),
        "amx": amx(),
        "threads": info.threads,
        "affinity": sorted(os.sched_getaffinity(0)),
        "cache_bytes": cache_sizes(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": _versions(),
        "taken": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _processor() -> str:
    match = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return match.group(1) if match else platform.processor() or platform.machine()


def _versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def amx() -> str:
    """Whether PyTorch may multiply bfloat16 matrices with AMX, in words."""
    if re.search(r"^flags\s*:.*\bamx_bf16\b", Path("/proc/cpuinfo").read_text(), re.MULTILINE) is None:
        return "none"
    limit = os.environ.get(_ONEDNN_LIMIT)
    return "used by PyTorch" if limit is None else f"PyTorch limited to {limit}"


def cache_sizes() -> dict[str, int]:
    """Bytes of the data caches of the first processor in use: "L1", "L2", "L3", those that Linux names."""
    units = {"K": 1024, "M": 1024**2}
    sizes = {}
    folder = Path(f"/sys/devices/system/cpu/cpu{min(os.sched_getaffinity(0))}/cache")
    for index in sorted(folder.glob("index*")):
        if (index / "type").read_text().strip() != "Instruction":
            text = (index / "size").read_text().strip()
            sizes[f"L{(index / 'level').read_text().strip()}"] = int(text[:-1]) * units[text[-1]]
    return sizes
