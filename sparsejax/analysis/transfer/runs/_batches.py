"""One function on batches of one shape."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def map_batches(
    function: Callable[[jax.Array], Any], read: Callable[[np.ndarray], np.ndarray], count: int, batch_size: int
) -> Iterator[np.ndarray]:
    """Apply a function to batches of one shape, so that it is compiled once.

    The last batch is padded with zeros; the results of the padding are dropped.

    Args:
      function: of a batch, array[batch_size, ...]; returns an array with one entry per example.
      read: returns the examples with these row numbers, int[n] -> array[n, ...].
      count: examples in all.
      batch_size: examples per call; ``count`` if that is less.

    Yields:
      The results of each batch, on the host.

    >>> [part.tolist() for part in map_batches(lambda x: x + 1, lambda rows: 10 * rows, 3, 2)]
    [[1, 11], [21]]
    """
    size = min(batch_size, count)
    for start in range(0, count, size or 1):
        chunk = read(np.arange(start, min(start + size, count)))
        padding = np.zeros((size - len(chunk), *chunk.shape[1:]), chunk.dtype)
        yield np.asarray(function(jnp.asarray(np.concatenate([chunk, padding]))))[: len(chunk)]
