"""A classification task: two or three splits of labelled images, and how accuracy is counted on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import numpy as np

from sparsejax._checks import fail
from sparsejax.data._dataset import Dataset
from sparsejax.data._pictures import ArrayImages

Metric = Literal["top1", "mean_per_class"]


class Images(Protocol):
    """A split: labels, and images by index. `ArrayImages` and `Pictures` are two, and anything like them."""

    @property
    def labels(self) -> np.ndarray:
        """Return int32[N]."""
        ...

    def __len__(self) -> int: ...

    def fingerprint(self) -> str:
        """Return a hash of everything, under which results can be stored."""
        ...

    def images(self, rows: Any, *, seed: int | Sequence[int] | None = None) -> np.ndarray:
        """Return float32[n, ...], augmented at random if there is a seed."""
        ...


@dataclass(frozen=True)
class ImageTask:
    """A data set to adapt a network to.

    Attributes:
      name: for tables.
      train, test: splits.
      num_classes: K.
      val: a split to choose by, or None.
      metric: "top1", or "mean_per_class" (the mean over classes of the accuracy within each).
      group: a label for tables, such as "fine_grained".
      allow_missing_classes: accept classes without training or without test examples. The mean over classes then skips
        those without test examples.

    Raises:
      ValueError: a label outside [0, K), an unknown metric, or a class without examples.

    >>> split = ArrayImages(np.zeros((2, 1, 1, 1), np.float32), np.array([0, 1], np.int32))
    >>> ImageTask("toy", split, split, 2).metric
    'top1'
    """

    name: str
    train: Images
    test: Images
    num_classes: int
    val: Images | None = None
    metric: Metric = "top1"
    group: str | None = None
    allow_missing_classes: bool = False

    def __post_init__(self) -> None:
        if self.metric not in get_args(Metric):
            fail("ImageTask", "metric", f"value {self.metric!r}", f"one of {get_args(Metric)}")
        for name, split in (("train", self.train), ("val", self.val), ("test", self.test)):
            if split is None:
                continue
            labels = split.labels
            if labels.min() < 0 or labels.max() >= self.num_classes:
                got = f"labels {labels.min()} to {labels.max()}"
                fail("ImageTask", f"{self.name}: the {name} split", got, f"the range 0 to {self.num_classes - 1}")
            missing = np.setdiff1d(np.arange(self.num_classes), labels)
            if len(missing) and name != "val" and not self.allow_missing_classes:
                shown = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
                hint = "Pass allow_missing_classes=True if that is meant."
                got = f"no example of {len(missing)} classes ({shown})"
                fail("ImageTask", f"{self.name}: the {name} split", got, f"all {self.num_classes}", hint)

    @classmethod
    def from_dataset(cls, data: Dataset, **options: Any) -> ImageTask:
        """Return the task of a `Dataset`; ``options`` are other attributes, such as ``metric``.

        >>> from sparsejax.data import digits
        >>> ImageTask.from_dataset(digits()).num_classes
        10
        """
        train = ArrayImages(data.train_images, data.train_labels)
        return cls(data.name, train, ArrayImages(data.test_images, data.test_labels), data.num_classes, **options)
