"""One step of training, and testing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

# Examples per call in testing: bounds the memory of the activations.
_TEST_BATCH = 500


@nnx.jit
def train_step(model: Any, optimizer: nnx.Optimizer, images: jax.Array, labels: jax.Array) -> jax.Array:
    """Take one optimizer step on the mean cross-entropy, in place, and return the loss before it."""
    loss, grads = _loss_and_grads(model, images, labels)
    optimizer.update(model, grads)
    return loss


@nnx.jit
def stored_step(model: Any, optimizer: nnx.Optimizer, images: jax.Array, labels: jax.Array) -> jax.Array:
    """``train_step`` on stored weights with an optimizer that prunes, in a step that does not change the mask."""
    loss, grads = _loss_and_grads(model, images, labels)
    optimizer.update(model, grads, refresh=False)
    return loss


def _loss_and_grads(model: Any, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, Any]:
    def loss_of(model: Any) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(model(images), labels).mean()

    return nnx.value_and_grad(loss_of)(model)


Step = Callable[[Any, Any], jax.Array]


def bind_step(model: Any, optimizer: nnx.Optimizer, step: Any = train_step) -> Step:
    """``train_step`` (or ``stored_step``) for one model: walks the module graph once instead of on every call."""
    return nnx.cached_partial(step, model, optimizer)


@nnx.jit
def _predict(model: Any, images: jax.Array) -> jax.Array:
    return jnp.argmax(model(images), axis=-1)


def accuracy(model: Any, images: np.ndarray, labels: np.ndarray) -> float:
    """Fraction of examples classified correctly, with running batch statistics.

    Args:
      model: classifier in training mode, in which it is left.
      images: float[N, H, W, C].
      labels: int[N].

    Returns:
      A fraction in [0, 1].

    >>> from sparsejax.models import MLP
    >>> accuracy(MLP(4, 1, rngs=nnx.Rngs(0)), np.ones((3, 2, 2, 1), np.float32), np.zeros(3, np.int32))
    1.0
    """
    size = min(_TEST_BATCH, len(images))
    correct = 0
    model.eval()
    for start in range(0, len(images), size):
        chunk = images[start : start + size]
        # Every call has the same shape, so it is compiled once.
        padded = np.concatenate([chunk, np.zeros((size - len(chunk), *chunk.shape[1:]), chunk.dtype)])
        predicted = np.asarray(_predict(model, jnp.asarray(padded)))[: len(chunk)]
        correct += int((predicted == labels[start : start + size]).sum())
    model.train()
    return correct / len(images)
