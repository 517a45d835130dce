"""Batch norm of a pretrained network: frozen, or with statistics of other data."""

from __future__ import annotations

from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sparsejax.data import ImageSplit

M = TypeVar("M", bound=nnx.Module)
BatchNormMode = Literal["train", "frozen", "recalibrated"]


def batch_norms(model: nnx.Module) -> list[Any]:
    """Return the batch norms of a model, Flax's and this library's."""
    return [node for _, node in nnx.iter_modules(model) if isinstance(node, nnx.BatchNorm)]


def freeze_batch_norm(model: nnx.Module) -> None:
    """Make the batch norms use their running averages and not update them, in place."""
    for norm in batch_norms(model):
        norm.use_running_average = True


def recalibrate_batch_norm(model: M, images: ImageSplit, *, batch_size: int = 256, passes: int = 1, seed: int = 0) -> M:
    """Estimate the running averages of batch norm again, on other images; nothing else changes.

    mean, var = averages over all batches of the batch's mean and variance, weighted by its size, each batch normalised
    by its statistics

    An option of the study that is off by default. A lottery ticket (a mask on the weights of a dense
    network that was trained without it) has stale statistics, those of the dense network; this replaces them.

    Args:
      model: NNX module. It is not changed.
      images: a training split.
      batch_size: examples per batch; the larger, the closer to the statistics of the whole split.
      passes: over the images, in another order each time.
      seed: of the order.

    Returns:
      A new model with the same weights.

    Source: PyTorch's cumulative average (``momentum=None``); Iofinova et al. 2022, authors' code, for the idea.
    """
    copy = nnx.clone(model, graph=True)
    norms = batch_norms(copy)
    if not norms:
        return copy
    copy.train()  # pyright: ignore[reportAttributeAccessIssue]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0  # the running averages are then those of the last batch
    sums: list[np.ndarray] = []
    count = 0
    for batch in _batches(len(images), batch_size, passes, seed):
        _forward(copy, jnp.asarray(images.images(batch)))
        weighted = [len(batch) * np.asarray(v[...], np.float64) for norm in norms for v in (norm.mean, norm.var)]
        sums = [a + b for a, b in zip(sums, weighted, strict=True)] if sums else weighted
        count += len(batch)
    values = iter(sums)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        for variable in (norm.mean, norm.var):
            variable[...] = jnp.asarray(next(values) / count, variable[...].dtype)
    return copy


@nnx.jit
def _forward(model: nnx.Module, images: jax.Array) -> None:
    model(images)


def _batches(count: int, size: int, passes: int, seed: int) -> list[np.ndarray]:
    batches = []
    for number in range(passes):
        order = np.random.default_rng((seed, number)).permutation(count)
        batches += [order[start : start + size] for start in range(0, count, size)]
    return batches
