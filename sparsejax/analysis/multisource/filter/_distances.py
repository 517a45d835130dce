"""Every pair of sources in one batched computation, in chunks that fit memory."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from sparsejax.analysis.multisource.filter import _fits
from sparsejax.analysis.multisource.filter._stack import Stack, stack_sources

_LANE_BYTES = 256 * 2**10  # of the features of the pairs that are fitted side by side: they should stay in cache
_CHUNK = 64  # pairs of one call, about

# Name, function of (stack, pair, *options), pairs, options.
PairFit = tuple[str, Callable[..., _fits.PairDistance], np.ndarray, tuple[Any, ...]]
Progress = Callable[[str, int, int], Any]


class Distances(NamedTuple):
    """Matrices over pairs of sources, float64[N, N], symmetric with a zero diagonal.

    Attributes:
      discrepancy: in [0, 1].
      disparity: in [0, 1], or in [0, 2] if signed.
      disbalance: in [0, 1].
      converged: whether every fit behind an entry converged, bool[N, N].
      n_iter: iterations of the longest fit behind an entry, int[N, N].
    """

    discrepancy: np.ndarray
    disparity: np.ndarray
    disbalance: np.ndarray
    converged: np.ndarray
    n_iter: np.ndarray


def distances(
    X: np.ndarray,
    y: np.ndarray,
    a: np.ndarray,
    source: np.ndarray,
    *,
    signed: bool,
    max_iter: int,
    tol: float,
    batch_size: int | None,
    n_jobs: int | None,
    progress: Progress | None = None,
) -> Distances:
    """Estimate discrepancy, disparity and disbalance of every pair.

    Arguments are as in `Sources` and `FLEA`. A source that lacks a group has the largest possible disparity to every
    other one: its fairness cannot be estimated.
    """
    count = int(source.max()) + 1
    upper = np.array(list(itertools.combinations(range(count), 2)))
    pairs = upper if signed else np.array(list(itertools.permutations(range(count), 2)))
    with jax.enable_x64(True):
        stack = stack_sources(X, y, a, source)
    fits: list[tuple[Any, ...]] = [("discrepancy", _fits.discrepancy, upper, ())]
    if signed:
        fits.append(("disparity", _fits.signed_disparity, pairs, ()))
    else:
        fits.append(("disparity", _fits.absolute_disparity, pairs, (max_iter, tol)))
    disc, disp = _every(fits, stack, batch_size, n_jobs, progress)
    matrices = [_symmetric(count, pairs, values) for values in disp]
    first = [_symmetric(count, upper, values) for values in disc]
    share = np.bincount(source, a) / np.bincount(source)
    one_group = (share == 0) | (share == 1)
    disparity = np.where(one_group[:, None] | one_group, 2.0 if signed else 1.0, matrices[0])
    np.fill_diagonal(disparity, 0)
    return Distances(
        first[0],
        disparity,
        np.abs(share[:, None] - share),
        ~(first[1] | matrices[1]).astype(bool),
        np.maximum(first[2], matrices[2]),
    )


def _lanes(stack: Stack, batch_size: int | None) -> int:
    if batch_size is None:
        batch_size = max(1, _LANE_BYTES // (2 * stack.X[0].size * stack.X.itemsize))
    return min(batch_size, _CHUNK)


def _symmetric(count: int, pairs: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the elementwise maximum of the matrix and its transpose, 0 on the diagonal."""
    matrix = np.zeros((count, count), values.dtype)
    matrix[tuple(pairs.T)] = values
    return np.maximum(matrix, matrix.T)


@functools.partial(jax.jit, static_argnames=("fit", "lanes"))
def _fit_chunk(
    fit: Callable[..., _fits.PairDistance], stack: Stack, pairs: jax.Array, options: tuple[Any, ...], lanes: int
) -> _fits.PairDistance:
    # A batch of one would be computed by products with a batch axis, which are slower.
    return jax.lax.map(lambda pair: fit(stack, pair, *options), pairs, batch_size=lanes if lanes > 1 else None)


def _every(
    fits: Sequence[PairFit], stack: Stack, batch_size: int | None, n_jobs: int | None, progress: Progress | None
) -> list[list[np.ndarray]]:
    """Return values, failures and iterations of every pair, for each fit."""
    import joblib

    lanes = _lanes(stack, batch_size)

    def run(fit: PairFit, chunk: np.ndarray) -> _fits.PairDistance:
        _, function, pairs, options = fit
        side = min(lanes, len(pairs))
        size = -(-min(_CHUNK, len(pairs)) // side) * side
        full = np.concatenate([chunk, np.repeat(chunk[:1], size - len(chunk), axis=0)])  # the shape that was compiled
        with jax.enable_x64(True):  # which holds for a thread
            values = jax.device_get(_fit_chunk(function, stack, full, options, side))
        return jax.tree.map(lambda leaf: leaf[: len(chunk)], values)

    size = -(-_CHUNK // lanes) * lanes
    chunks = [(fit, start) for fit in fits for start in range(0, len(fit[2]), size)]
    # The first chunk of each fit compiles its program, which the others reuse.
    chunks.sort(key=lambda chunk: chunk[1] > 0)
    by_fit: dict[str, list[Any]] = {fit[0]: [] for fit in fits}
    for part in (chunks[: len(fits)], chunks[len(fits) :]):
        jobs = [joblib.delayed(run)(fit, fit[2][start : start + size]) for fit, start in part]
        results = joblib.Parallel(n_jobs, require="sharedmem", return_as="generator")(jobs)
        for ((name, _, pairs, _), start), result in zip(part, results, strict=True):
            by_fit[name].append(result)
            if progress is not None:
                progress(name, min(start + size, len(pairs)), len(pairs))
    joined = [[np.concatenate(leaves) for leaves in zip(*by_fit[fit[0]], strict=True)] for fit in fits]
    return [[value, ~good, steps] for value, good, steps in joined]


def pairwise_discrepancy(X: np.ndarray, y: np.ndarray, a: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Return the discrepancy of every pair, float64[N, N], without the other distances."""
    count = int(source.max()) + 1
    with jax.enable_x64(True):
        stack = stack_sources(X, y, a, source)
    pairs = np.array(list(itertools.combinations(range(count), 2)))
    ((value, _, _),) = _every([("discrepancy", _fits.discrepancy, pairs, ())], stack, None, -1, None)
    return _symmetric(count, pairs, value)
