"""Random crops and flips of training images, each a pure function of its seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from sparsejax._checks import check_integer, fail

Crop = Literal["none", "shift", "resized"]


@dataclass(frozen=True)
class Augmentation:
    """Random changes of a training image.

    Splits draw from ``numpy.random.default_rng((*seed, row))``: what happens to an image depends on the seed that is
    passed and on its row alone, not on the batch it is in, the order of reading, or the number of threads.

    Attributes:
      crop: "shift" moves the image by up to ``padding`` pixels in each direction and fills with zeros; "resized" takes
        a random part of 8 to 100 % of the area and resizes it (image files only); "none" changes nothing.
      flip: mirror left and right half of the time.
      padding: pixels, for "shift".

    Raises:
      ValueError: an unknown crop, or a negative padding.

    Source: "shift" is the padded random crop of He et al. 2016, "Deep Residual Learning", section 4.2; "resized" is
    torchvision's ``RandomResizedCrop``.

    >>> Augmentation("none", flip=False).is_identity
    True
    """

    crop: Crop = "shift"
    flip: bool = True
    padding: int = 4

    def __post_init__(self) -> None:
        if self.crop not in get_args(Crop):
            fail("Augmentation", "crop", f"value {self.crop!r}", f"one of {', '.join(get_args(Crop))}")
        check_integer("Augmentation", "padding", self.padding, 0)

    @property
    def is_identity(self) -> bool:
        """Whether no image is changed."""
        return self.crop == "none" and not self.flip

    def apply(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Shift and flip one image.

        Args:
          pixels: array[H, W, C] or [H, W].
          rng: what is drawn from.

        Returns:
          An array of the same shape; not written to ``pixels``.

        >>> Augmentation("shift", flip=False, padding=0).apply(np.ones((2, 2, 1)), np.random.default_rng(0)).sum()
        np.float64(4.0)
        """
        if self.crop == "shift" and self.padding:
            pixels = _shifted(pixels, *rng.integers(-self.padding, self.padding + 1, 2))
        return pixels[:, ::-1] if self.flip and rng.random() < 0.5 else pixels


def _shifted(pixels: np.ndarray, down: int, right: int) -> np.ndarray:
    """Move an image, and fill with zeros what it leaves."""
    height, width = pixels.shape[:2]
    moved = np.zeros_like(pixels)
    if abs(down) < height and abs(right) < width:
        rows, from_rows = _overlap(down, height)
        columns, from_columns = _overlap(right, width)
        moved[rows, columns] = pixels[from_rows, from_columns]
    return moved


def _overlap(offset: int, size: int) -> tuple[slice, slice]:
    """Where the part of an axis that stays in the image goes, and where it comes from."""
    return slice(max(0, offset), size + min(0, offset)), slice(max(0, -offset), size - max(0, offset))
