"""Preprocessing: how a picture of any size, from a file or from memory, becomes the input of a network."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from sparsejax._checks import fail
from sparsejax._extras import require
from sparsejax._files import PathLike, existing_file

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Pillow's codes of its resampling filters.
RESAMPLING = {"bilinear": 2, "bicubic": 3}
# Random resized crops: part of the area, width over height, attempts before the centre is taken.
_AREA = (0.08, 1.0)
_ASPECT = (3 / 4, 4 / 3)
_ATTEMPTS = 10


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes the input of a network.

    x = (pixel / 255 - mean) / std

    of the centre crop of ``size`` pixels, after the shorter side is resized to ``resize``. With a random generator, of
    a random part of the picture resized to ``size``, flipped half of the time.

    Attributes:
      resize: pixels of the shorter side.
      size: pixels of the square crop.
      mean, std: per channel, of pixels in [0, 1].
      interpolation: "bilinear", or "bicubic" (the study takes it for networks converted from RigL's TensorFlow code).
      channels: 3 for RGB, 1 for grey.

    Raises:
      ValueError: a crop larger than the resized picture, another interpolation, or means that are not one for each
        channel.

    Source: Iofinova et al. 2022, linear and full fine-tuning; random crops as torchvision's ``RandomResizedCrop``.

    >>> Preprocessing(resize=32, size=28).size
    28
    """

    resize: int = 256
    size: int = 224
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    channels: int = 3

    def __post_init__(self) -> None:
        if not 1 <= self.size <= self.resize:
            fail("Preprocessing", "size", f"value {self.size}", f"1 to {self.resize}, the shorter side after resizing")
        if self.interpolation not in ("bilinear", "bicubic"):
            fail("Preprocessing", "interpolation", f"value {self.interpolation!r}", "'bilinear' or 'bicubic'")
        if self.channels not in (1, 3) or len(self.mean) != self.channels or len(self.std) != self.channels:
            got = f"{len(self.mean)} and {len(self.std)} values"
            fail("Preprocessing", "mean, std", got, f"one for each of {self.channels} channels, 1 or 3")
        if min(self.std) <= 0:
            fail("Preprocessing", "std", f"value {min(self.std)}", "positive numbers")

    def read(self, picture: PathLike | np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """Read a picture into float32[size, size, channels].

        Args:
          picture: path of an image file, or uint8[H, W] or [H, W, 3].
          rng: random generator of the crop and the flip; None takes the centre.

        Raises:
          FileNotFoundError: the file is missing.
          ImportError: Pillow is missing.
        """
        image = open_image("Preprocessing.read", picture, "RGB" if self.channels == 3 else "L")
        filter_ = RESAMPLING[self.interpolation]
        if rng is None:
            scale = self.resize / min(image.size)
            sides = [max(self.resize, int(scale * side)) for side in image.size]  # torchvision truncates the longer
            left, top = (round((side - self.size) / 2) for side in sides)
            image = image.resize(sides, filter_).crop((left, top, left + self.size, top + self.size))
            pixels = np.asarray(image, np.float32)
        else:
            image = image.resize((self.size, self.size), filter_, box=_random_box(*image.size, rng))
            pixels = np.asarray(image, np.float32)
            pixels = pixels[:, ::-1] if rng.random() < 0.5 else pixels
        pixels = pixels.reshape(self.size, self.size, self.channels)
        return (pixels / 255 - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)


def open_image(function: str, picture: PathLike | np.ndarray, mode: str) -> Any:
    """Return a picture as a Pillow image of a mode ("RGB" or "L"); ``function`` is the caller, for messages.

    Raises:
      FileNotFoundError: the file is missing.
      ImportError: Pillow is missing.
    """
    pillow = require("PIL.Image", function)
    if isinstance(picture, np.ndarray):
        return pillow.fromarray(picture).convert(mode)
    with pillow.open(existing_file(function, picture, "an existing image")) as image:
        return image.convert(mode)


def _random_box(width: int, height: int, rng: np.random.Generator) -> tuple[float, float, float, float]:
    """Return the part of a picture that torchvision's ``RandomResizedCrop`` takes: left, top, right, bottom."""
    for _ in range(_ATTEMPTS):
        area = width * height * rng.uniform(*_AREA)
        aspect = math.exp(rng.uniform(math.log(_ASPECT[0]), math.log(_ASPECT[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
            return left, top, left + w, top + h
    w = min(width, round(height * _ASPECT[1]))
    h = min(height, round(width / _ASPECT[0]))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h
