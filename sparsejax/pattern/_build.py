"""From a mask to the index arrays of a pattern: on the host in C++, or under ``jit`` with a fixed capacity."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax._checks import fail
from sparsejax._native import ffi


class PatternArrays(NamedTuple):
    """The five index arrays; int32. What follows ``indptr[-1]`` is padding: index 0, in ``perm_t`` the position."""

    indptr: jax.Array
    indices: jax.Array
    indptr_t: jax.Array
    indices_t: jax.Array
    perm_t: jax.Array


class Pattern(Protocol):
    """What the functions of this package need of a ``SparsityPattern``, which is built on top of them."""

    @property
    def indptr(self) -> jax.Array: ...
    @property
    def indices(self) -> jax.Array: ...
    @property
    def indptr_t(self) -> jax.Array: ...
    @property
    def indices_t(self) -> jax.Array: ...
    @property
    def perm_t(self) -> jax.Array: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def rows(self) -> int: ...
    @property
    def columns(self) -> int: ...
    @property
    def nse(self) -> int: ...
    @property
    def is_forward_only(self) -> bool: ...


def build_on_host(mask: np.ndarray, nse: int | None) -> PatternArrays:
    """Return the index arrays of a concrete mask of shape ``(columns, rows)``, in two passes over it."""
    count = int(np.count_nonzero(mask))
    if nse is None:
        nse = count
    if nse < count:
        fail("SparsityPattern.from_mask", "mask", f"{count} entries", f"at most nse = {nse}")
    arrays = ffi.build_pattern(np.ascontiguousarray(mask), nse)
    return PatternArrays(*(jnp.asarray(a) for a in arrays))


def build_traced(mask: jax.Array, nse: int) -> PatternArrays:
    """Return the same arrays, computed inside a transformation, where only the capacity ``nse`` is static.

    A mask with more than ``nse`` entries cannot raise here. Its ``indptr`` keeps the true counts, so every kernel
    refuses the pattern when it runs ("indptr has last element 37; expected at most nse = 32."), and ``gather`` and
    ``scatter`` give NaN.
    """
    if mask.size == 0:  # known without its values
        return build_on_host(np.zeros(mask.shape, bool), nse)
    columns, rows = mask.shape
    by_row = mask.T.ravel()
    position = jnp.cumsum(by_row, dtype=jnp.int32) - 1  # where each entry, in row order, stands in `data`
    total = position[-1] + 1
    padding = jnp.arange(nse, dtype=jnp.int32) >= total

    (flat,) = jnp.nonzero(by_row, size=nse, fill_value=0)
    (flat_t,) = jnp.nonzero(mask.ravel(), size=nse, fill_value=0)
    column_t, row_t = flat_t // rows, flat_t % rows
    perm_t = position[row_t * columns + column_t]
    return PatternArrays(
        indptr=_pointers(mask.sum(axis=0, dtype=jnp.int32)),
        indices=jnp.where(padding, 0, flat % columns).astype(jnp.int32),
        indptr_t=_pointers(mask.sum(axis=1, dtype=jnp.int32)),
        indices_t=jnp.where(padding, 0, row_t).astype(jnp.int32),
        perm_t=jnp.where(padding, jnp.arange(nse, dtype=jnp.int32), perm_t),
    )


def both_orientations(
    indptr: jax.Array, indices: jax.Array, indptr_t: jax.Array, indices_t: jax.Array, perm_t: jax.Array
) -> PatternArrays:
    """Return the index arrays with those of the transposed orientation derived by a sort, where they are left out."""
    if indices_t.shape == indices.shape:
        return PatternArrays(indptr, indices, indptr_t, indices_t, perm_t)
    position = jnp.arange(indices.shape[0], dtype=jnp.int32)
    padding = position >= indptr[-1]
    row = jnp.searchsorted(indptr, position, side="right").astype(jnp.int32) - 1
    last = jnp.iinfo(jnp.int32).max
    perm = jnp.argsort(jnp.where(padding, last, indices), stable=True).astype(jnp.int32)
    return PatternArrays(indptr, indices, indptr_t, jnp.where(padding, 0, row[perm]), perm)


def _pointers(counts: jax.Array) -> jax.Array:
    return jnp.concatenate([jnp.zeros((1,), jnp.int32), jnp.cumsum(counts, dtype=jnp.int32)])
