"""Batches of the user's own: anything that yields pairs or dicts of arrays."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from flax import nnx

from sparsejax._checks import fail
from sparsejax.train._inputs import Batch
from sparsejax.train._steps import predict_classes

_FUNCTION = "finetune"
_IMAGES = ("image", "images", "pixel_values", "x", "inputs")
_LABELS = ("label", "labels", "y", "target", "targets")

Batches = Iterable[Any] | Callable[[], Iterable[Any]]


class UserInputs:
    """Batches that the caller iterates over, once for each epoch."""

    def __init__(
        self,
        train: Batches,
        test: Batches | None = None,
        prepare: Callable[[Any], tuple[Any, Any]] | None = None,
        steps_per_epoch: int | None = None,
    ) -> None:
        """Read the first batch, for its shape.

        Args:
          train: an iterable that can be walked again, or a function that returns one.
          test: the same, of test examples; None measures no accuracy.
          prepare: makes (images, labels) of a batch.
          steps_per_epoch: batches of an epoch; the length of ``train`` if None.

        Raises:
          ValueError: no batch, a batch of an unknown form, or no length.
        """
        self.name, self.num_classes = type(train).__name__, None
        self._train, self._test, self._prepare = train, test, prepare
        if isinstance(train, Iterator):
            hint = "Pass a function that returns a new one for each epoch, such as lambda: make_batches()."
            fail(_FUNCTION, "inputs", f"type {type(train).__name__}, which ends after one epoch", "an iterable", hint)
        self.steps_per_epoch = _length(train) if steps_per_epoch is None else steps_per_epoch
        images, _ = next(self._epoch(0, 1))
        self.image_shape: tuple[int, ...] = images.shape[1:]
        self.batch_size = len(images)

    def batches(self, done: int, stop: int) -> Generator[Batch]:
        """Yield the batches of the steps from ``done`` to ``stop - 1``; earlier ones of the epoch are dropped."""
        while done < stop:
            skipped = done % self.steps_per_epoch
            last = min(self.steps_per_epoch, skipped + stop - done)
            yield from self._epoch(skipped, last)
            done += last - skipped

    def accuracy(self, model: nnx.Module) -> float | None:
        """Return the fraction of test examples classified correctly; None without test examples."""
        if self._test is None:
            return None
        right = total = 0
        for batch in _walk(self._test):
            images, labels = self._arrays(batch)
            right += int((predict_classes(model, images) == labels).sum())
            total += len(labels)
        return right / total if total else None

    def _epoch(self, start: int, stop: int) -> Generator[Batch]:
        count = start
        for batch in itertools.islice(_walk(self._train), start, stop):
            count += 1
            yield self._arrays(batch)
        if count < stop:
            rule = f"{self.steps_per_epoch}, those of an epoch"
            fail(_FUNCTION, "inputs", f"{count} batches", rule, "Can it be walked more than once?")

    def _arrays(self, batch: Any) -> Batch:
        if self._prepare is not None:
            batch = self._prepare(batch)
        if isinstance(batch, Mapping):
            batch = _entry(batch, _IMAGES, "images"), _entry(batch, _LABELS, "labels")
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            rule = "a pair (images, labels) or a dict with both"
            fail(_FUNCTION, "a batch", f"type {type(batch).__name__}", rule, "prepare=... makes pairs of others.")
        images, labels = (np.asarray(part) for part in batch)
        if labels.ndim != 1 or labels.dtype.kind not in "iu" or len(labels) != len(images):
            got = f"labels {labels.dtype}{list(labels.shape)} for images {images.dtype}{list(images.shape)}"
            fail(_FUNCTION, "a batch", got, "integers, one for each image")
        return images.astype(np.float32, copy=False), labels.astype(np.int32, copy=False)


def _entry(batch: Mapping[str, Any], names: tuple[str, ...], what: str) -> Any:
    present = [name for name in names if name in batch]
    if not present:
        got = f"the keys {', '.join(map(str, batch))}"
        fail(_FUNCTION, "a batch", got, f"one of {', '.join(names)} for {what}", "prepare=... makes pairs of others.")
    return batch[present[0]]


def _walk(batches: Batches) -> Iterator[Any]:
    return iter(batches() if callable(batches) else batches)


def _length(train: Any) -> int:
    try:
        length = len(train)
    except TypeError:
        fail(_FUNCTION, "inputs", "no length", "one, or steps_per_epoch=...")
    if length < 1:
        fail(_FUNCTION, "inputs", "no batch", "at least one")
    return length
