"""Classification tasks: splits of labelled images, in memory or in files, and how accuracy is counted on them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, get_args

import numpy as np

from sparsejax._checks import fail
from sparsejax._files import PathLike
from sparsejax._surface import renamed_arguments, warn_renamed
from sparsejax.data._augmentation import Augmentation
from sparsejax.data._dataset import Dataset
from sparsejax.data._preprocessing import Preprocessing

Metric = Literal["top1", "mean_per_class"]
Rows: TypeAlias = Sequence[int] | np.ndarray
Seed: TypeAlias = int | Sequence[int]


class ImageSplit(Protocol):
    """A split of a data set: labels, and images by index.

    `ArrayImageSplit` and `LazyImageSplit` are two; any object with these members is one.
    """

    @property
    def labels(self) -> np.ndarray:
        """Return int32[N]."""
        ...

    def __len__(self) -> int: ...

    def fingerprint(self) -> str:
        """Return a hash of images and labels, a key for cached results."""
        ...

    def images(self, rows: Rows, *, seed: Seed | None = None) -> np.ndarray:
        """Return float32[n, ...], augmented at random if there is a seed."""
        ...


@dataclass(frozen=True)
class LazyImageSplit:
    """Labelled pictures that are read, resized and cropped each time they are asked for.

    Attributes:
      pictures: paths, or uint8 arrays [H, W] or [H, W, 3]; also one array of them.
      labels: int32[N].
      preprocessing: how they become the input of a network.

    Raises:
      ValueError: counts that disagree, or no picture.
    """

    pictures: Sequence[PathLike | np.ndarray] | np.ndarray
    labels: np.ndarray
    preprocessing: Preprocessing = field(default_factory=Preprocessing)

    def __post_init__(self) -> None:
        check_counts("LazyImageSplit", "pictures", len(self.pictures), self.labels)

    def __len__(self) -> int:
        return len(self.labels)

    def with_preprocessing(self, **changes: Any) -> LazyImageSplit:
        """Return the same pictures with other preprocessing; ``changes`` are fields of `Preprocessing`."""
        return replace(self, preprocessing=replace(self.preprocessing, **changes))

    @property
    def reading(self) -> Preprocessing:
        """Return ``preprocessing``; this is its deprecated name."""
        warn_renamed("LazyImageSplit.reading", "LazyImageSplit.preprocessing")
        return self.preprocessing

    def with_reading(self, **changes: Any) -> LazyImageSplit:
        """Call `with_preprocessing`; this is its deprecated name."""
        warn_renamed("LazyImageSplit.with_reading", "LazyImageSplit.with_preprocessing")
        return self.with_preprocessing(**changes)

    def fingerprint(self) -> str:
        """Return a hash of the preprocessing, the labels, and the names and sizes of the files."""
        digest = hashlib.sha256(repr(self.preprocessing).encode() + self.labels.tobytes())
        for picture in self.pictures:
            if isinstance(picture, np.ndarray):
                digest.update(np.ascontiguousarray(picture).tobytes())
            else:
                size = Path(picture).stat().st_size if Path(picture).is_file() else -1
                digest.update(f"{Path(picture).name} {size}\n".encode())
        return digest.hexdigest()

    def images(self, rows: Rows, *, seed: Seed | None = None) -> np.ndarray:
        """Read, resize, crop and scale pictures.

        Args:
          rows: int[n], indices.
          seed: seed of random crops and flips; the crop of a picture depends on the seed and its index alone. None
            takes the centre and never flips.

        Returns:
          float32[n, size, size, channels].

        Raises:
          FileNotFoundError: a file is missing.
          ImportError: Pillow is missing.
          ValueError: a damaged file, or pictures of several sizes where none is asked for; the message names it.
        """
        images: list[np.ndarray] = []
        for row in rows:
            picture = self.pictures[int(row)]
            image = self.preprocessing.read(picture, None if seed is None else _generator(seed, row))
            if images and image.shape != images[0].shape:  # size=None takes pictures as they are
                operand = "a picture" if isinstance(picture, np.ndarray) else f"file {str(picture)!r}"
                got, rule = _sides(image), f"{_sides(images[0])}, as others have"
                fail("LazyImageSplit.images", operand, got, rule, "Give a size that all are resized to.")
            images.append(image)
        return np.stack(images) if images else np.empty((0, *self.preprocessing.empty_shape), np.float32)


LazyImageSplit.__init__ = renamed_arguments(reading="preprocessing")(LazyImageSplit.__init__)


@dataclass(frozen=True)
class ArrayImageSplit:
    """Labelled images in memory, in the form the network takes.

    Attributes:
      pixels: float32[N, H, W, C], or any float32[N, ...].
      labels: int32[N].
      augmentation: of images that are asked for with a seed; it needs [N, H, W, C].

    Raises:
      ValueError: counts that disagree, another dtype, or no image.

    >>> ArrayImageSplit(np.zeros((2, 4, 4, 1), np.float32), np.array([0, 1], np.int32)).images([1]).shape
    (1, 4, 4, 1)
    """

    pixels: np.ndarray
    labels: np.ndarray
    augmentation: Augmentation | None = None

    def __post_init__(self) -> None:
        check_counts("ArrayImageSplit", "pixels", len(self.pixels), self.labels)
        if self.pixels.dtype != np.float32 or self.pixels.ndim < 2:
            got = f"dtype {self.pixels.dtype} and shape {self.pixels.shape}"
            fail("ArrayImageSplit", "pixels", got, "float32[N, ...]")

    def __len__(self) -> int:
        return len(self.labels)

    def fingerprint(self) -> str:
        """Return a hash of images and labels."""
        head = f"{self.pixels.shape}".encode()
        return hashlib.sha256(head + np.ascontiguousarray(self.pixels).tobytes() + self.labels.tobytes()).hexdigest()

    def images(self, rows: Rows, *, seed: Seed | None = None) -> np.ndarray:
        """Return the images with these indices, changed by ``augmentation`` if there is a seed."""
        return augmented(self.pixels[np.asarray(rows)], rows, seed, self.augmentation)


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

    >>> split = ArrayImageSplit(np.zeros((2, 1, 1, 1), np.float32), np.array([0, 1], np.int32))
    >>> ImageTask("toy", split, split, 2).metric
    'top1'
    """

    name: str
    train: ImageSplit
    test: ImageSplit
    num_classes: int
    val: ImageSplit | None = None
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
        train = ArrayImageSplit(data.train_images, data.train_labels)
        return cls(data.name, train, ArrayImageSplit(data.test_images, data.test_labels), data.num_classes, **options)


def augmented(images: np.ndarray, rows: Rows, seed: Seed | None, augmentation: Augmentation | None) -> np.ndarray:
    """Return float32[n, H, W, C] augmented, each image by the seed and its row alone; unchanged without a seed."""
    if seed is None or augmentation is None or augmentation.is_identity:
        return images
    if augmentation.crop == "resized" or images.ndim != 4:
        got = f"crop {augmentation.crop!r} for images of shape {images.shape[1:]}"
        fail("ImageSplit.images", "augmentation", got, "'shift' or 'none', for images [H, W, C] in memory")
    pairs = zip(images, rows, strict=True)
    return np.stack([augmentation.apply(image, _generator(seed, row)) for image, row in pairs])


def _generator(seed: Seed, row: int) -> np.random.Generator:
    key = (seed,) if isinstance(seed, int) else tuple(seed)
    return np.random.default_rng((*key, int(row)))


def _sides(image: np.ndarray) -> str:
    return f"{image.shape[1]} x {image.shape[0]} pixels"


def check_counts(function: str, operand: str, count: int, labels: np.ndarray) -> None:
    """Refuse labels that are not int32, one for each image, and a split without images."""
    if labels.ndim != 1 or labels.dtype != np.int32:
        fail(function, "labels", f"dtype {labels.dtype} and shape {labels.shape}", "int32[N]")
    if count != len(labels):
        fail(function, "labels", f"{len(labels)} elements", f"{count}, as many as {operand}")
    if not count:
        fail(function, operand, "no element", "at least one image")
