"""Images in a tree of folders, one folder for each class."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from sparsejax._checks import fail
from sparsejax.data._preprocessing import Reading
from sparsejax.data._task import ImageTask, Pictures

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".webp", ".tif", ".tiff")
_FUNCTION = "image_folder"


def image_folder(root: str | os.PathLike[str], reading: Reading | None = None) -> ImageTask:
    """Read a tree ``root/train/CLASS/*`` and ``root/test/CLASS/*``, and ``root/val/CLASS/*`` if there.

    Classes are numbered in the order of their names, files are in the order of theirs; images are found in folders of
    classes at any depth. Files that are no images are passed over.

    Args:
      root: the folder.
      reading: how pictures are read; as for ImageNet if None. Without a ``test`` folder, ``val`` is the test split.

    Returns:
      `ImageTask` named for the folder; pictures are opened when they are needed.

    Raises:
      FileNotFoundError: no such folder, no ``train`` or no test folder, or a folder without images.
      ValueError: splits with different classes.
    """
    root = Path(root)
    if not root.is_dir():
        fail(_FUNCTION, "root", f"value {str(root)!r}", "an existing folder", error=FileNotFoundError)
    present = [name for name in ("train", "val", "test") if (root / name).is_dir()]
    if "train" not in present or len(present) < 2:
        rule = "the folders train and test (or val)"
        fail(_FUNCTION, f"folder {str(root)!r}", f"the folders {present}", rule, error=FileNotFoundError)
    reading = reading or Reading()
    found = {name: files_by_class(_FUNCTION, root / name) for name in present}
    classes = list(found["train"])
    for name, files in found.items():
        if list(files) != classes:
            odd = sorted(set(files) ^ set(classes))
            fail(_FUNCTION, f"folder {str(root / name)!r}", f"other classes ({', '.join(odd[:5])})", "those of train")
    splits = {name: pictures_of(files, reading) for name, files in found.items()}
    test = splits.get("test", splits.get("val"))
    assert test is not None
    val = splits.get("val") if "test" in splits else None
    return ImageTask(root.resolve().name, splits["train"], test, len(classes), val=val)


def files_by_class(function: str, root: Path) -> dict[str, list[Path]]:
    """Image files of each class folder in ``root``, both in the order of their names.

    Raises:
      FileNotFoundError: no class folder, or one without images.
    """
    folders = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    if not folders:
        fail(function, f"folder {str(root)!r}", "no folder", "one for each class", error=FileNotFoundError)
    found = {folder.name: sorted(path for path in folder.rglob("*") if is_image(path)) for folder in folders}
    for name, files in found.items():
        if not files:
            fail(function, f"folder {str(root / name)!r}", "no image", "at least one", error=FileNotFoundError)
    return found


def is_image(path: Path) -> bool:
    """Whether a file is an image by its name.

    >>> is_image(Path("a.txt"))
    False
    """
    return path.suffix.lower() in SUFFIXES and path.is_file()


def pictures_of(files: dict[str, list[Path]], reading: Reading) -> Pictures:
    """Pictures and labels of files by class."""
    paths = [path for group in files.values() for path in group]
    labels = np.repeat(np.arange(len(files), dtype=np.int32), [len(group) for group in files.values()])
    return Pictures(paths, labels, reading)
