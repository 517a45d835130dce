"""Full fine-tuning of a sparse network with its mask fixed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from numpy.typing import ArrayLike

from sparsejax._checks import fail
from sparsejax.analysis.transfer._metrics import per_class_accuracy, top1_accuracy
from sparsejax.analysis.transfer.runs._batch_norm import freeze_batch_norm, recalibrate_batch_norm
from sparsejax.analysis.transfer.runs._config import SGDConfig
from sparsejax.analysis.transfer.runs._steps import ArraySteps
from sparsejax.data import ImageSplit, ImageTask
from sparsejax.models import find_head, with_new_head
from sparsejax.train import FixedMask, KernelChoice, fix_masks, map_batches

# ImageSplit per call in testing: bounds the memory of the activations.
_TEST_BATCH = 256


@dataclass(frozen=True)
class FinetuneEpoch:
    """One row of the history: epochs done, mean loss over the epoch, accuracies after it (None where not tested)."""

    epoch: int
    loss: float
    top1: float | None
    mean_per_class: float | None
    val_top1: float | None


@dataclass(frozen=True)
class FinetuneResult:
    """A network after full fine-tuning.

    Attributes:
      model: the network, in training mode; sparse layers hold the kept weights only.
      top1: accuracy on the test split.
      mean_per_class: mean over classes that have test examples.
      per_class: float64[K], NaN for classes without test examples.
      history: a row for each epoch.
      masks: bool array for each layer that has zeros, by path: the same before and after.
      sparsity_before, sparsity_after: fraction of zeros among the weights of all linear and convolution layers but the
        classifier.
      epoch: epochs done by the network that is returned: the last, or the best on the validation split.
      seed: of the run.
    """

    model: nnx.Module
    top1: float
    mean_per_class: float
    per_class: np.ndarray
    history: tuple[FinetuneEpoch, ...]
    masks: dict[str, np.ndarray]
    sparsity_before: float
    sparsity_after: float
    epoch: int
    seed: int


def finetune(
    model: nnx.Module,
    task: ImageTask,
    config: SGDConfig | None = None,
    *,
    masks: Mapping[str, ArrayLike] | None = None,
    head: str | None = None,
    kernels: KernelChoice = "sparse",
    min_sparsity: float = 0.8,
    seed: int = 0,
    evaluate_every: int | None = 1,
    progress: Callable[[int, int], None] | None = None,
) -> FinetuneResult:
    """Train all kept weights of a network on a task; pruned weights stay zero.

    v <- momentum v + g + weight_decay w;  w <- mask * (w - rate v)

    The classifier is replaced by a new, dense one. Unpruned weights, batch norm's scale and shift, and the classifier
    are trained. Whatever ``kernels``, the result is the same up to rounding.

    Args:
      model: NNX module, dense with zeros or sparse. It is not changed.
      task: the data. Training images are augmented where its split does that. With a validation split the network of
        the best epoch on it is returned, otherwise that of the last epoch. It is never chosen on the test split.
      config: settings; those of the study for this data set if None.
      masks: bool array by layer path, true keeps; None: patterns of sparse layers, and zeros of dense ones.
      head: path of the classifier; looked up by name if None.
      kernels: "sparse" or "dense".
      min_sparsity: of a layer, for sparse kernels to pay.
      seed: of the classifier's initial value, the order of examples and the augmentation.
      evaluate_every: epochs between tests; None tests at the end only.
      progress: called with (steps done, total steps).

    Returns:
      `FinetuneResult`.

    Raises:
      ValueError: a mask that does not match, an unknown head, a loss that is not finite.
      RuntimeError: a masked weight was not zero after training, which cannot happen.

    Source: Iofinova et al. 2022, full fine-tuning.
    """
    config = config or SGDConfig.full(task.name)
    head = find_head(model) if head is None else head
    prepared, tuned = _prepare(model, task, config, masks, head, kernels, min_sparsity, seed)
    before = prepared.sparsity()
    optimizer = prepared.optimizer(config.optimizer(len(task.train)))
    step = ArraySteps(tuned, optimizer)
    steps = config.steps_per_epoch(len(task.train))
    history: list[FinetuneEpoch] = []
    best: tuple[float, int, Any] | None = None
    for epoch in range(config.epochs):
        loss = _epoch(step, task.train, config, seed, epoch, steps, progress)
        last = epoch + 1 == config.epochs
        due = last or (evaluate_every is not None and (epoch + 1) % evaluate_every == 0)
        if not due:
            history.append(FinetuneEpoch(epoch + 1, loss, None, None, None))
            continue
        step.store()
        tested = _test(tuned, task.test, task.num_classes)
        val = None if task.val is None else _test(tuned, task.val, task.num_classes)[0]
        history.append(FinetuneEpoch(epoch + 1, loss, tested[0], tested[1], val))
        if val is not None and (best is None or val > best[0]):
            best = val, epoch + 1, nnx.clone(tuned, graph=True)
    if best is not None:
        tuned = best[2]
    final = FixedMask(tuned, prepared.masks, prepared.prunable)
    final.check("finetune")
    top1, mean, per_class = _test(tuned, task.test, task.num_classes)
    done = config.epochs if best is None else best[1]
    return FinetuneResult(
        tuned, top1, mean, per_class, tuple(history), final.masks, before, final.sparsity(), done, seed
    )


def _prepare(
    model: nnx.Module,
    task: ImageTask,
    config: SGDConfig,
    masks: Mapping[str, ArrayLike] | None,
    head: str,
    kernels: KernelChoice,
    min_sparsity: float,
    seed: int,
) -> tuple[FixedMask, Any]:
    """Return the network with a new classifier, fixed masks, and batch norm in the mode of ``config``."""
    if config.batch_norm == "recalibrated":
        model = recalibrate_batch_norm(model, task.train, seed=seed)
    fresh = with_new_head(model, task.num_classes, head=head, rngs=nnx.Rngs(seed))
    prepared = fix_masks(fresh, masks, kernels=kernels, min_sparsity=min_sparsity, keep_dense=(head,))
    tuned = prepared.model
    tuned.train()
    if config.batch_norm != "train":
        freeze_batch_norm(tuned)
    return prepared, tuned


def _epoch(
    step: Callable[[Any, Any], jax.Array],
    images: ImageSplit,
    config: SGDConfig,
    seed: int,
    epoch: int,
    steps: int,
    progress: Callable[[int, int], None] | None,
) -> float:
    """Train for one epoch, and return the mean loss."""
    order = np.random.default_rng((seed, 1, epoch)).permutation(len(images))
    losses = []
    for number in range(steps):
        rows = order[number * config.batch_size : (number + 1) * config.batch_size]
        batch = jnp.asarray(images.images(rows, seed=(seed, 3, epoch))), jnp.asarray(images.labels[rows])
        losses.append((step(*batch), len(rows)))
        if progress is not None:
            progress(epoch * steps + number + 1, config.epochs * steps)
    total = sum(float(loss) * count for loss, count in losses)  # read once an epoch: a step need not wait for the last
    if not np.isfinite(total):
        hint = "Lower the learning rate."
        fail("finetune", f"the loss of epoch {epoch + 1}", f"value {total / len(images)}", "a finite number", hint)
    return total / len(images)


def predict(model: nnx.Module, images: ImageSplit) -> np.ndarray:
    """Return the predicted classes int32[N] of a classifier in inference mode; it is left in the mode it was in.

    >>> from sparsejax.data import ArrayImageSplit
    >>> from sparsejax.models import MLP
    >>> split = ArrayImageSplit(np.ones((3, 4), np.float32), np.zeros(3, np.int32))
    >>> predict(MLP(4, 1, rngs=nnx.Rngs(0)), split).tolist()
    [0, 0, 0]
    """
    copy = nnx.clone(model, graph=True)
    copy.eval()
    parts = map_batches(lambda batch: _predict(copy, batch), images.images, len(images), _TEST_BATCH)
    return np.concatenate(list(parts)).astype(np.int32)


@nnx.jit
def _predict(model: nnx.Module, images: jax.Array) -> jax.Array:
    return jnp.argmax(model(images), axis=-1)


def _test(model: nnx.Module, images: ImageSplit, num_classes: int) -> tuple[float, float, np.ndarray]:
    predicted = predict(model, images)
    per_class = per_class_accuracy(images.labels, predicted, num_classes)
    return top1_accuracy(images.labels, predicted), float(np.nanmean(per_class)), per_class
