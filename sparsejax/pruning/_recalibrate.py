"""Batch statistics, estimated anew after the weights have changed by a pruning."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp

from sparsejax._checks import fail
from sparsejax.pruning._leaves import PyTree

# Larger than statistics are, and half precision can hold it.
_FAR = 1024.0


def recalibrate(update: Callable[[Any, Any], Any], statistics: PyTree, batches: Iterable[Any]) -> PyTree:
    """Replace the running statistics of batch norms by the mean of those of some batches.

    s <- mean over batches b of s_b,  where a forward pass in training mode does s <- r * s + (1 - r) * s_b

    A network pruned without training afterwards, or one whose mask was chosen anew after its last step, has running
    statistics of another network: judge its accuracy after this. Not done by any method here, as it is not by the
    authors of AC/DC.

    Args:
      update: ``(statistics, batch) -> statistics``, a forward pass in training mode of the pruned network. Linen:
        ``lambda s, x: model.apply({"params": p, "batch_stats": s}, x, mutable=["batch_stats"])[1]["batch_stats"]``.
      statistics: tree of running means and variances; leaves that are not floating stay as they are.
      batches: what ``update`` takes, a few hundred examples in all; batches count equally.

    Returns:
      Statistics. The decay r of each leaf is found out by a second pass over the first batch; no setting is needed.

    Raises:
      ValueError: no batch, or a leaf that ``update`` does not change (a forward pass that is not in training mode).

    Source: the authors' code of Peste et al. 2022, "CrAM: a compression-aware minimizer" (1000 samples after one-shot
      pruning).

    >>> def update(s, x):
    ...     return {"mean": 0.75 * s["mean"] + 0.25 * x.mean()}
    >>> float(recalibrate(update, {"mean": jnp.float32(7.0)}, [jnp.array([1.0, 3.0]), jnp.array([6.0])])["mean"])
    4.0
    """
    floating = jax.tree.map(lambda leaf: jnp.issubdtype(jnp.result_type(leaf), jnp.floating), statistics)

    def filled(value: float) -> PyTree:
        return jax.tree.map(lambda leaf, is_one: jnp.full_like(leaf, value) if is_one else leaf, statistics, floating)

    step = jax.jit(update)
    total = share = None
    count = 0
    for batch in batches:
        fresh = step(filled(0.0), batch)
        if share is None:
            # Each leaf is r * s + (1 - r) * s_b: from two s follows r, to the precision of s beside s_b.
            far = step(filled(_FAR), batch)
            share = jax.tree.map(lambda other, zero: 1 - (other - zero) / _FAR, far, fresh)
            _check_shares(share, floating)
        total = fresh if total is None else jax.tree.map(jnp.add, total, fresh)
        count += 1
    if total is None:
        fail("recalibrate", "batches", "no element", "at least one batch")
    return jax.tree.map(
        lambda leaf, is_one, summed, part: (summed / (count * part)).astype(leaf.dtype) if is_one else leaf,
        statistics,
        floating,
        total,
        share,
    )


def _check_shares(share: PyTree, floating: PyTree) -> None:
    pairs = zip(jax.tree.leaves(share), jax.tree.leaves(floating), strict=True)
    if any(is_one and not bool(jnp.all(part > 1e-6)) for part, is_one in pairs):
        fail("recalibrate", "update", "a running statistic that it leaves alone", "a forward pass in training mode")
