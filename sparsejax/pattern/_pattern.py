"""``SparsityPattern``: the topology of a sparse kernel, separate from its values."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax._checks import fail
from sparsejax._compat import is_traced
from sparsejax._typing import ArrayLike
from sparsejax.pattern import _build, _dense, _interchange, _validate
from sparsejax.pattern._limits import check_nse, check_size

if TYPE_CHECKING:
    import scipy.sparse
    from jax.experimental.sparse import BCSR

ARRAYS = ("indptr", "indices", "indptr_t", "indices_t", "perm_t")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class SparsityPattern:
    """Which entries of a kernel are stored, in both orientations.

    A kernel of shape ``(in, out)`` or ``(*window, in // groups, out)`` is read as a matrix with one row per output
    and one column per remaining position, in row-major order: ``columns = prod(shape[:-1])``, ``rows = shape[-1]``.
    The forward product walks rows; the input gradient walks columns. Entries of a row are sorted and unique.

    Attributes:
      indptr: int32[rows + 1], first entry of each row.
      indices: int32[nse], column of each entry.
      indptr_t: int32[columns + 1], first entry of each column.
      indices_t: int32[nse], row of each entry, in column order; int32[0] after ``forward_only``.
      perm_t: int32[nse], position in ``data`` of each entry, in column order; int32[0] after ``forward_only``.
      shape: the kernel's shape; static.

    ``nse`` is a static capacity. Entries at and past ``indptr[-1]`` are padding: kernels ignore them and their
    gradient is zero, so a topology can change without recompiling as long as it fits. A mask of more entries than that
    is an error, but under ``jit``, where none can be raised, ``gather`` and ``scatter`` give NaN and the kernels refuse
    the pattern when they run; ``pattern.indptr[-1] <= pattern.nse`` says whether it fits.

    Patterns are equal if shape, capacity and all index arrays are, and hash by these, so a concrete pattern can be a
    static argument of ``jit``; comparing or hashing a traced one is a TypeError. ``flax.serialization`` takes patterns
    as it takes modules (with ``sparsejax`` imported).

    Limits: indices are int32, so a kernel has at most 2^31 - 1 weights, stored or not. Capacity, rows and columns
    may pass the number of weights of the kernel only up to 2^24: the index arrays take
    ``4 * (3 * nse + rows + columns + 2)`` bytes, be the entries used or not.
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
        """Return the pattern of the true entries of a boolean mask.

        Args:
          mask: bool array of the kernel's shape, two or more axes; true keeps the entry.
          nse: capacity; the number of true entries if absent. Required when ``mask`` is traced.

        Raises:
          ValueError: the mask is not boolean, has fewer than two axes, or more than ``nse`` entries; or sizes or
            capacity pass the limits of the class.
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
        """Return the pattern of the entries of ``kernel`` that are not zero; its values: ``pattern.gather(kernel)``."""
        check_size("SparsityPattern.from_dense", "kernel", tuple(np.shape(kernel)))
        kernel = kernel if is_traced(kernel) else np.asarray(kernel)
        return cls.from_mask(kernel != 0, nse)

    @classmethod
    def from_scipy(cls, matrix: scipy.sparse.sparray | scipy.sparse.spmatrix) -> tuple[jax.Array, SparsityPattern]:
        """Return ``(data, pattern)`` of a SciPy sparse matrix of shape ``(in, out)``; stored zeros stay stored."""
        data, arrays, shape = _interchange.from_scipy(matrix)
        return data, cls(*arrays, shape=shape)

    @classmethod
    def from_bcsr(cls, matrix: BCSR) -> tuple[jax.Array, SparsityPattern]:
        """Return ``(data, pattern)`` of an unbatched ``jax.experimental.sparse.BCSR`` of shape ``(in, out)``."""
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

    def __eq__(self, other: object) -> bool:
        """Whether the other is a pattern of the same shape, capacity and entries; TypeError where one is traced."""
        if self is other:
            return True
        if not isinstance(other, SparsityPattern):
            return NotImplemented
        return self._content == other._content

    def __hash__(self) -> int:
        """Hash of shape, capacity and entries; TypeError where the arrays are traced."""
        return hash(self._content)

    @functools.cached_property
    def _content(self) -> tuple[Any, ...]:
        """Shape, and a digest of the arrays: what two equal patterns have in common."""
        leaves = [getattr(self, name) for name in ARRAYS]
        if any(is_traced(leaf) for leaf in leaves):
            hint = "Compare or hash patterns outside jit; a pattern that is a static argument must be concrete."
            fail("SparsityPattern", "pattern", "traced arrays", "concrete ones", hint, TypeError)
        if not all(isinstance(leaf, (jax.Array, np.ndarray)) for leaf in leaves):
            return (self.shape, *leaves)  # placeholders of a tree map, such as None or shapes
        digest = hashlib.blake2b(digest_size=32)
        for array in map(np.asarray, leaves):
            digest.update(f"{array.dtype}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return self.shape, digest.digest()

    def row_of_entry(self) -> jax.Array:
        """Return int32[nse]: the row of each entry; ``rows`` for padding."""
        return _dense.row_of_entry(self, jnp)

    def mask(self) -> jax.Array:
        """Return a bool array of ``shape``, true where an entry is stored."""
        return _dense.scatter(self, jnp.ones((self.nse,), jnp.bool_))

    def gather(self, kernel: ArrayLike) -> jax.Array:
        """Return the values of a dense kernel at the stored entries: ``data[nse]``, zero in the padding."""
        dense = _as_array(kernel)
        if dense.shape != self.shape:
            fail("SparsityPattern.gather", "kernel", f"shape {dense.shape}", f"shape {self.shape}")
        return _dense.gather(self, dense)

    def scatter(self, data: ArrayLike) -> jax.Array:
        """Return the dense kernel of ``shape`` with ``data[nse]`` at the stored entries and zeros elsewhere."""
        values = _as_array(data)
        if values.shape != (self.nse,):
            fail("SparsityPattern.scatter", "data", f"shape {values.shape}", f"shape ({self.nse},)")
        return _dense.scatter(self, values)

    def pad_to(self, nse: int) -> SparsityPattern:
        """Return the same pattern with capacity ``nse``, not below the present one.

        Raises:
          ValueError: ``nse`` is below the present capacity, or passes the limits of the class.
        """
        if nse < self.nse:
            fail("SparsityPattern.pad_to", "nse", f"value {nse}", f"at least the present capacity {self.nse}")
        check_nse("SparsityPattern.pad_to", nse, self.shape)
        extra = nse - self.nse
        zeros = jnp.zeros((extra,), jnp.int32)
        padded = dataclasses.replace(self, indices=jnp.concatenate([self.indices, zeros]))
        if self.is_forward_only:
            return padded
        return dataclasses.replace(
            padded,
            indices_t=jnp.concatenate([self.indices_t, zeros]),
            perm_t=jnp.concatenate([self.perm_t, jnp.arange(self.nse, nse, dtype=jnp.int32)]),
        )

    @property
    def is_forward_only(self) -> bool:
        """Whether ``indices_t`` and ``perm_t`` are left out; see ``forward_only``."""
        return np.shape(self.indices_t) == (0,) and self.nse > 0

    def forward_only(self) -> SparsityPattern:
        """Return the pattern for inference, without ``indices_t`` and ``perm_t``: 4 bytes per entry instead of 12.

        Everything works as before. What needs the transposed orientation, such as the gradient of an input, derives it
        by a sort in every call, so train with the whole pattern.

        >>> p = SparsityPattern.from_mask(jnp.eye(2, dtype=bool)).forward_only()
        >>> p.indices.shape, p.indices_t.shape
        ((2,), (0,))
        """
        none = jnp.zeros((0,), jnp.int32)
        return dataclasses.replace(self, indices_t=none, perm_t=none)

    def validate(self) -> SparsityPattern:
        """Check every array on the host and return the pattern.

        Raises:
          ValueError: naming the first array that is wrong, what it holds and what was expected: lengths, dtypes,
            monotone pointers, indices in range, sorted and unique in each row, and agreement of both orientations.
        """
        _validate.validate(self)
        return self

    def to_scipy(self, data: ArrayLike) -> scipy.sparse.csc_array:
        """Return a SciPy matrix of shape ``(in, out)`` (two-axis kernels only); shares the row orientation."""
        return _interchange.to_scipy(self, data)

    def to_bcsr(self, data: ArrayLike) -> BCSR:
        """Return a ``jax.experimental.sparse.BCSR`` of shape ``(in, out)`` (two-axis kernels only)."""
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
    check_size(name, "mask", tuple(mask.shape))
    if nse is not None:
        check_nse(name, nse, tuple(mask.shape))
    return mask


def _has_nan(mask: Any) -> bool:
    if is_traced(mask) or not jnp.issubdtype(mask.dtype, jnp.inexact):
        return False
    return bool(np.isnan(np.asarray(mask, np.float32)).any())
