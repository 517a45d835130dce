"""Pictures of any size, from files or memory, brought to the size a network takes when they are asked for."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sparsejax._checks import fail
from sparsejax._extras import require

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Random resized crops: part of the area, width over height, attempts before the centre is taken.
_AREA = (0.08, 1.0)
_ASPECT = (3 / 4, 4 / 3)
_ATTEMPTS = 10


@dataclass(frozen=True)
class Reading:
    """How a picture becomes the input of a network.

    x = (pixel / 255 - mean) / std of the picture with its shorter side at ``resize``, centre crop ``size``; or, where
    a seed is given, of a random part of it at ``size``, flipped half of the time

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

    >>> Reading(resize=32, size=28).size
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
            fail("Reading", "size", f"value {self.size}", f"1 to {self.resize}, the shorter side after resizing")
        if self.interpolation not in ("bilinear", "bicubic"):
            fail("Reading", "interpolation", f"value {self.interpolation!r}", "'bilinear' or 'bicubic'")
        if self.channels not in (1, 3) or len(self.mean) != self.channels or len(self.std) != self.channels:
            got = f"{len(self.mean)} and {len(self.std)} values"
            fail("Reading", "mean, std", got, f"one for each of {self.channels} channels, 1 or 3")
        if min(self.std) <= 0:
            fail("Reading", "std", f"value {min(self.std)}", "positive numbers")

    def read(self, picture: Path | np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """Return float32[size, size, channels].

        Args:
          picture: path of an image file, or uint8[H, W] or [H, W, 3].
          rng: of the random crop; None takes the centre.
        """
        image = _pillow()
        opened = _open(image, picture, "RGB" if self.channels == 3 else "L")
        how = getattr(image.Resampling, self.interpolation.upper())
        if rng is None:
            scale = self.resize / min(opened.size)
            sides = [max(self.resize, int(scale * side)) for side in opened.size]  # torchvision truncates the longer
            left, top = (round((side - self.size) / 2) for side in sides)
            opened = opened.resize(sides, how).crop((left, top, left + self.size, top + self.size))
            pixels = np.asarray(opened, np.float32)
        else:
            opened = opened.resize((self.size, self.size), how, box=_random_box(*opened.size, rng))
            pixels = np.asarray(opened, np.float32)
            pixels = pixels[:, ::-1] if rng.random() < 0.5 else pixels
        pixels = pixels.reshape(self.size, self.size, self.channels)
        return (pixels / 255 - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)


@dataclass(frozen=True)
class Pictures:
    """Labelled pictures that are read when they are asked for.

    Attributes:
      pictures: paths, or uint8 arrays [H, W] or [H, W, 3]; also one array of them.
      labels: int32[N].
      reading: how they are read.

    Raises:
      ValueError: counts that disagree, or no picture.
    """

    pictures: Sequence[Any] | np.ndarray
    labels: np.ndarray
    reading: Reading = field(default_factory=Reading)

    def __post_init__(self) -> None:
        _check_counts("Pictures", "pictures", len(self.pictures), self.labels)

    def __len__(self) -> int:
        return len(self.labels)

    def with_reading(self, **changes: Any) -> Pictures:
        """Return the same pictures, read in another way; ``changes`` are fields of `Reading`."""
        return replace(self, reading=replace(self.reading, **changes))

    def fingerprint(self) -> str:
        """Return a hash of how pictures are read, of their labels, and of the names and sizes of their files."""
        digest = hashlib.sha256(repr(self.reading).encode() + self.labels.tobytes())
        for picture in self.pictures:
            if isinstance(picture, np.ndarray):
                digest.update(np.ascontiguousarray(picture).tobytes())
            else:
                size = Path(picture).stat().st_size if Path(picture).is_file() else -1
                digest.update(f"{Path(picture).name} {size}\n".encode())
        return digest.hexdigest()

    def images(self, rows: Any, *, seed: int | Sequence[int] | None = None) -> np.ndarray:
        """Read pictures.

        Args:
          rows: int[n], indices.
          seed: of random crops and flips; a picture's crop depends on the seed and its index alone. None: centre crops.

        Returns:
          float32[n, size, size, channels].

        Raises:
          FileNotFoundError: a file is missing.
          ImportError: Pillow is missing.
        """
        reading = self.reading
        out = np.empty((len(rows), reading.size, reading.size, reading.channels), np.float32)
        key = None if seed is None else (seed,) if isinstance(seed, int) else tuple(seed)
        for image, row in zip(out, rows, strict=True):
            rng = None if key is None else np.random.default_rng((*key, int(row)))
            image[:] = reading.read(self.pictures[int(row)], rng)
        return out


@dataclass(frozen=True)
class ArrayImages:
    """Labelled images in memory, in the form the network takes.

    Attributes:
      pixels: float32[N, H, W, C], or any float32[N, ...].
      labels: int32[N].

    Raises:
      ValueError: counts that disagree, another dtype, or no image.

    >>> ArrayImages(np.zeros((2, 4, 4, 1), np.float32), np.array([0, 1], np.int32)).images([1]).shape
    (1, 4, 4, 1)
    """

    pixels: np.ndarray
    labels: np.ndarray

    def __post_init__(self) -> None:
        _check_counts("ArrayImages", "pixels", len(self.pixels), self.labels)
        if self.pixels.dtype != np.float32 or self.pixels.ndim < 2:
            got = f"dtype {self.pixels.dtype} and shape {self.pixels.shape}"
            fail("ArrayImages", "pixels", got, "float32[N, ...]")

    def __len__(self) -> int:
        return len(self.labels)

    def fingerprint(self) -> str:
        """Return a hash of images and labels."""
        head = f"{self.pixels.shape}".encode()
        return hashlib.sha256(head + np.ascontiguousarray(self.pixels).tobytes() + self.labels.tobytes()).hexdigest()

    def images(self, rows: Any, *, seed: int | Sequence[int] | None = None) -> np.ndarray:
        """Return the images with these indices; they are the same for every seed."""
        return self.pixels[np.asarray(rows)]


def _check_counts(function: str, operand: str, count: int, labels: np.ndarray) -> None:
    if labels.ndim != 1 or labels.dtype != np.int32:
        fail(function, "labels", f"dtype {labels.dtype} and shape {labels.shape}", "int32[N]")
    if count != len(labels):
        fail(function, "labels", f"{len(labels)} elements", f"{count}, as many as {operand}")
    if not count:
        fail(function, operand, "no element", "at least one image")


def _random_box(width: int, height: int, rng: np.random.Generator) -> tuple[float, float, float, float]:
    """The part of a picture that torchvision's ``RandomResizedCrop`` takes: left, top, right, bottom."""
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


def _open(image: Any, picture: Any, mode: str) -> Any:
    if isinstance(picture, np.ndarray):
        return image.fromarray(picture).convert(mode)
    if not Path(picture).is_file():
        fail("Pictures.images", f"file {str(picture)!r}", "no content", "an existing image", error=FileNotFoundError)
    with image.open(picture) as opened:
        return opened.convert(mode)


def _pillow() -> Any:
    return require("PIL.Image", "Pictures.images")
