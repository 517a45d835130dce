"""One step of training, and testing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from sparsejax.data import ArrayImageSplit, ImageSplit, read_ahead

# Examples per call in testing: bounds the memory of the activations.
_TEST_BATCH = 500


@nnx.jit
def train_step(model: nnx.Module, optimizer: nnx.Optimizer[Any], images: jax.Array, labels: jax.Array) -> jax.Array:
    """Take one optimizer step on the mean cross-entropy, in place, and return the loss before it.

    Args:
      model: classifier, images -> logits.
      optimizer: of the model.
      images: float[B, H, W, C].
      labels: int[B].

    Returns:
      Mean cross-entropy before the update, nats, float32 scalar.
    """
    loss, grads = _loss_and_grads(model, images, labels)
    optimizer.update(model, grads)
    return loss


@nnx.jit
def stored_step(model: nnx.Module, optimizer: nnx.Optimizer[Any], images: jax.Array, labels: jax.Array) -> jax.Array:
    """``train_step`` on stored weights with an optimizer that prunes, in a step that does not change the mask."""
    loss, grads = _loss_and_grads(model, images, labels)
    optimizer.update(model, grads, refresh=False)
    return loss


def _loss_and_grads(model: Any, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, Any]:
    def loss_of(model: Any) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(model(images), labels).mean()

    return nnx.value_and_grad(loss_of)(model)


BoundStep = Callable[[Any, Any], jax.Array]


def bind_step(
    model: nnx.Module, optimizer: nnx.Optimizer[Any], step: Callable[..., jax.Array] = train_step
) -> BoundStep:
    """Return the training step of one model, which walks the module graph once instead of on every call.

    Args:
      model: updated in place by each step.
      optimizer: of this model, updated in place too.
      step: `train_step`, or another function of (model, optimizer, images, labels) under ``nnx.jit``.

    Returns:
      A function of (images, labels), float[B, H, W, C] and int[B], that takes a step and returns the loss before it.

    >>> from sparsejax.models import MLP
    >>> model = MLP(4, 2, rngs=nnx.Rngs(0))
    >>> step = bind_step(model, nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param))
    >>> step(np.ones((3, 4), np.float32), np.array([0, 1, 1])).shape
    ()
    """
    return nnx.cached_partial(step, model, optimizer)


def map_batches(
    function: Callable[[jax.Array], Any],
    read: Callable[[np.ndarray], np.ndarray],
    count: int,
    batch_size: int,
    *,
    threads: int = 0,
) -> Iterator[np.ndarray]:
    """Apply a function to batches of one shape, so that it is compiled once.

    The last batch is padded with zeros; the results of the padding are dropped.

    Args:
      function: of a batch, array[batch_size, ...]; returns an array with one entry per example.
      read: returns the examples with these row numbers, int[n] -> array[n, ...].
      count: examples in all.
      batch_size: examples per call; ``count`` if that is less.
      threads: that read batches ahead; see `sparsejax.data.read_ahead`.

    Yields:
      The results of each batch, on the host.

    >>> [part.tolist() for part in map_batches(lambda x: x + 1, lambda rows: 10 * rows, 3, 2)]
    [[1, 11], [21]]
    """
    size = min(batch_size, count) or 1

    def batch(number: int) -> tuple[int, np.ndarray]:
        chunk = read(np.arange(number * size, min((number + 1) * size, count)))
        padding = np.zeros((size - len(chunk), *chunk.shape[1:]), chunk.dtype)
        return len(chunk), np.concatenate([chunk, padding])

    for filled, chunk in read_ahead(batch, 0, -(-count // size), threads=threads):
        yield np.asarray(function(jnp.asarray(chunk)))[:filled]


@nnx.jit
def _predict(model: Any, images: jax.Array) -> jax.Array:
    return jnp.argmax(model(images), axis=-1)


def evaluate_accuracy(model: nnx.Module, images: np.ndarray, labels: np.ndarray) -> float:
    """Return the fraction of examples classified correctly, with running batch statistics.

    Args:
      model: classifier in training mode, in which it is left.
      images: float[N, H, W, C].
      labels: int[N].

    Returns:
      A fraction in [0, 1].

    >>> from sparsejax.models import MLP
    >>> evaluate_accuracy(MLP(4, 1, rngs=nnx.Rngs(0)), np.ones((3, 2, 2, 1), np.float32), np.zeros(3, np.int32))
    1.0
    """
    split = ArrayImageSplit(np.asarray(images, np.float32), np.asarray(labels, np.int32))
    return split_accuracy(model, split)


def split_accuracy(model: nnx.Module, split: ImageSplit, *, threads: int = 0) -> float:
    """Return the fraction of a split's examples classified correctly, with running batch statistics.

    Args:
      model: classifier in training mode, in which it is left.
      split: images and labels.
      threads: that read pictures ahead.
    """
    return float((predictions(model, split, threads=threads) == split.labels).mean())


def predictions(model: nnx.Module, split: ImageSplit, *, threads: int = 0) -> np.ndarray:
    """Return the classes int[N] that a classifier predicts with running batch statistics; see `split_accuracy`."""
    model.eval()
    parts = map_batches(lambda x: _predict(model, x), split.images, len(split), _TEST_BATCH, threads=threads)
    predicted = np.concatenate(list(parts))
    model.train()
    return predicted
