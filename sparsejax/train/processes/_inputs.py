"""The rows of one process: batches, and the test, divided over a group."""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
from flax import nnx

from sparsejax._checks import fail
from sparsejax.data import ImageSplit
from sparsejax.data._task import Rows, Seed
from sparsejax.train._inputs import Batch, Inputs, TaskInputs
from sparsejax.train._steps import predictions
from sparsejax.train.processes._group import Group


class GroupInputs:
    """Inputs of a run whose batches are divided over processes: each reads its own rows.

    What a step sees, augmentation included, is what one process would see; ``batches`` yields the rows of this one.
    """

    def __init__(self, inputs: Inputs, group: Group) -> None:
        """Check that batches can be divided, and that all processes have the same data.

        Raises:
          ValueError: the batch is not a multiple of the devices, or labels differ between processes.
        """
        devices = group.mesh.size if group.mesh is not None else 1
        if inputs.batch_size % devices:
            rule = f"a multiple of {devices}, the devices of {group.count} processes"
            fail("train", "batch_size", f"value {inputs.batch_size}", rule)
        self.name, self.image_shape, self.num_classes = inputs.name, inputs.image_shape, inputs.num_classes
        self.batch_size, self.steps_per_epoch = inputs.batch_size, inputs.steps_per_epoch
        self._group, self._inputs = group, inputs
        share = inputs.batch_size // group.count
        self._rows = slice(group.index * share, (group.index + 1) * share)
        if isinstance(inputs, TaskInputs):
            splits = {"training": inputs.task.train, "test": inputs.task.test}
            group.same(
                "labels of", {name: hashlib.sha256(x.labels.tobytes()).hexdigest() for name, x in splits.items()}
            )
            inputs.rows = self._rows

    def batches(self, done: int, stop: int) -> Generator[Batch]:
        """Yield the rows of this process, step by step."""
        batches = self._inputs.batches(done, stop)
        if isinstance(self._inputs, TaskInputs):  # it reads no others
            return batches
        return ((images[self._rows], labels[self._rows]) for images, labels in batches)

    def accuracy(self, model: nnx.Module) -> float | None:
        """Return the fraction of test examples classified correctly, each tested by one process."""
        inputs, group = self._inputs, self._group
        if not isinstance(inputs, TaskInputs):
            return inputs.accuracy(model)
        split = _Part(inputs.task.test, np.arange(group.index, len(inputs.task.test), group.count))
        right = int((predictions(model, split, threads=inputs.threads) == split.labels).sum()) if len(split) else 0
        return group.sum(right)[0] / len(inputs.task.test)


@dataclass(frozen=True)
class _Part:
    """Some rows of a split."""

    whole: ImageSplit
    kept: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        return self.whole.labels[self.kept]

    def __len__(self) -> int:
        return len(self.kept)

    def fingerprint(self) -> str:
        return hashlib.sha256(self.whole.fingerprint().encode() + self.kept.tobytes()).hexdigest()

    def images(self, rows: Rows, *, seed: Seed | None = None) -> np.ndarray:
        return self.whole.images(self.kept[np.asarray(rows)], seed=seed)


def inputs_of_group(inputs: Inputs, group: Group) -> Any:
    """Return the inputs of a process of a group; the inputs themselves where it is alone, or has them already."""
    return inputs if group.is_alone or isinstance(inputs, GroupInputs) else GroupInputs(inputs, group)
