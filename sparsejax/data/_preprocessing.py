"""Preprocessing: how a picture of any size, from a file or from memory, becomes the input of a network."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sparsejax._checks import fail
from sparsejax._extras import require
from sparsejax._files import PathLike, existing_file, unreadable
from sparsejax.data._augmentation import Augmentation

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# What data sets contain; others, such as PostScript, would start programs.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_MOST_ASPECT = 100
# A photograph has more than a bit for 16 pixels; blank ones of up to 8 megapixels are read too.
_PIXELS_PER_BYTE = 128
_MOST_UNEXPLAINED_PIXELS = 1 << 23
_MOST_PIXELS = 1 << 27
_MOST_RESIZED_PIXELS = 1 << 22
_SKIP = "Remove it, or skip such files with skip_corrupt=True (--skip-corrupt)."
# Pillow's codes of its resampling filters.
RESAMPLING = {"bilinear": 2, "bicubic": 3}
_DEFAULT_AUGMENTATION = Augmentation("resized")
# Random resized crops: part of the area, width over height, attempts before the centre is taken.
_AREA = (0.08, 1.0)
_ASPECT = (3 / 4, 4 / 3)
_ATTEMPTS = 10


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes the input of a network.

    x = (pixel / 255 - mean) / std

    of the centre crop of ``size`` pixels, after the shorter side is resized to ``resize``. With a random generator, of
    what ``augmentation`` makes of it: by default a random part of the picture resized to ``size``, flipped half of the
    time.

    Attributes:
      resize: pixels of the shorter side; without meaning where ``size`` is None.
      size: pixels of the square crop. None takes pictures as they are.
      mean, std: per channel, of pixels in [0, 1].
      interpolation: "bilinear", or "bicubic" (the study takes it for networks converted from RigL's TensorFlow code).
      channels: 3 for RGB, 1 for grey.
      augmentation: what a random generator decides.

    Raises:
      ValueError: a crop larger than the resized picture, another interpolation, means that are not one for each
        channel, or crops to be resized without a size.

    Source: Iofinova et al. 2022, linear and full fine-tuning; random crops as torchvision's ``RandomResizedCrop``.

    >>> Preprocessing(resize=32, size=28).size
    28
    """

    resize: int = 256
    size: int | None = 224
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    channels: int = 3
    augmentation: Augmentation = _DEFAULT_AUGMENTATION

    def __post_init__(self) -> None:
        if self.size is None and self.augmentation.crop == "resized":
            fail("Preprocessing", "augmentation", "crop 'resized' without a size", "a size, or crop 'shift' or 'none'")
        if self.size is not None and not 1 <= self.size <= self.resize:
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
          ValueError: the file is damaged, no image, or out of proportion to its bytes; the message names it.
        """
        image = open_image("Preprocessing.read", picture, "RGB" if self.channels == 3 else "L")
        pixels = self._resized(image, None if self.augmentation.crop != "resized" else rng)
        if rng is not None:
            pixels = self.augmentation.apply(pixels, rng)
        pixels = pixels.reshape(*pixels.shape[:2], self.channels)
        return (pixels / 255 - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)

    @property
    def empty_shape(self) -> tuple[int, int, int]:
        """Shape of an image of no batch: (size, size, channels)."""
        return self.size or 0, self.size or 0, self.channels

    def _resized(self, image: Any, rng: np.random.Generator | None) -> np.ndarray:
        """Return float32[size, size] or [size, size, 3]: a random part of the image, or its centre without rng."""
        filter_ = RESAMPLING[self.interpolation]
        if self.size is None:
            return np.asarray(image, np.float32)
        if rng is not None:
            box = _random_box(image.width, image.height, rng)
            return np.asarray(image.resize((self.size, self.size), filter_, box=box), np.float32)
        scale = self.resize / min(image.size)
        sides = [max(self.resize, int(scale * side)) for side in image.size]  # torchvision truncates the longer
        corner = [round((side - self.size) / 2) for side in sides]
        return resized_crop(image, sides, corner, self.size, filter_)


def open_image(function: str, picture: PathLike | np.ndarray, mode: str) -> Any:
    """Return a picture as a Pillow image of a mode ("RGB" or "L").

    Args:
      function: the caller, for messages.
      picture: path of an image file, or uint8[H, W] or [H, W, 3].
      mode: "RGB" or "L".

    Raises:
      FileNotFoundError: the file is missing.
      ImportError: Pillow is missing.
      ValueError: the file is not an image of the formats above, or it is damaged; one side is more than 100 times the
        other; or more than 2^27 pixels, or more than 2^23 where the file has less than a byte for 128 pixels.
    """
    if isinstance(picture, np.ndarray):
        image = require("PIL.Image", function).fromarray(picture)
        _check_sides(function, "picture", image.size)
        return image.convert(mode)
    path = existing_file(function, picture, "an existing image")
    with _opened(function, path) as image:
        operand = f"file {str(path)!r}"
        _check_sides(function, operand, image.size)
        width, height = image.size
        most = min(_MOST_PIXELS, max(_MOST_UNEXPLAINED_PIXELS, _PIXELS_PER_BYTE * path.stat().st_size))
        if width * height > most:
            fail(function, operand, f"{width} x {height} pixels", f"at most {most} in a file of this size")
        try:
            return image.convert(mode)
        except Exception as error:
            raise unreadable(function, path, error, "an image", _SKIP) from error


def picture_size(function: str, path: Path) -> tuple[int, int]:
    """Return width and height of an image file from its header.

    Raises:
      FileNotFoundError: the file is missing.
      ImportError: Pillow is missing.
      ValueError: the file is not an image.
    """
    with _opened(function, path) as image:
        return image.size


@contextlib.contextmanager
def _opened(function: str, path: Path) -> Generator[Any]:
    opened = require("PIL.Image", function).open
    with contextlib.ExitStack() as stack:
        try:
            image = opened(stack.enter_context(_File(path)), formats=_FORMATS)
        except Exception as error:  # Pillow's readers raise many kinds for damaged files
            raise unreadable(function, path, error, "an image", _SKIP) from error
        yield image


class _File(io.BufferedReader):
    """A file whose ``read`` reserves no more than what is left of it, whatever length its content declares."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self._size = path.stat().st_size

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(0, self._size - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left))


def resized_crop(image: Any, sides: Sequence[int], corner: Sequence[int], size: int, resampling: int) -> np.ndarray:
    """Resize an image and cut out a square; only the square is resized where the whole would be large.

    Args:
      image: Pillow image.
      sides: width and height after resizing.
      corner: left and top of the square, in pixels after resizing.
      size: of the square, pixels.
      resampling: Pillow's code of the filter.

    Returns:
      float32[size, size] or [size, size, 3].
    """
    left, top = corner
    if sides[0] * sides[1] <= _MOST_RESIZED_PIXELS:
        square = image.resize(sides, resampling).crop((left, top, left + size, top + size))
    else:
        factors = [old / new for old, new in zip(image.size, sides, strict=True)]
        ends = [
            min(old, (start + size) * factor) for old, start, factor in zip(image.size, corner, factors, strict=True)
        ]
        square = image.resize((size, size), resampling, box=(left * factors[0], top * factors[1], *ends))
    return np.asarray(square, np.float32)


def _check_sides(function: str, operand: str, sides: tuple[int, int]) -> None:
    if not 1 <= max(sides) <= _MOST_ASPECT * min(sides):
        got = f"{sides[0]} x {sides[1]} pixels"
        fail(function, operand, got, f"no side more than {_MOST_ASPECT} times the other")


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
