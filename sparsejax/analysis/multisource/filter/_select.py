"""Which sources to keep, from a matrix of distances."""

from __future__ import annotations

import math
from numbers import Integral, Real

import jax
import numpy as np
from numpy.typing import ArrayLike

from sparsejax._checks import fail
from sparsejax.analysis._arrays import read_integer, read_numbers, refuse_missing


def number_to_keep(n_keep: int | float | None, count: int) -> int:
    """Return how many of ``count`` sources to keep.

    Args:
      n_keep: a number; a share in (0.5, 1], rounded up; or None for the smallest majority, floor(count / 2) + 1.

    Raises:
      ValueError: not above half of the sources, or above all. With half or fewer, sources that were manipulated
        alike may look as consistent as the clean ones.
    """
    if n_keep is None:
        return count // 2 + 1
    if isinstance(n_keep, (np.generic, np.ndarray, jax.Array)) and np.ndim(n_keep) == 0:
        n_keep = n_keep.item()
    if isinstance(n_keep, Integral) and not isinstance(n_keep, bool):
        keep = int(n_keep)
    elif isinstance(n_keep, Real) and not isinstance(n_keep, bool) and 0.5 < float(n_keep) <= 1:
        keep = math.ceil(float(n_keep) * count - 1e-9)
    else:
        fail("FLEA.fit", "n_keep", f"value {n_keep!r}", "a number of sources, a share in (0.5, 1], or None")
    if not count / 2 < keep <= count:
        fail("FLEA.fit", "n_keep", f"value {n_keep!r}", f"more than half of the {count} sources and at most all")
    return keep


def quantiles(scores: ArrayLike, keep: int) -> np.ndarray:
    """q_i: the ``keep``-th smallest entry of row i, the zero on the diagonal counted.

    Small means that a majority of the sources is close to source i.

    Raises:
      ValueError: not a square matrix of numbers, or ``keep`` out of range.
    """
    matrix, keep = _read_scores("quantiles", scores, keep)
    return np.sort(matrix, axis=1)[:, keep - 1]


def select_sources(scores: ArrayLike, keep: int, ties: str = "first") -> np.ndarray:
    """Indices of the kept sources, in order.

    Args:
      scores: distances, float[N, N], zero diagonal.
      keep: number of sources to keep.
      ties: "first" keeps exactly ``keep``, equal q in the order of the index; "all" keeps every source whose q is at
        most the ``keep``-th smallest.

    Raises:
      ValueError: not a square matrix of numbers, or an option out of range.

    Source: Iofinova et al. 2022, algorithm 1.

    >>> select_sources(np.array([[0.0, 0.1, 0.9], [0.1, 0.0, 0.8], [0.9, 0.8, 0.0]]), 2)
    array([0, 1])
    """
    if ties not in ("first", "all"):
        fail("select_sources", "ties", f"value {ties!r}", "'first' or 'all'")
    matrix, keep = _read_scores("select_sources", scores, keep)
    q = quantiles(matrix, keep)
    if ties == "all":
        return np.flatnonzero(q <= np.sort(q)[keep - 1])
    return np.sort(np.argsort(q, kind="stable")[:keep])


def _read_scores(function: str, scores: ArrayLike, keep: int) -> tuple[np.ndarray, int]:
    matrix = read_numbers(function, "scores", scores)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        fail(function, "scores", f"shape {matrix.shape}", "(N, N), one row and one column per source")
    refuse_missing(function, "scores", np.isnan(matrix), "a distance for every pair")
    return matrix, read_integer(function, "keep", keep, 1, len(matrix))
