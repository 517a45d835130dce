"""CelebA in the layout of torchvision: attributes without images, and images on demand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

import numpy as np

from sparsejax._checks import fail
from sparsejax._files import PathLike, path_below, text_lines, whole_number
from sparsejax.data._preprocessing import RESAMPLING, open_image, resized_crop
from sparsejax.data._task import Rows, Seed

_FUNCTION = "read_celeba_attributes"
SPLITS = ("train", "val", "test")
Marker = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class CelebA:
    """The annotations of CelebA: subjective labels of photographs, not facts about the people in them.

    Attributes:
      folder: ``<root>/celeba``.
      names: the attribute names.
      labels: uint8[n, K] in {0, 1}.
      split: int8[n]: 0 train, 1 validation, 2 test.
      files: n names of image files.
      identities: int64[n], the person in the image, for resampling by person; None if that file is absent.
      pictures: folder of the image files, in ``folder``.
    """

    folder: Path
    names: tuple[str, ...]
    labels: np.ndarray
    split: np.ndarray
    files: tuple[str, ...]
    identities: np.ndarray | None
    pictures: str = "img_align_celeba"

    def rows(self, split: Literal["train", "val", "test"]) -> np.ndarray:
        """Return the indices of the samples of a split."""
        if split not in SPLITS:
            fail("CelebA.rows", "split", f"value {split!r}", f"one of {SPLITS}")
        return np.flatnonzero(self.split == SPLITS.index(split))

    def column(self, name: str) -> int:
        """Return the column of an attribute."""
        if name not in self.names:
            fail("CelebA.column", "name", f"value {name!r}", f"one of {self.names}")
        return self.names.index(name)

    def images(
        self,
        rows: Rows,
        *,
        resize: int = 256,
        size: int = 224,
        seed: Seed | None = None,
        before: dict[int, Marker] | None = None,
    ) -> np.ndarray:
        """Read images: shorter side to ``resize`` pixels, a square crop of ``size``, values (x - 0.5) / 0.5.

        Args:
          rows: indices of samples.
          resize: pixels of the shorter side before the crop.
          size: pixels of the crop.
          seed: one or several numbers, of random crops and horizontal flips, for training; None takes the centre and
            never flips.
          before: functions uint8[H, W, 3] -> the same, by row, applied to the raw image (the grayscale marker).

        Returns:
          float32[len(rows), size, size, 3] in [-1, 1].

        Raises:
          ValueError: a crop larger than the resized image.
          FileNotFoundError: an image is missing.
          ImportError: Pillow is missing.
        """
        if not 1 <= size <= resize:
            fail("CelebA.images", "size", f"value {size}", f"1 to {resize}, the shorter side after resizing")
        rng = None if seed is None else np.random.default_rng(seed)
        out = np.empty((len(rows), size, size, 3), np.float32)
        for image, row in zip(out, rows, strict=True):
            marker = (before or {}).get(int(row))
            image[:] = _read(self.folder / self.pictures / self.files[row], resize, size, rng, marker)
        return out


def read_celeba_attributes(root: PathLike) -> CelebA:
    """Read the annotations of CelebA from the text files; no image is opened and nothing is downloaded.

    Args:
      root: the folder with ``celeba/list_attr_celeba.txt`` and ``celeba/list_eval_partition.txt``, and optionally
        ``celeba/identity_CelebA.txt`` and ``celeba/img_align_celeba/``. Download them from the authors' page; CelebA is
        for non-commercial research.

    Returns:
      `CelebA`, in the order of the attribute file; the files are joined on the names of the images.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: a file is not in the published form, or an image is in one file and not in the other.

    Source: Liu et al. 2015, "Deep Learning Face Attributes in the Wild"; layout as ``torchvision.datasets.CelebA``.
    """
    folder = Path(root) / "celeba"
    names, files, labels = _attributes(folder / "list_attr_celeba.txt")
    split = _joined(folder / "list_eval_partition.txt", files)
    if not np.isin(split, (0, 1, 2)).all():
        _refuse(folder / "list_eval_partition.txt", f"split {split[~np.isin(split, (0, 1, 2))][0]}", "0, 1 or 2")
    people = folder / "identity_CelebA.txt"
    identities = _joined(people, files) if people.is_file() else None
    return CelebA(folder, names, labels, split.astype(np.int8), files, identities)


def _attributes(path: Path) -> tuple[tuple[str, ...], tuple[str, ...], np.ndarray]:
    lines = _lines(path)
    count = whole_number(lines[0].strip()) if len(lines) > 2 else None
    if count is None:
        _refuse(path, f"{len(lines)} lines", "a count, a line of names, and a line per image")
    names = tuple(lines[1].split())
    rows = [line.split() for line in lines[2:] if line.strip()]
    if len(rows) != count:
        _refuse(path, f"{len(rows)} images", f"{count}, the count in its first line")
    for row in rows:
        if len(row) != len(names) + 1 or not set(row[1:]) <= {"-1", "1"}:
            _refuse(path, f"line {' '.join(row)[:60]!r}", f"a file name and {len(names)} values -1 or 1")
    labels = np.array([row[1:] for row in rows]) == "1"
    files = tuple(row[0] for row in rows)
    for name in files:
        path_below(_FUNCTION, path.parent, name, path)
    if len(set(files)) != len(files):
        _refuse(path, "an image twice", "every image once")
    return names, files, labels.astype(np.uint8)


def _joined(path: Path, files: Sequence[str]) -> np.ndarray:
    """Return the integer of each image in a file, in the order of ``files``."""
    numbers: dict[str, int] = {}
    for line in _lines(path):
        parts = line.split()
        number = whole_number(parts[1]) if len(parts) == 2 else None
        if number is None:
            _refuse(path, f"line {line[:60]!r}", "a file name and a whole number")
        numbers[parts[0]] = number
    missing = next((name for name in files if name not in numbers), None)
    if missing is not None or len(numbers) != len(files):
        odd = missing or next(iter(set(numbers) - set(files)))
        got = f"{len(numbers)} images, and {odd[:60]!r} in one file only"
        _refuse(path, got, f"the {len(files)} of list_attr_celeba.txt")
    return np.array([numbers[name] for name in files], np.int64)


def _lines(path: Path) -> list[str]:
    return text_lines(_FUNCTION, path, "Nothing is downloaded; see the docstring.")


def _refuse(path: Path, got: str, expected: str) -> NoReturn:
    fail(_FUNCTION, f"file {str(path)!r}", got, expected)


def _read(path: Path, resize: int, size: int, rng: np.random.Generator | None, marker: Marker | None) -> np.ndarray:
    picture = open_image("CelebA.images", path, "RGB")
    if marker is not None:
        picture = open_image("CelebA.images", marker(np.asarray(picture)), "RGB")
    scale = resize / min(picture.size)
    sides = [max(resize, round(scale * side)) for side in picture.size]
    spare = [side - size for side in sides]
    corner = [s // 2 if rng is None else int(rng.integers(0, s + 1)) for s in spare]
    pixels = resized_crop(picture, sides, corner, size, RESAMPLING["bilinear"])
    if rng is not None and rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    return (pixels / 255 - 0.5) / 0.5
