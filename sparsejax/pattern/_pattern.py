"""``SparsityPattern``: the topology of a sparse kernel, separate from its values."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax._checks import fail
from sparsejax._compat import is_traced
from sparsejax._typing import ArrayLike
from sparsejax.pattern import _build, _dense, _interchange, _validate

if TYPE_CHECKING:
    import scipy.sparse
    from jax.experimental.sparse import BCSR

MAX_SIZE = 2**31 - 1


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SparsityPattern:
    """Which entries of a kernel are stored, in both orientations.

    A kernel of shape ``(in, out)`` or ``(*window, in // groups, out)`` is read as a matrix with one row per output
    and one column per remaining position, in row-major order: ``columns = prod(shape[:-1])``, ``rows = shape[-1]``.
    The forward product walks rows; the input gradient walks columns. Entries of a row are sorted and unique.

    Attributes:
      indptr: int32[rows + 1], first entry of each row.
      indices: int32[nse], column of each entry.
      indptr_t: int32[columns + 1], first entry of each column.
      indices_t: int32[nse], row of each entry, in column order.
      perm_t: int32[nse], position in ``data`` of each entry, in column order.
      shape: the kernel's shape; static.

    ``nse`` is a static capacity. Entries at and past ``indptr[-1]`` are padding: kernels ignore them and their
    gradient is zero, so a topology can change without recompiling as long as it fits.
    Source: compressed sparse rows as in SciPy; both orientations as in Nikdan et al. 2023 (SparseProp), section 3,
    which stores one and scatters through it.

    >>> p = SparsityPattern.from_mask(jnp.array([[True, False], [True, True]]))
    >>> p.shape, p.nse, p.sparsity
    ((2, 2), 3, 0.25)
    >>> p.indptr.tolist(), p.indices.tolist()
    ([0, 2, 3], [0, 1, 1])
    """

    indptr: jax.Array
    indices: jax.Array
    indptr_t: jax.Array
    indices_t: jax.Array
    perm_t: jax.Array
    shape: tuple[int, ...] = dataclasses.field(metadata={"static": True})

    @classmethod
    def from_mask(cls, mask: ArrayLike, nse: int | None = None) -> SparsityPattern:
        """The pattern of the true entries of a boolean mask.

        Args:
          mask: bool array of the kernel's shape, two or more axes; true keeps the entry.
          nse: capacity; the number of true entries if absent. Required when ``mask`` is traced.

        Raises:
          ValueError: the mask is not boolean, has fewer than two axes, or holds more than ``nse`` entries.
        """
        keep = _checked_mask(mask, nse)
        shape = tuple(keep.shape)
        matrix = (math.prod(shape[:-1]), shape[-1])
        if is_traced(keep):
            if nse is None:
                fail("SparsityPattern.from_mask", "nse", "no value", "a capacity, because the mask is traced")
            arrays = _build.build_traced(keep.reshape(matrix), nse)
        else:
            arrays = _build.build_on_host(np.asarray(keep).reshape(matrix), nse)
        return cls(*arrays, shape=shape)

    @classmethod
    def from_dense(cls, kernel: ArrayLike, nse: int | None = None) -> SparsityPattern:
        """The pattern of the entries of ``kernel`` that are not zero; its values are ``pattern.gather(kernel)``."""
        kernel = kernel if is_traced(kernel) else np.asarray(kernel)
        return cls.from_mask(kernel != 0, nse)

    @classmethod
    def from_scipy(cls, matrix: scipy.sparse.sparray | scipy.sparse.spmatrix) -> tuple[jax.Array, SparsityPattern]:
        """``(data, pattern)`` of a SciPy sparse matrix of shape ``(in, out)``; stored zeros stay stored."""
        data, arrays, shape = _interchange.from_scipy(matrix)
        return data, cls(*arrays, shape=shape)

    @classmethod
    def from_bcsr(cls, matrix: BCSR) -> tuple[jax.Array, SparsityPattern]:
        """``(data, pattern)`` of an unbatched ``jax.experimental.sparse.BCSR`` of shape ``(in, out)``."""
        data, arrays, shape = _interchange.from_bcsr(matrix)
        return data, cls(*arrays, shape=shape)

    @property
    def rows(self) -> int:
        """Number of outputs, ``shape[-1]``."""
        return self.shape[-1]

    @property
    def columns(self) -> int:
        """Number of kernel positions of one output, ``prod(shape[:-1])``."""
        return math.prod(self.shape[:-1])

    @property
    def nse(self) -> int:
        """Number of stored entries, padding included: the length of ``data``."""
        return self.indices.shape[0]

    @property
    def sparsity(self) -> float:
        """Fraction of the kernel that is not stored, in [0, 1]; reads ``indptr``, so not inside ``jit``."""
        size = self.rows * self.columns
        return 1.0 - int(self.indptr[-1]) / size if size else 0.0

    def row_of_entry(self) -> jax.Array:
        """int32[nse]: the row of each entry; ``rows`` for padding."""
        return _dense.row_of_entry(self, jnp)

    def mask(self) -> jax.Array:
        """bool array of ``shape``, true where an entry is stored."""
        return _dense.scatter(self, jnp.ones((self.nse,), jnp.bool_))

    def gather(self, kernel: ArrayLike) -> jax.Array:
        """Values of a dense kernel at the stored entries: ``data[nse]``, zero in the padding."""
        dense = _as_array(kernel)
        if dense.shape != self.shape:
            fail("SparsityPattern.gather", "kernel", f"shape {dense.shape}", f"shape {self.shape}")
        return _dense.gather(self, dense)

    def scatter(self, data: ArrayLike) -> jax.Array:
        """Dense kernel of ``shape`` with ``data[nse]`` at the stored entries and zeros elsewhere."""
        values = _as_array(data)
        if values.shape != (self.nse,):
            fail("SparsityPattern.scatter", "data", f"shape {values.shape}", f"shape ({self.nse},)")
        return _dense.scatter(self, values)

    def pad_to(self, nse: int) -> SparsityPattern:
        """The same pattern with capacity ``nse``, not below the present one."""
        if nse < self.nse:
            fail("SparsityPattern.pad_to", "nse", f"value {nse}", f"at least the present capacity {self.nse}")
        extra = nse - self.nse
        zeros = jnp.zeros((extra,), jnp.int32)
        return dataclasses.replace(
            self,
            indices=jnp.concatenate([self.indices, zeros]),
            indices_t=jnp.concatenate([self.indices_t, zeros]),
            perm_t=jnp.concatenate([self.perm_t, jnp.arange(self.nse, nse, dtype=jnp.int32)]),
        )

    def validate(self) -> SparsityPattern:
        """Check every array on the host and return the pattern.

        Raises:
          ValueError: naming the first array that is wrong, what it holds and what was expected: lengths, dtypes,
            monotone pointers, indices in range, sorted and unique in each row, and agreement of both orientations.
        """
        _validate.validate(self)
        return self

    def to_scipy(self, data: ArrayLike) -> scipy.sparse.csc_array:
        """SciPy matrix of shape ``(in, out)`` (two-axis kernels only); shares the row orientation."""
        return _interchange.to_scipy(self, data)

    def to_bcsr(self, data: ArrayLike) -> BCSR:
        """``jax.experimental.sparse.BCSR`` of shape ``(in, out)`` (two-axis kernels only)."""
        return _interchange.to_bcsr(self, data)

    def __repr__(self) -> str:
        """Shape and capacity, and the sparsity where the arrays are concrete."""
        try:
            detail = f", sparsity={self.sparsity:.4g}"
        except (jax.errors.ConcretizationTypeError, TypeError, AttributeError, IndexError):
            detail = ""  # traced, or leaves replaced by a tree map
        nse = getattr(self.indices, "shape", ("?",))[0]
        return f"SparsityPattern(shape={self.shape}, nse={nse}{detail})"


def _as_array(value: Any) -> Any:
    """The value itself if it is an array, NumPy's included, which stays on the host."""
    return value if hasattr(value, "dtype") else jnp.asarray(value)


def _checked_mask(mask: Any, nse: int | None) -> Any:
    """The mask, if it is a boolean array of two or more axes that a pattern of capacity ``nse`` can describe."""
    name = "SparsityPattern.from_mask"
    dtype = getattr(mask, "dtype", None)
    if dtype is None:
        fail(name, "mask", f"type {type(mask).__name__}", "an array")
    if dtype != np.bool_:
        nan = " with NaN entries" if _has_nan(mask) else ""
        fail(name, "mask", f"dtype {dtype}{nan}", "dtype bool", "Write mask != 0 if zeros mark pruned entries.")
    if mask.ndim < 2:
        fail(name, "mask", f"shape {tuple(mask.shape)}", "two or more axes, the last one the outputs")
    if mask.size > MAX_SIZE:
        fail(name, "mask", f"{mask.size} entries", f"at most {MAX_SIZE}, the range of int32 indices")
    if nse is not None and not 0 <= nse <= MAX_SIZE:
        fail(name, "nse", f"value {nse}", f"a capacity between 0 and {MAX_SIZE}")
    return mask


def _has_nan(mask: Any) -> bool:
    if is_traced(mask) or not jnp.issubdtype(mask.dtype, jnp.inexact):
        return False
    return bool(np.isnan(np.asarray(mask, np.float32)).any())
