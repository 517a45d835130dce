"""The layouts of the twelve downstream data sets: the folders and lists that their distributors ship.

Each function takes the root folder and returns (training, test), each a pair of pictures and class numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sparsejax._checks import fail
from sparsejax._extras import require
from sparsejax._files import existing_file, existing_folder, text_lines
from sparsejax.data._cifar import read_cifar
from sparsejax.data._image_folder import files_by_class

Split = tuple[Any, Any]
_FUNCTION = "downstream_task"
_HINT = "Nothing is downloaded; see the docstring for the layout."


def _aircraft(root: Path) -> tuple[Split, Split]:
    data = root / "data"
    variants = _lines(data / "variants.txt")

    def split(name: str) -> Split:
        pairs = [line.split(" ", 1) for line in _lines(data / f"images_variant_{name}.txt")]
        return [data / "images" / f"{number}.jpg" for number, _ in pairs], _numbers((v for _, v in pairs), variants)

    return split("trainval"), split("test")


def _birds(root: Path) -> tuple[Split, Split]:
    test_names = set(_lines(root / "test_images.txt")[1:])
    header, *rows = (line.split("\t") for line in _lines(root / "images.txt"))
    path_at, species_at = (_column(root / "images.txt", header, name) for name in ("path", "species_id"))
    folder = root / "images"
    # Many of the addresses in the list are dead: what was not downloaded is left out.
    rows = [row for row in rows if (folder / row[path_at]).is_file()]

    def split(is_test: bool) -> Split:
        chosen = [row for row in rows if (row[path_at] in test_names) == is_test]
        return [folder / row[path_at] for row in chosen], [int(row[species_at]) - 1 for row in chosen]

    return split(False), split(True)


def _caltech101(root: Path) -> tuple[Split, Split]:
    files = files_by_class(_FUNCTION, root / "101_ObjectCategories")
    files.pop("BACKGROUND_Google", None)
    return _first(files, 30)


def _caltech256(root: Path) -> tuple[Split, Split]:
    folder = root / "256_ObjectCategories"
    # Images at the first level only: 056.dog holds a folder with others.
    files = files_by_class(_FUNCTION, folder)
    return _first({name: [p for p in group if p.parent.parent == folder] for name, group in files.items()}, 60)


def _cars(root: Path) -> tuple[Split, Split]:
    def split(name: str, annotations: Path) -> Split:
        rows = np.atleast_1d(_mat(annotations, squeeze_me=True)["annotations"])
        return [root / f"cars_{name}" / str(row["fname"]) for row in rows], [int(row["class"]) - 1 for row in rows]

    test = split("test", root / "cars_test_annos_withlabels.mat")
    return split("train", root / "devkit" / "cars_train_annos.mat"), test


def _dtd(root: Path) -> tuple[Split, Split]:
    classes = sorted(
        path.name for path in existing_folder(_FUNCTION, root / "images", "path", _HINT).iterdir() if path.is_dir()
    )

    def split(names: Sequence[str]) -> Split:
        lines = [line for name in names for line in _lines(root / "labels" / f"{name}1.txt")]
        return [root / "images" / line for line in lines], _numbers((line.split("/")[0] for line in lines), classes)

    return split(("train", "val")), split(("test",))


def _flowers(root: Path) -> tuple[Split, Split]:
    labels = _mat(root / "imagelabels.mat")["labels"].ravel()
    sets = _mat(root / "setid.mat")

    def split(*names: str) -> Split:
        numbers = np.concatenate([sets[name].ravel() for name in names])
        return [root / "jpg" / f"image_{n:05d}.jpg" for n in numbers], [int(labels[n - 1]) - 1 for n in numbers]

    return split("trnid", "valid"), split("tstid")


def _food101(root: Path) -> tuple[Split, Split]:
    classes = _lines(root / "meta" / "classes.txt")

    def split(name: str) -> Split:
        lines = _lines(root / "meta" / f"{name}.txt")
        files = [root / "images" / f"{line}.jpg" for line in lines]
        return files, _numbers((line.split("/")[0] for line in lines), classes)

    return split("train"), split("test")


def _pets(root: Path) -> tuple[Split, Split]:
    def split(name: str) -> Split:
        rows = [line.split() for line in _lines(root / "annotations" / f"{name}.txt")]
        return [root / "images" / f"{row[0]}.jpg" for row in rows], [int(row[1]) - 1 for row in rows]

    return split("trainval"), split("test")


def _sun397(root: Path) -> tuple[Split, Split]:
    # Names begin with "/" and count from the folder of the images: /a/abbey/sun_....jpg
    classes = _lines(root / "ClassName.txt")

    def split(name: str) -> Split:
        lines = _lines(root / f"{name}_01.txt")
        return [root / line.lstrip("/") for line in lines], _numbers(
            (line.rsplit("/", 1)[0] for line in lines), classes
        )

    return split("Training"), split("Testing")


LAYOUTS: dict[str, Callable[[Path], tuple[Split, Split]]] = {
    "aircraft": _aircraft,
    "birds": _birds,
    "caltech101": _caltech101,
    "caltech256": _caltech256,
    "cars": _cars,
    "cifar10": lambda root: read_cifar(root, 10),
    "cifar100": lambda root: read_cifar(root, 100),
    "dtd": _dtd,
    "flowers": _flowers,
    "food101": _food101,
    "pets": _pets,
    "sun397": _sun397,
}


def _first(files: dict[str, list[Path]], count: int) -> tuple[Split, Split]:
    """Split each class: its first ``count`` images in file order are for training, the others for testing."""

    def split(part: slice) -> Split:
        pairs = [(path, label) for label, group in enumerate(files.values()) for path in group[part]]
        return [path for path, _ in pairs], [label for _, label in pairs]

    return split(slice(count)), split(slice(count, None))


def _lines(path: Path) -> list[str]:
    return text_lines(_FUNCTION, path, _HINT)


def _numbers(names: Iterable[str], classes: Sequence[str]) -> list[int]:
    number = {name: i for i, name in enumerate(classes)}
    numbers: list[int] = []
    for name in names:
        if name not in number:
            fail(_FUNCTION, "a list of images", f"class {name!r}", f"one of the {len(classes)} listed")
        numbers.append(number[name])
    return numbers


def _column(path: Path, header: Sequence[str], name: str) -> int:
    if name not in header:
        fail(_FUNCTION, f"file {str(path)!r}", f"columns {list(header)[:6]}", f"a column {name!r}")
    return list(header).index(name)


def _mat(path: Path, **options: bool) -> dict[str, Any]:
    loadmat = require("scipy.io", _FUNCTION, "all").loadmat
    return loadmat(existing_file(_FUNCTION, path, hint=_HINT), **options)
