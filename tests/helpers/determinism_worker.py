"""Prints the pool's size and a digest of the bits of products, batch norm and attention; run by test_determinism.py.

Usage: ``NPROC=THREADS python determinism_worker.py REPEATS``. XLA reads NPROC when its pool starts.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import sparsejax
from helpers.grid import ConvCase, make_pattern, normal
from sparsejax.kernels import Layout, attention, batch_norm

# Each is split into several tasks: blocks of the batch, parts of the rows, tiles of pixels, slots of the gradient. With
# the last matrix and convolution, several threads add to a slot, one tile or block after another.
MATRICES = (
    ("random", (300, 200), 1000, "float32"),
    ("random", (40, 3000), 33, "float64"),
    ("random", (500, 100), 257, "bfloat16"),
    ("random", (2000, 40), 600, "float32"),
    ("4 x 4", (480, 600), 300, "float32"),
    ("2 x 2", (480, 600), 70, "bfloat16"),
    *(("random", (900, 1000), batch, dtype) for batch, dtype in ((1, "float32"), (2, "bfloat16"), (5, "float64"))),
)
CONVOLUTIONS = (
    (ConvCase(64, (14, 14), 16, 24, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), (1, 1), 1), "float32"),
    (ConvCase(20, (15, 16), 16, 24, (3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1), (1, 1), 2), "float32"),
    (ConvCase(100, (28, 9), 6, 8, (5, 3), (1, 1), ((2, 2), (1, 1)), (1, 1), (1, 1), 1), "bfloat16"),
    (ConvCase(16, (7, 7), 128, 400, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), (1, 1), 1), "float32"),
)
# Channels that are a task each, with several runs; small ones that share a task; several parts of rows.
NORMS = (((64, 28, 28, 5), "float32"), ((33, 40, 400), "bfloat16"))
# Several blocks of queries and keys for each of several heads, which share keys.
ATTENTIONS = (((2, 150, 4, 16), "float32"), ((3, 300, 2, 24), "bfloat16"))


def outputs() -> list[np.ndarray]:
    """Forward and all gradients of every case."""
    results = []
    for kind, shape, batch, dtype in MATRICES:
        pattern, _ = make_pattern(kind, shape)
        f = lambda d, v, p=pattern: sparsejax.spmm(d, p, v)  # noqa: E731
        results += step(f, pattern.nse, (batch, shape[0]), dtype)
    for case, dtype in CONVOLUTIONS:
        pattern, _ = make_pattern("random", case.kernel_shape)
        f = lambda d, v, p=pattern, c=case: sparsejax.conv(d, p, v, **c.options)  # noqa: E731
        results += step(f, pattern.nse, (case.batch, *case.spatial, case.in_features), dtype)
    for (shape, dtype), layout in itertools.product(NORMS, Layout):
        norm = functools.partial(batch_norm, epsilon=1e-5, activation="relu", layout=layout)
        f = lambda r, v, n=norm: n(v, None, None, r.reshape(v.shape))[0]  # noqa: E731
        results += step(f, math.prod(shape), shape, dtype)
    for shape, dtype in ATTENTIONS:
        f = lambda k, q: attention(q, *(k.reshape(*q.shape[:2], 2, -1),) * 2, causal=True)  # noqa: E731
        results += step(f, 2 * math.prod(shape[:2]) * shape[3], shape, dtype)
    return results


def step(f: Callable[..., Any], nse: int, x: tuple[int, ...], dtype: str) -> list[np.ndarray]:
    """Value and gradients of a function of ``nse`` numbers and ``x``."""
    y, vjp = jax.vjp(f, jnp.asarray(normal(0, (nse,), dtype)), jnp.asarray(normal(1, x, dtype)))
    return [np.asarray(a) for a in (y, *vjp(jnp.asarray(normal(2, y.shape, dtype))))]


def pool_size() -> int:
    """Threads of XLA's pool for work within an operation."""
    names = [(task / "comm").read_text() for task in Path("/proc/self/task").iterdir()]
    return sum("XLAEigen" in name for name in names)


def main(repeats: int) -> None:
    """Run everything ``repeats`` times; the digests must be one."""
    digests = set()
    with jax.enable_x64(True):
        for _ in range(repeats):
            digest = hashlib.sha256()
            for array in outputs():
                digest.update(array.tobytes())
            digests.add(digest.hexdigest())
    print("threads", pool_size(), "digests", *digests)


if __name__ == "__main__":
    main(int(sys.argv[1]))
