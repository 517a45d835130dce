"""Images in a tree of folders, one folder for each class."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from sparsejax._checks import fail
from sparsejax._files import PathLike, existing_folder, naming
from sparsejax._surface import renamed_arguments
from sparsejax.data._picture_checks import check_one_size, unreadable_pictures
from sparsejax.data._preprocessing import Preprocessing
from sparsejax.data._task import ImageTask, LazyImageSplit

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".webp", ".tif", ".tiff")
_FUNCTION = "image_folder"


@renamed_arguments(reading="preprocessing")
def image_folder(
    root: PathLike, preprocessing: Preprocessing | None = None, *, skip_corrupt: bool = False
) -> ImageTask:
    """Read a tree ``root/train/CLASS/*``, ``root/test/CLASS/*`` and optionally ``root/val/CLASS/*``.

    Classes are numbered in the order of their names, files are in the order of theirs. A class may have folders in its
    folder, at any depth. Files with other suffixes than those of images are ignored.

    Args:
      root: the folder.
        Without ``test``, ``val`` is the test split.
      preprocessing: how pictures are resized, cropped and scaled; as for ImageNet if None. With ``size=None`` the
        headers of all files are read, because all must have one size.
      skip_corrupt: decode every picture once, and leave out those that cannot be read, with a warning that names
        them. By default reading such a picture is an error, when it is first needed.

    Returns:
      `ImageTask` named for the folder; pictures are opened when they are needed.

    Raises:
      FileNotFoundError: no such folder, no ``train`` or no test folder, or a folder without images.
      ValueError: splits with different classes, or pictures of several sizes with ``size=None``.
    """
    root = existing_folder(_FUNCTION, root, "root")
    present = [name for name in ("train", "val", "test") if (root / name).is_dir()]
    if "train" not in present or len(present) < 2:
        rule = "the folders train and test (or val)"
        fail(_FUNCTION, f"folder {str(root)!r}", f"the folders {present}", rule, error=FileNotFoundError)
    preprocessing = preprocessing or Preprocessing()
    files = {name: files_by_class(_FUNCTION, root / name) for name in present}
    classes = list(files["train"])
    for name, group in files.items():
        if list(group) != classes:
            odd = sorted(set(group) ^ set(classes))
            fail(_FUNCTION, f"folder {str(root / name)!r}", f"other classes ({', '.join(odd[:5])})", "those of train")
    if skip_corrupt:
        files = {name: _readable(root / name, group) for name, group in files.items()}
    if preprocessing.size is None:
        check_one_size(_FUNCTION, [path for groups in files.values() for group in groups.values() for path in group])
    splits = {name: _split(group, preprocessing) for name, group in files.items()}
    test = splits["test" if "test" in splits else "val"]
    val = splits.get("val") if "test" in splits else None
    with naming(root):
        return ImageTask(root.resolve().name, splits["train"], test, len(classes), val=val)


def files_by_class(function: str, root: Path) -> dict[str, list[Path]]:
    """Return the image files of each class folder in ``root``, both in the order of their names.

    Raises:
      FileNotFoundError: no class folder, or one without images.
    """
    folders = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    if not folders:
        fail(function, f"folder {str(root)!r}", "no folder", "one for each class", error=FileNotFoundError)
    files = {folder.name: sorted(path for path in folder.rglob("*") if is_image(path)) for folder in folders}
    for name, group in files.items():
        if not group:
            fail(function, f"folder {str(root / name)!r}", "no image", "at least one", error=FileNotFoundError)
    return files


def is_image(path: Path) -> bool:
    """Tell whether a file is an image by its name.

    >>> is_image(Path("a.txt"))
    False
    """
    return path.suffix.lower() in SUFFIXES and path.is_file()


def _readable(folder: Path, files: dict[str, list[Path]]) -> dict[str, list[Path]]:
    """Leave out pictures that cannot be decoded, with a warning."""
    bad = unreadable_pictures(_FUNCTION, [path for group in files.values() for path in group])
    for path, reason in bad:
        warnings.warn(f"Skipped {str(path)!r}: {reason}", UserWarning, stacklevel=4)
    skipped = {path for path, _ in bad}
    kept = {name: [path for path in group if path not in skipped] for name, group in files.items()}
    for name, group in kept.items():
        if not group:
            got = f"{len(files[name])} images, none of which can be read"
            fail(_FUNCTION, f"folder {str(folder / name)!r}", got, "at least one")
    return kept


def _split(files: dict[str, list[Path]], preprocessing: Preprocessing) -> LazyImageSplit:
    """Return the split of files by class, labelled in the order of the classes."""
    paths = [path for group in files.values() for path in group]
    labels = np.repeat(np.arange(len(files), dtype=np.int32), [len(group) for group in files.values()])
    return LazyImageSplit(paths, labels, preprocessing)
