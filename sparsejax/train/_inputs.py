"""What a run trains and tests on: batches by step, and the accuracy on the test examples."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Protocol

import numpy as np
from flax import nnx

from sparsejax import data
from sparsejax._checks import fail
from sparsejax.data._batches import epoch_order
from sparsejax.train._config import TrainConfig
from sparsejax.train._steps import split_accuracy

Batch = tuple[Any, Any]

# Where the random numbers of the augmentation begin; the order of the examples has streams of its own.
_AUGMENTATION = 3


class Inputs(Protocol):
    """Batches of a run, and its test."""

    name: str
    batch_size: int
    steps_per_epoch: int
    image_shape: tuple[int, ...]
    num_classes: int | None

    def batches(self, done: int, stop: int) -> Generator[Batch]:
        """Return the batches of the steps from ``done`` to ``stop - 1``."""
        ...

    def accuracy(self, model: nnx.Module) -> float | None:
        """Return the fraction of test examples classified correctly; None without test examples."""
        ...


class TaskInputs:
    """An `ImageTask` in batches of one size; a short last batch of an epoch is left out.

    The batch of a step, and the augmentation of each image in it, depend on the seed and the step alone: a run that is
    resumed in the middle of an epoch sees what the uninterrupted run saw.

    Attributes:
      rows: of each batch that are read; all of them, unless several processes share the batch.
      threads: that read pictures ahead.
    """

    def __init__(self, task: data.ImageTask, config: TrainConfig, *, threads: int = 2) -> None:
        """Check the batch size.

        Args:
          task: the data.
          config: its batch size and seed are used.
          threads: that read pictures ahead of the steps; images in memory are not read ahead.

        Raises:
          ValueError: a batch does not fit.
        """
        self.name, self.task = task.name, task
        self.num_classes: int | None = task.num_classes
        self.steps_per_epoch = len(task.train) // config.batch_size
        if not self.steps_per_epoch:
            rule = f"at most {len(task.train)}, the training examples"
            fail("train", "batch_size", f"value {config.batch_size}", rule)
        self.image_shape = task.train.images([0]).shape[1:]
        self.batch_size, self._seed = config.batch_size, config.seed
        in_memory = isinstance(task.train, data.ArrayImageSplit | data.ByteImageSplit)
        self.threads = 0 if in_memory else threads
        self._order: tuple[int, np.ndarray] | None = None
        self.rows = slice(None)

    def batches(self, done: int, stop: int) -> Generator[Batch]:
        """Return the batches of the steps from ``done`` to ``stop - 1``, read ahead."""
        return data.read_ahead(self._batch, done, stop, threads=self.threads)

    def accuracy(self, model: nnx.Module) -> float | None:
        """Return the fraction of test examples classified correctly."""
        return split_accuracy(model, self.task.test, threads=self.threads)

    def _batch(self, step: int) -> Batch:
        epoch, number = divmod(step, self.steps_per_epoch)
        order = self._order
        if order is None or order[0] != epoch:  # threads may both make it; each uses its own
            order = self._order = epoch, epoch_order(self._seed, epoch, len(self.task.train))
        rows = order[1][number * self.batch_size : (number + 1) * self.batch_size][self.rows]
        return self.task.train.images(rows, seed=(self._seed, _AUGMENTATION, step)), self.task.train.labels[rows]


def load_inputs(config: TrainConfig, *, threads: int = 2) -> TaskInputs:
    """Load the data that a configuration names, in batches.

    Raises:
      ValueError: a batch does not fit, or what `sparsejax.data.load_task` raises.
      OSError: files are missing.
    """
    return TaskInputs(load_configured_task(config), config, threads=threads)


def load_configured_task(config: TrainConfig) -> data.ImageTask:
    """Load the data that a configuration names."""
    kind = config.data.partition(":")[0]
    augmentation = data.Augmentation(config.crop, config.flip)
    known = data.DOWNSTREAM_DATASETS.get(kind)
    scaling: Any = {} if known is None else {"mean": known.mean, "std": known.std}
    if config.size is not None and kind in ("digits", "idx", "npz"):
        rule = "no size: its images are taken as they are"
        fail("train", "size", f"value {config.size} for data {config.data!r}", rule)
    resize = config.resize or config.size or 1
    preprocessing = data.Preprocessing(resize, config.size, augmentation=augmentation, **scaling)
    return data.load_task(config.data, preprocessing, augmentation=augmentation, skip_corrupt=config.skip_corrupt)


def inputs_of(config: TrainConfig, dataset: data.Dataset | data.ImageTask | Inputs | None) -> Inputs:
    """Return the inputs of a run: those that its configuration names, or what is passed."""
    if dataset is None:
        return load_inputs(config)
    if isinstance(dataset, data.Dataset):
        dataset = data.ImageTask.from_dataset(dataset.standardized(), allow_missing_classes=True)
    return TaskInputs(dataset, config) if isinstance(dataset, data.ImageTask) else dataset
