"""Host-side check of a pattern's arrays; kernels repeat only what memory safety needs."""

from __future__ import annotations

from typing import Any

import numpy as np

from sparsejax._checks import fail
from sparsejax.pattern._build import Pattern

_NAME = "SparsityPattern.validate"


def validate(pattern: Pattern) -> None:
    """Raise a ValueError naming the first array that is wrong."""
    arrays = {
        name: np.asarray(getattr(pattern, name)) for name in ("indptr", "indices", "indptr_t", "indices_t", "perm_t")
    }
    nse = arrays["indices"].shape[0] if arrays["indices"].ndim == 1 else -1
    lengths = {
        "indptr": pattern.rows + 1,
        "indices": nse,
        "indptr_t": pattern.columns + 1,
        "indices_t": 0 if pattern.is_forward_only else nse,
        "perm_t": 0 if pattern.is_forward_only else nse,
    }
    for name, array in arrays.items():
        if array.ndim != 1 or array.shape[0] != lengths[name]:
            fail(_NAME, name, f"shape {array.shape}", f"shape ({lengths[name] if nse >= 0 else 'nse'},)")
        if array.dtype != np.int32:
            fail(_NAME, name, f"dtype {array.dtype}", "dtype int32")
    _check_orientation("indptr", arrays["indptr"], "indices", arrays["indices"], pattern.columns, nse)
    if pattern.is_forward_only:
        counts = np.bincount(arrays["indices"][: arrays["indptr"][-1]], minlength=pattern.columns)
        if (np.diff(arrays["indptr_t"]) != counts).any() or arrays["indptr_t"][0] != 0:
            fail(_NAME, "indptr_t", "pointers that differ from the row orientation", "the entries of each column")
        return
    _check_orientation("indptr_t", arrays["indptr_t"], "indices_t", arrays["indices_t"], pattern.rows, nse)
    _check_agreement(arrays)


def _check_orientation(
    ptr_name: str, indptr: np.ndarray, idx_name: str, indices: np.ndarray, limit: int, nse: int
) -> None:
    if indptr[0] != 0:
        fail(_NAME, ptr_name, f"first element {indptr[0]}", "first element 0")
    step = np.diff(indptr.astype(np.int64))
    if (step < 0).any():
        at = int(np.argmax(step < 0))
        fail(_NAME, ptr_name, f"a decrease after element {at} ({indptr[at]} to {indptr[at + 1]})", "no decrease")
    if indptr[-1] > nse:
        fail(_NAME, ptr_name, f"last element {indptr[-1]}", f"at most nse = {nse}")
    used = indices[: indptr[-1]]
    bad = (used < 0) | (used >= limit)
    if bad.any():
        at = int(np.argmax(bad))
        fail(_NAME, idx_name, f"element {at} equal to {used[at]}", f"a value in [0, {limit})")
    if used.size:
        line = np.repeat(np.arange(len(step)), step)
        order = np.diff(used.astype(np.int64))
        unsorted = (order <= 0) & (np.diff(line) == 0)
        if unsorted.any():
            at = int(np.argmax(unsorted))
            what = "a duplicate" if order[at] == 0 else "an unsorted pair"
            where = f"{what} at elements {at} and {at + 1} ({used[at]}, {used[at + 1]})"
            fail(_NAME, idx_name, where, "increasing values within each row")


def _check_agreement(arrays: dict[str, Any]) -> None:
    """Both orientations list the same entries, and ``perm_t`` says which is which."""
    total, total_t = int(arrays["indptr"][-1]), int(arrays["indptr_t"][-1])
    if total != total_t:
        fail(_NAME, "indptr_t", f"last element {total_t}", f"{total}, the last element of indptr")
    perm = arrays["perm_t"][:total]
    if ((perm < 0) | (perm >= total)).any():
        fail(_NAME, "perm_t", "a value out of range", f"values in [0, {total})")
    row = np.repeat(np.arange(arrays["indptr"].size - 1), np.diff(arrays["indptr"]))
    column_t = np.repeat(np.arange(arrays["indptr_t"].size - 1), np.diff(arrays["indptr_t"]))
    if (row[perm] != arrays["indices_t"][:total]).any() or (arrays["indices"][perm] != column_t).any():
        fail(_NAME, "perm_t", "entries that differ from the row orientation", "the same entries in column order")
