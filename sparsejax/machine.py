"""What this machine can do: its instruction set and threads, and the limits that one thread reaches."""

from __future__ import annotations

from sparsejax._cpu_info import CpuInfo, cpu_info
from sparsejax._native import ffi

__all__ = ["CpuInfo", "cpu_info", "measure_flops", "measure_read_bandwidth"]


def measure_flops(seconds: float) -> float:
    """Measure the float32 flop/s of one thread that does fused multiply-adds in registers, two flops each.

    Args:
      seconds: how long to measure, positive.

    Raises:
      ValueError: ``seconds`` is not positive.

    >>> measure_flops(0.001) > 1e6
    True
    """
    return ffi.probe_fma(seconds)


def measure_read_bandwidth(size: int, seconds: float) -> float:
    """Measure the bytes/s of one thread that reads a buffer of ``size`` bytes again and again.

    Args:
      size: bytes of the buffer; what fits a cache is read from there after the first pass.
      seconds: how long to measure, positive.

    Raises:
      ValueError: ``size`` is too small, or ``seconds`` is not positive.

    >>> measure_read_bandwidth(16 * 1024, 0.001) > 1e6
    True
    """
    return ffi.probe_read(size, seconds)
