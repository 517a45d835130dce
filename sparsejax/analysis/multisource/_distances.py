"""Every pair of sources in one batched computation, in chunks that fit memory."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from sparsejax.analysis.multisource import _bfgs, _fits
from sparsejax.analysis.multisource._stack import Stack, stack_sources

_CHUNK_BYTES = 64 * 2**20  # of the features of one chunk of pairs
_CHUNK_PAIRS = 256
_TICKS = 24  # function calls between two looks at which pairs are done

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
    progress: Progress | None = None,
) -> Distances:
    """Estimate discrepancy, disparity and disbalance of every pair.

    Arguments are as in `Sources` and `FLEA`. A source that lacks a group has the largest possible disparity to every
    other one: nothing can be said for it.
    """
    count = int(source.max()) + 1
    with jax.enable_x64(True):
        stack = stack_sources(X, y, a, source)
        size = _chunk(stack, batch_size)
        upper = np.array(list(itertools.combinations(range(count), 2)))
        disc = _convex("discrepancy", stack, upper, size, progress)
        if signed:
            disp = _convex("signed_disparity", stack, upper, size, progress)
            pairs = upper
        else:
            pairs = np.array(list(itertools.permutations(range(count), 2)))
            disp = _absolute(stack, pairs, size, max_iter, tol, progress)
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


def _chunk(stack: Stack, batch_size: int | None) -> int:
    pairs = len(stack.X) * (len(stack.X) - 1)
    if batch_size is None:
        batch_size = min(_CHUNK_PAIRS, _CHUNK_BYTES // (2 * stack.X[0].size * stack.X.itemsize))
    return max(1, min(batch_size, pairs))


def _symmetric(count: int, pairs: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Elementwise maximum of the matrix and its transpose, 0 on the diagonal."""
    matrix = np.zeros((count, count), values.dtype)
    matrix[tuple(pairs.T)] = values
    return np.maximum(matrix, matrix.T)


@functools.partial(jax.jit, static_argnames="name")
def _convex_chunk(stack: Stack, pairs: jax.Array, name: str) -> _fits.Value:
    return jax.vmap(functools.partial(getattr(_fits, name), stack))(pairs)


@functools.partial(jax.jit, static_argnames="tol")
def _begin_chunk(stack: Stack, pairs: jax.Array, tol: float) -> _bfgs.State:
    return jax.vmap(lambda pair: _fits.begin_disparity(stack, pair, tol))(pairs)


@functools.partial(jax.jit, static_argnames=("max_iter", "tol"))
def _advance_chunk(stack: Stack, pairs: jax.Array, state: _bfgs.State, max_iter: int, tol: float) -> _bfgs.State:
    return jax.vmap(lambda pair, s: _fits.advance_disparity(stack, pair, s, _TICKS, max_iter, tol))(pairs, state)


@jax.jit
def _value_chunk(stack: Stack, pairs: jax.Array, theta: jax.Array) -> jax.Array:
    return jax.vmap(functools.partial(_fits.absolute_disparity, stack))(pairs, theta)


def _convex(name: str, stack: Stack, pairs: np.ndarray, size: int, progress: Progress | None) -> list[np.ndarray]:
    """Values, failures and iterations of one of the convex fits, for every pair."""
    size = min(size, len(pairs))
    parts = []
    for start in range(0, len(pairs), size):
        lanes = _lanes(np.arange(start, min(start + size, len(pairs))), size)
        part = jax.device_get(_convex_chunk(stack, pairs[lanes], name))
        parts.append([leaf[: len(pairs) - start] for leaf in part])
        _report(progress, name, min(start + size, len(pairs)), len(pairs))
    value, good, steps = (np.concatenate(leaves) for leaves in zip(*parts, strict=True))
    return [value, ~good, steps]


def _absolute(
    stack: Stack, pairs: np.ndarray, size: int, max_iter: int, tol: float, progress: Progress | None
) -> list[np.ndarray]:
    """Values, failures and iterations of the absolute disparity of every ordered pair.

    Fits take from ten to hundreds of iterations. After each round the pairs that are done leave, and the rest are
    packed into full chunks again, so that no lane waits for the slowest pair.
    """
    lanes = [_lanes(part, size) for part in _split(np.arange(len(pairs)), size)]
    states = [jax.device_get(_begin_chunk(stack, pairs[lane], tol)) for lane in lanes]
    state = jax.tree.map(lambda *leaves: np.concatenate(leaves)[: len(pairs)].copy(), *states)
    while not state.done.all():
        for part in _split(np.flatnonzero(~state.done), size):
            lane = _lanes(part, size)
            old = jax.tree.map(lambda leaf, lane=lane: leaf[lane], state)
            new = jax.device_get(_advance_chunk(stack, pairs[lane], old, max_iter, tol))
            for leaf, moved in zip(state, new, strict=True):
                leaf[part] = moved[: len(part)]
        _report(progress, "disparity", int(state.done.sum()), len(pairs))
    value = np.concatenate([np.asarray(_value_chunk(stack, pairs[lane], state.x[lane])) for lane in lanes])[
        : len(pairs)
    ]
    good = np.asarray(np.abs(state.grad).max(1) <= tol)
    return [value, ~good, state.n_iter]


def _split(indices: np.ndarray, size: int) -> list[np.ndarray]:
    return [indices[start : start + size] for start in range(0, len(indices), size)]


def _lanes(indices: np.ndarray, size: int) -> np.ndarray:
    """Repeat the first index until the chunk is full: every chunk has the shape that was compiled."""
    return np.concatenate([indices, np.full(size - len(indices), indices[0])])


def _report(progress: Progress | None, name: str, done: int, total: int) -> None:
    if progress is not None:
        progress(name, done, total)


def pairwise_discrepancy(X: np.ndarray, y: np.ndarray, a: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Discrepancy of every pair, float64[N, N], without the other distances."""
    count = int(source.max()) + 1
    with jax.enable_x64(True):
        stack = stack_sources(X, y, a, source)
        pairs = np.array(list(itertools.combinations(range(count), 2)))
        return _symmetric(count, pairs, _convex("discrepancy", stack, pairs, _chunk(stack, None), None)[0])
