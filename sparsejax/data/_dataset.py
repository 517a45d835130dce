"""A labelled image data set in memory."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sparsejax._checks import fail


@dataclass(frozen=True)
class Dataset:
    """Images and labels, split into training and test examples.

    Attributes:
      name: where the data came from, for tables and logs.
      train_images: float32[N, H, W, C], scaled to [0, 1] by the loaders.
      train_labels: int32[N], in [0, num_classes).
      test_images: float32[M, H, W, C].
      test_labels: int32[M].
      num_classes: number of classes.

    Raises:
      ValueError: images that are not float32[N, H, W, C], splits of different image shape, counts that
        disagree, labels of another dtype or outside [0, num_classes), or an empty split.

    >>> images, labels = np.zeros((4, 2, 2, 1), np.float32), np.array([0, 1, 0, 1], np.int32)
    >>> Dataset("toy", images[:3], labels[:3], images[3:], labels[3:], 2).image_shape
    (2, 2, 1)
    """

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    num_classes: int

    def __post_init__(self):
        for split, images, labels in (
            ("train", self.train_images, self.train_labels),
            ("test", self.test_images, self.test_labels),
        ):
            _check_split(split, images, labels, self.num_classes)
        if self.train_images.shape[1:] != self.test_images.shape[1:]:
            fail(
                "Dataset",
                "test_images",
                f"shape {self.test_images.shape}",
                f"images of shape {self.image_shape}, as in train_images",
            )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of one image."""
        height, width, channels = self.train_images.shape[1:]
        return height, width, channels

    def standardized(self) -> Dataset:
        """Return the data shifted and scaled to zero mean and unit deviation on the training images.

        x'[n, i, j, c] = (x[n, i, j, c] - mean_c) / std_c, with the mean and the (population) standard
        deviation of channel c over all training images and pixels. Test images use the training numbers.
        Statistics are summed in float64. A constant channel is only shifted.

        Returns:
          A new `Dataset`; this one is unchanged.

        >>> images, labels = np.array([1, 3], np.float32).reshape(2, 1, 1, 1), np.zeros(2, np.int32)
        >>> Dataset("toy", images, labels, images, labels, 1).standardized().train_images.ravel().tolist()
        [-1.0, 1.0]
        """
        mean = self.train_images.mean(axis=(0, 1, 2), dtype=np.float64)
        std = self.train_images.std(axis=(0, 1, 2), dtype=np.float64)
        shift = mean.astype(np.float32)
        scale = np.where(std > 0, std, 1.0).astype(np.float32)
        return replace(
            self,
            train_images=(self.train_images - shift) / scale,
            test_images=(self.test_images - shift) / scale,
        )


def _check_split(split: str, images: np.ndarray, labels: np.ndarray, num_classes: int) -> None:
    if images.ndim != 4 or images.dtype != np.float32 or not images.size:
        fail(
            "Dataset",
            f"{split}_images",
            f"dtype {images.dtype} and shape {images.shape}",
            "float32[N, H, W, C] with nothing empty",
        )
    if labels.dtype != np.int32 or labels.shape != images.shape[:1]:
        fail(
            "Dataset",
            f"{split}_labels",
            f"dtype {labels.dtype} and shape {labels.shape}",
            f"int32[{images.shape[0]}], one for each image",
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        fail("Dataset", f"{split}_labels", f"values {low} to {high}", f"the range 0 to {num_classes - 1}")
