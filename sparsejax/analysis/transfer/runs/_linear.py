"""Linear fine-tuning: on features computed once, or recomputed every epoch from augmented images."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from sparsejax.analysis.transfer._metrics import per_class_accuracy, top1_accuracy
from sparsejax.analysis.transfer.runs._batch_norm import recalibrate_batch_norm
from sparsejax.analysis.transfer.runs._config import SGDConfig
from sparsejax.analysis.transfer.runs._features import Features, extract_features, features_of
from sparsejax.analysis.transfer.runs._probe import ProbeResult, initial_head
from sparsejax.data import ImageTask
from sparsejax.models import without_head

Head = tuple[jax.Array, jax.Array]


def train_linear_online(
    model: nnx.Module,
    task: ImageTask,
    config: SGDConfig | None = None,
    *,
    head: str | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> ProbeResult:
    """Train a classifier on features of a frozen network, recomputed every epoch from augmented images.

    The study's second form of linear fine-tuning, the one whose time a sparse network shortens. Frozen means parameters
    and batch statistics: the network runs in inference mode, also in training. (The authors' code without its sparse
    engine leaves batch norm in training mode.) Without augmentation, `linear_probe` on `extract_features` gives the
    same classifier for a fraction of the time.

    Args:
      model: NNX module, sparse or dense. It is not changed.
      task: the data; training images are augmented where its split does that.
      config: settings; the study's if None. ``batch_norm="recalibrated"`` estimates the statistics on the training
        images first.
      head: path of the classifier to leave out; looked up by name if None; "" for a network that has none.
      seed: of the classifier's initial value, the order of examples and the augmentation.
      progress: called with (steps done, total steps).

    Returns:
      `ProbeResult`.

    Source: Iofinova et al. 2022, linear fine-tuning with a sparse engine.
    """
    config = config or SGDConfig.linear()
    if config.batch_norm == "recalibrated":
        model = recalibrate_batch_norm(model, task.train, seed=seed)
    backbone = without_head(model, head)
    backbone.eval()
    test = extract_features(model, task.test, head=head)
    weights, bias = initial_head(seed, test.x.shape[1], task.num_classes)
    state: tuple[Head, Head] = (
        (jnp.asarray(weights), jnp.asarray(bias)),
        (jnp.zeros_like(weights), jnp.zeros_like(bias)),
    )
    steps, history = config.steps_per_epoch(len(task.train)), []
    for epoch in range(config.epochs):
        order, total = np.random.default_rng((seed, 1, epoch)).permutation(len(task.train)), 0.0
        for number in range(steps):
            rows = order[number * config.batch_size : (number + 1) * config.batch_size]
            x = features_of(backbone, jnp.asarray(task.train.images(rows, seed=(seed, 3, epoch))))
            y = jnp.asarray(task.train.labels[rows])
            state, loss = head_step(state, x, y, config.rate(epoch), config.momentum, config.weight_decay)
            total += float(loss) * len(rows)
            if progress is not None:
                progress(epoch * steps + number + 1, config.epochs * steps)
        history.append((total / len(task.train), top1_accuracy(test.y, _predicted(state[0], test))))
    predicted = _predicted(state[0], test)
    per_class = per_class_accuracy(test.y, predicted, task.num_classes)
    weights, bias = map(np.asarray, state[0])
    top1, mean = top1_accuracy(test.y, predicted), float(np.nanmean(per_class))
    return ProbeResult(weights, bias, top1, mean, per_class, seed, None, np.array(history))


@jax.jit
def head_step(
    state: tuple[Head, Head], x: jax.Array, y: jax.Array, rate: float, momentum: float, decay: float
) -> tuple[tuple[Head, Head], jax.Array]:
    """Take one step of the classifier, and return (weights, velocities) and the loss before it."""
    weights, velocities = state

    def loss_of(weights: Head) -> jax.Array:
        logits = x @ weights[0] + weights[1]
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    loss, grads = jax.value_and_grad(loss_of)(weights)
    velocities = jax.tree.map(lambda v, g, w: momentum * v + g + decay * w, velocities, grads, weights)
    return (jax.tree.map(lambda w, v: w - rate * v, weights, velocities), velocities), loss


def _predicted(weights: Head, features: Features) -> np.ndarray:
    return np.argmax(features.x @ np.asarray(weights[0]) + np.asarray(weights[1]), axis=1)
