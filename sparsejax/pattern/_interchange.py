"""SciPy and BCSR matrices to and from a pattern and its values."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax._checks import fail
from sparsejax.pattern._build import Pattern, PatternArrays, both_orientations
from sparsejax.pattern._limits import check_stored


def from_scipy(matrix: Any) -> tuple[jax.Array, PatternArrays, tuple[int, int]]:
    """Return values, index arrays and shape of a SciPy sparse matrix (in, out)."""
    if not hasattr(matrix, "tocsc"):
        fail("SparsityPattern.from_scipy", "matrix", f"type {type(matrix).__name__}", "a SciPy sparse array or matrix")
    check_stored("SparsityPattern.from_scipy", "matrix", tuple(matrix.shape), int(matrix.nnz))
    columns = matrix.tocsc(copy=True)
    columns.sum_duplicates()  # also sorts
    data = jnp.asarray(columns.data)
    return data, _both_orientations(columns), tuple(columns.shape)


def _both_orientations(by_output: Any) -> PatternArrays:
    """Arrays of a CSC matrix (in, out): its compressed columns are our rows."""
    import scipy.sparse

    position = scipy.sparse.csc_array(
        (np.arange(by_output.nnz, dtype=np.int64), by_output.indices, by_output.indptr), shape=by_output.shape
    ).tocsr()
    return PatternArrays(
        *(
            jnp.asarray(a, jnp.int32)
            for a in (by_output.indptr, by_output.indices, position.indptr, position.indices, position.data)
        )
    )


def to_scipy(pattern: Pattern, data: Any) -> Any:
    """Return a SciPy CSC array (in, out)."""
    import scipy.sparse

    data = np.asarray(data)
    _check_matrix(pattern, data, "to_scipy")
    total = int(pattern.indptr[-1])
    index = (np.asarray(pattern.indices)[:total], np.asarray(pattern.indptr))
    return scipy.sparse.csc_array((data[:total], *index), shape=pattern.shape)


def from_bcsr(matrix: Any) -> tuple[jax.Array, PatternArrays, tuple[int, int]]:
    """Return values, index arrays and shape of an unbatched BCSR matrix (in, out)."""
    import scipy.sparse
    from jax.experimental.sparse import BCSR

    if not isinstance(matrix, BCSR):
        fail("SparsityPattern.from_bcsr", "matrix", f"type {type(matrix).__name__}", "a BCSR matrix", error=TypeError)
    if matrix.n_batch or matrix.n_dense:
        axes = f"n_batch = {matrix.n_batch} and n_dense = {matrix.n_dense}"
        fail("SparsityPattern.from_bcsr", "matrix", axes, "0 and 0: no batch or dense axes")
    total = int(matrix.indptr[-1])
    host = scipy.sparse.csr_array(
        (np.asarray(matrix.data)[:total], np.asarray(matrix.indices)[:total], np.asarray(matrix.indptr)),
        shape=matrix.shape,
    )
    return from_scipy(host)


def to_bcsr(pattern: Pattern, data: Any) -> Any:
    """Return a BCSR matrix (in, out): the column orientation, with the values in its order."""
    from jax.experimental.sparse import BCSR

    data = jnp.asarray(data)
    _check_matrix(pattern, data, "to_bcsr")
    _, _, indptr_t, indices_t, perm_t = both_orientations(*(getattr(pattern, name) for name in PatternArrays._fields))
    return BCSR(
        (data[perm_t], indices_t, indptr_t),
        shape=pattern.shape,
        indices_sorted=True,
        unique_indices=True,
    )


def _check_matrix(pattern: Pattern, data: Any, method: str) -> None:
    name = f"SparsityPattern.{method}"
    if len(pattern.shape) != 2:
        fail(name, "pattern", f"shape {pattern.shape}", "two axes (in, out)")
    if data.shape != (pattern.nse,):
        fail(name, "data", f"shape {data.shape}", f"shape ({pattern.nse},)")
