"""How large a pattern may be: its indices are int32, and its arrays have their full length whatever is stored."""

from __future__ import annotations

import math

from sparsejax._checks import fail

MAX_SIZE = 2**31 - 1
# Capacity, rows and columns may be this large whatever the kernel; beyond, they may not pass its number of weights.
SMALL = 2**24


def check_size(name: str, operand: str, shape: tuple[int, ...]) -> None:
    """Refuse a kernel whose indices pass int32, or whose pointers alone would take far more room than its weights."""
    size = math.prod(shape)
    if size > MAX_SIZE:
        fail(name, operand, f"{size} entries", f"at most {MAX_SIZE}, the range of int32 indices")
    longest = max(math.prod(shape[:-1]), shape[-1]) if shape else 0
    if longest > max(size, SMALL):
        fail(name, operand, f"shape {shape}", f"at most {max(size, SMALL)} rows and columns for {size} weights")


def check_nse(name: str, nse: int, shape: tuple[int, ...]) -> None:
    """Refuse a capacity that no mask of this shape can use, unless it is small."""
    limit = max(math.prod(shape), SMALL)
    if not 0 <= nse <= limit:
        fail(name, "nse", f"value {nse}", f"a capacity between 0 and {limit} for a kernel of shape {shape}")


def check_stored(name: str, operand: str, shape: tuple[int, ...], nse: int) -> None:
    """Refuse a sparse matrix whose pointers would take far more room than its entries, or whose entries pass int32."""
    if nse > MAX_SIZE:
        fail(name, operand, f"{nse} entries", f"at most {MAX_SIZE}, the range of int32 positions")
    if max(shape) > max(nse, SMALL):
        fail(name, operand, f"shape {shape}", f"at most {max(nse, SMALL)} rows and columns for {nse} entries")
