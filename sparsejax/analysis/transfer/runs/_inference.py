"""Time of inference of several networks, measured alternately."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sparsejax._checks import fail
from sparsejax.data import ImageSplit


class InferenceCost(NamedTuple):
    """Median time of one call.

    Attributes:
      name: of the network.
      batch_size: images of a call.
      milliseconds: median over calls.
      per_second: images per second.
    """

    name: str
    batch_size: int
    milliseconds: float
    per_second: float


def time_inference(
    models: Mapping[str, nnx.Module], images: ImageSplit, *, batch_sizes: Sequence[int] = (1, 64), repeats: int = 20
) -> list[InferenceCost]:
    """Time the forward pass of networks, compiled, in inference mode.

    Networks are called in turn (A B A B ...), after two calls that do not count. Data loading is not timed.

    Args:
      models: by name; the forms of one network, such as dense and with sparse layers, are two entries.
      images: a split; batches are its first images, repeated if there are too few.
      batch_sizes: images of a call.
      repeats: timed calls of each network at each batch size.

    Returns:
      One `InferenceCost` for each network and batch size.

    Raises:
      ValueError: no network, or a number below 1.

    >>> from sparsejax.data import ArrayImageSplit
    >>> from sparsejax.models import MLP
    >>> split = ArrayImageSplit(np.ones((3, 4), np.float32), np.zeros(3, np.int32))
    >>> [cost.batch_size for cost in time_inference({"mlp": MLP(4, 2, rngs=nnx.Rngs(0))}, split, repeats=1)]
    [1, 64]
    """
    if not models:
        fail("time_inference", "models", "no element", "at least one")
    for name, value in (("repeats", repeats), *(("batch_sizes", size) for size in batch_sizes)):
        if value < 1:
            fail("time_inference", name, f"value {value}", "at least 1")
    calls = {name: _call(model) for name, model in models.items()}
    costs = []
    for size in batch_sizes:
        batch = jnp.asarray(images.images(np.arange(size) % len(images)))
        seconds: dict[str, list[float]] = {name: [] for name in models}
        for number in range(repeats + 2):
            for name, call in calls.items():
                begin = time.perf_counter()
                jax.block_until_ready(call(batch))
                if number >= 2:
                    seconds[name].append(time.perf_counter() - begin)
        for name, each in seconds.items():
            median = statistics.median(each)
            costs.append(InferenceCost(name, size, 1e3 * median, size / median))
    return costs


def _call(model: nnx.Module) -> Any:
    copy: Any = nnx.clone(model, graph=True)
    copy.eval()
    return nnx.cached_partial(_forward, copy)


@nnx.jit
def _forward(model: Any, images: jax.Array) -> jax.Array:
    return model(images)
