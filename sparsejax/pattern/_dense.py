"""Between a dense kernel and the stored entries of a pattern.

Concrete arrays are handled by NumPy: every layer of a network has another ``nse``, and op-by-op JAX would compile each
step again for each of them. Traced arrays, and those inside a derivative, take the JAX path, with the same numbers.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax._checks import fail
from sparsejax._compat import is_traced
from sparsejax.pattern._build import Pattern


def row_of_entry(pattern: Pattern, xp: Any) -> Any:
    """Return int32[nse]: the row of each entry; ``rows`` for padding."""
    entry = xp.arange(pattern.nse, dtype=xp.int32)
    return xp.searchsorted(xp.asarray(pattern.indptr)[1:], entry, side="right").astype(xp.int32)


def gather(pattern: Pattern, kernel: jax.Array) -> jax.Array:
    """Return the entries of a dense kernel of the pattern's shape; zero in the padding.

    A pattern of more entries than ``nse`` is an error where its arrays are concrete; where they are traced, floating
    entries are all NaN, because an error cannot be raised.
    """
    xp = _module(pattern, kernel)
    _check_capacity(pattern, "gather")
    row = row_of_entry(pattern, xp)
    if kernel.size == 0:
        return jnp.zeros((pattern.nse,), kernel.dtype)
    dense = xp.asarray(kernel).reshape(pattern.columns, pattern.rows)
    values = dense[xp.asarray(pattern.indices), xp.minimum(row, pattern.rows - 1)]
    return _poisoned(pattern, jnp.asarray(xp.where(row < pattern.rows, values, xp.zeros((), kernel.dtype))))


def scatter(pattern: Pattern, data: jax.Array) -> jax.Array:
    """Return the dense kernel of the pattern's shape, zeros elsewhere; too many entries as in ``gather``."""
    xp = _module(pattern, data)
    _check_capacity(pattern, "scatter")
    row = row_of_entry(pattern, xp)
    dense = xp.zeros((pattern.columns, pattern.rows), data.dtype)
    if xp is np:
        stored = row < pattern.rows
        dense[np.asarray(pattern.indices)[stored], row[stored]] = np.asarray(data)[stored]
    else:
        dense = dense.at[pattern.indices, row].set(data, mode="drop", unique_indices=True)
    return _poisoned(pattern, jnp.asarray(dense.reshape(pattern.shape)))


def _check_capacity(pattern: Pattern, method: str) -> None:
    """Refuse a pattern made under ``jit`` from a mask of more entries than its capacity, where that is known."""
    if not is_traced(pattern.indptr):
        total = int(np.asarray(pattern.indptr)[-1])
        if total > pattern.nse:
            hint = "Was it made under jit from a mask of more entries?"
            fail(f"SparsityPattern.{method}", "pattern", f"{total} entries", f"at most nse = {pattern.nse}", hint)


def _poisoned(pattern: Pattern, values: jax.Array) -> jax.Array:
    """The values, all NaN where a traced pattern has more entries than its capacity."""
    if not is_traced(pattern.indptr) or not jnp.issubdtype(values.dtype, jnp.inexact):
        return values
    return jnp.where(pattern.indptr[-1] > pattern.nse, jnp.asarray(jnp.nan, values.dtype), values)


def _module(pattern: Pattern, values: jax.Array) -> Any:
    traced = any(is_traced(a) for a in (values, pattern.indptr, pattern.indices))
    return jnp if traced else np
