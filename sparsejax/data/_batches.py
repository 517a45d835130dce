"""Shuffled minibatches that can be replayed from any epoch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sparsejax._checks import fail


def batches(
    images: np.ndarray,
    labels: np.ndarray,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    drop_last: bool = False,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Iterate once over the examples in an order that depends on (seed, epoch, number of examples) only.

    So a run that is resumed at epoch e sees what the uninterrupted run saw, without replaying epochs before
    it.

    Args:
      images: array[N, ...].
      labels: array[N, ...].
      batch_size: examples per batch, at least 1.
      seed: seed of the run, at least 0.
      epoch: which pass over the data, from 0.
      drop_last: leave out the last batch when it is short (N mod batch_size examples, other ones each
        epoch), so that every batch has the same shape. By default it is kept and no example is dropped.

    Returns:
      An iterator over (images, labels) pairs of ceil(N / batch_size) batches, floor with ``drop_last``.

    Raises:
      ValueError: counts that disagree, a batch size below 1 or, with ``drop_last``, above N (there would be
        no batch at all), a negative seed or epoch. Raised by the call, not by the first step of the
        iterator.

    >>> x = np.arange(5)
    >>> sorted(np.concatenate([labels for _, labels in batches(x, x, 2, seed=0, epoch=0)]).tolist())
    [0, 1, 2, 3, 4]
    """
    count = len(images)
    if len(labels) != count:
        fail("batches", "labels", f"{len(labels)} elements", f"{count}, as many as images")
    if batch_size < 1 or (drop_last and batch_size > count):
        rule = f"1 to {count}" if drop_last else "at least 1"
        fail("batches", "batch_size", f"value {batch_size}", rule)
    for operand, value in (("seed", seed), ("epoch", epoch)):
        if value < 0:
            fail("batches", operand, f"value {value}", "at least 0")
    order = epoch_order(seed, epoch, count)
    stop = count - count % batch_size if drop_last else count
    starts = range(0, stop, batch_size)
    chosen = (order[start : start + batch_size] for start in starts)
    return ((images[index], labels[index]) for index in chosen)


def epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    """Return the order int64[count] of the examples in a pass over the data, a function of its arguments alone."""
    return np.random.default_rng((seed, epoch)).permutation(count)
