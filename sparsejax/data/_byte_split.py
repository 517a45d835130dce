"""Images of bytes in memory or in a mapped file, scaled a batch at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sparsejax._checks import fail
from sparsejax.data._augmentation import Augmentation
from sparsejax.data._task import Rows, Seed, augmented, check_counts

# Images per piece in passes over all of them: bounds the memory of a mapped file.
_CHUNK = 4096


@dataclass(frozen=True)
class ByteImageSplit:
    """Labelled images of one size as bytes; a batch is scaled when it is asked for.

    x = (pixel / 255 - mean) / std

    So N images take N * H * W * C bytes, and next to nothing where ``pixels`` is a mapped file (``numpy.memmap``).

    Attributes:
      pixels: uint8[N, H, W, C].
      labels: int32[N].
      mean, std: per channel, of pixels in [0, 1].
      augmentation: of batches that are asked for with a seed.

    Raises:
      ValueError: counts that disagree, another dtype or rank, no image, or means that are not one for each channel.

    >>> pixels, labels = np.full((2, 4, 4, 1), 255, np.uint8), np.array([0, 1], np.int32)
    >>> float(ByteImageSplit(pixels, labels, (0.5,), (0.5,)).images([1]).max())
    1.0
    """

    pixels: np.ndarray
    labels: np.ndarray
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentation: Augmentation | None = None

    def __post_init__(self) -> None:
        check_counts("ByteImageSplit", "pixels", len(self.pixels), self.labels)
        if self.pixels.dtype != np.uint8 or self.pixels.ndim != 4:
            got = f"dtype {self.pixels.dtype} and shape {self.pixels.shape}"
            fail("ByteImageSplit", "pixels", got, "uint8[N, H, W, C]")
        channels = self.pixels.shape[-1]
        if len(self.mean) != channels or len(self.std) != channels or min(self.std) <= 0:
            got = f"values {self.mean} and {self.std}"
            fail("ByteImageSplit", "mean, std", got, f"a number for each of {channels} channels, deviations above 0")

    def __len__(self) -> int:
        return len(self.labels)

    def fingerprint(self) -> str:
        """Return a hash of scaling, images and labels."""
        digest = hashlib.sha256(repr((self.mean, self.std, self.augmentation, self.pixels.shape)).encode())
        for start in range(0, len(self), _CHUNK):
            digest.update(np.ascontiguousarray(self.pixels[start : start + _CHUNK]).tobytes())
        digest.update(self.labels.tobytes())
        return digest.hexdigest()

    def images(self, rows: Rows, *, seed: Seed | None = None) -> np.ndarray:
        """Return float32[n, H, W, C]; changed by ``augmentation`` if there is a seed."""
        pixels = np.asarray(self.pixels[np.asarray(rows)], np.float32) / np.float32(255)
        images = (pixels - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        return augmented(images, rows, seed, self.augmentation)


def channel_statistics(pixels: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and population standard deviation of each channel of uint8[N, H, W, C], pixels in [0, 1].

    The sums are exact, whatever the size; the deviation of a constant channel is given as 1.

    >>> channel_statistics(np.array([0, 255], np.uint8).reshape(2, 1, 1, 1))
    ((0.5,), (0.5,))
    """
    totals = np.zeros((2, pixels.shape[-1]), np.int64)
    for start in range(0, len(pixels), _CHUNK):
        part = np.asarray(pixels[start : start + _CHUNK], np.int64)
        totals += [part.sum((0, 1, 2)), (part * part).sum((0, 1, 2))]
    count = pixels.size // pixels.shape[-1]
    mean = totals[0] / count
    std = np.sqrt(np.maximum(totals[1] / count - mean**2, 0))
    return _scaled(mean), _scaled(np.where(std > 0, std, 255.0))


def _scaled(values: Sequence[float] | np.ndarray) -> tuple[float, ...]:
    return tuple(float(value) / 255 for value in values)
