"""The layouts of the twelve downstream data sets: the folders and lists that their distributors ship.

Each function takes the root folder and returns (training, test), each a pair of pictures and class numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import numpy as np

from sparsejax._checks import fail
from sparsejax._files import existing_folder, path_below, text_lines, whole_number
from sparsejax.data._cifar import read_cifar
from sparsejax.data._image_folder import files_by_class
from sparsejax.data._matlab import read_matlab

Split: TypeAlias = tuple[Any, list[int]]
_FUNCTION = "downstream_task"
_MOST = 1_000_000
_HINT = "Nothing is downloaded; see the docstring for the layout."


def _aircraft(root: Path) -> tuple[Split, Split]:
    data = root / "data"
    variants = _lines(data / "variants.txt")

    def split(name: str) -> Split:
        source = data / f"images_variant_{name}.txt"
        rows = _rows(source, 2, " ", 1)
        images = [_image(data / "images", f"{number}.jpg", source) for number, _ in rows]
        return images, _classes(source, (variant for _, variant in rows), variants)

    return split("trainval"), split("test")


def _birds(root: Path) -> tuple[Split, Split]:
    source, folder = root / "images.txt", root / "images"
    test_names = set(_lines(root / "test_images.txt")[1:])
    header, *rows = _rows(source, 2, "\t") or [[]]
    columns = [_column(source, header, name) for name in ("path", "species_id")]
    pairs: list[tuple[str, Path, int]] = []
    for row in rows:
        if len(row) <= max(columns):
            _refuse(source, f"line {_shown(row)}", f"{len(header)} columns")
        name, species = (row[column] for column in columns)
        image, label = _image(folder, name, source), _class(source, species)
        # Many of the addresses in the list are dead: images that were not downloaded are left out.
        if image.is_file():
            pairs.append((name, image, label))

    def split(is_test: bool) -> Split:
        chosen = [pair for pair in pairs if (pair[0] in test_names) == is_test]
        return [image for _, image, _ in chosen], [label for _, _, label in chosen]

    return split(False), split(True)


def _caltech101(root: Path) -> tuple[Split, Split]:
    files = files_by_class(_FUNCTION, root / "101_ObjectCategories")
    files.pop("BACKGROUND_Google", None)
    return _first(files, 30)


def _caltech256(root: Path) -> tuple[Split, Split]:
    folder = root / "256_ObjectCategories"
    # Images at the first level only: 056.dog has a folder with others.
    files = files_by_class(_FUNCTION, folder)
    return _first({name: [p for p in group if p.parent.parent == folder] for name, group in files.items()}, 60)


def _cars(root: Path) -> tuple[Split, Split]:
    def split(name: str, source: Path) -> Split:
        rows = read_matlab(_FUNCTION, source, ["annotations"], _HINT)["annotations"]
        if not isinstance(rows, list) or not all({"fname", "class"} <= set(row) for row in rows):
            _refuse(source, "annotations of another form", "structures with fname and class")
        images = [_image(root / f"cars_{name}", str(row["fname"]), source) for row in rows]
        return images, [number - 1 for row in rows for number in _integers(source, row["class"], 1)]

    test = split("test", root / "cars_test_annos_withlabels.mat")
    return split("train", root / "devkit" / "cars_train_annos.mat"), test


def _dtd(root: Path) -> tuple[Split, Split]:
    images = existing_folder(_FUNCTION, root / "images", "path", _HINT)
    classes = sorted(path.name for path in images.iterdir() if path.is_dir())

    def split(names: Sequence[str]) -> Split:
        parts = [_listed(root / "labels" / f"{name}1.txt", images, classes) for name in names]
        return [path for paths, _ in parts for path in paths], [label for _, labels in parts for label in labels]

    return split(("train", "val")), split(("test",))


def _flowers(root: Path) -> tuple[Split, Split]:
    source = root / "imagelabels.mat"
    labels = _integers(source, read_matlab(_FUNCTION, source, ["labels"], _HINT)["labels"])
    names = ("trnid", "valid", "tstid")
    sets = read_matlab(_FUNCTION, root / "setid.mat", names, _HINT)
    rows = {name: _integers(root / "setid.mat", sets[name]) for name in names}
    most = max((max(numbers, default=0) for numbers in rows.values()), default=0)
    if most > len(labels):
        _refuse(root / "setid.mat", f"image {most}", f"1 to {len(labels)}, the labels of {source.name}")

    def split(*names: str) -> Split:
        numbers = [number for name in names for number in rows[name]]
        return [root / "jpg" / f"image_{n:05d}.jpg" for n in numbers], [labels[n - 1] - 1 for n in numbers]

    return split("trnid", "valid"), split("tstid")


def _food101(root: Path) -> tuple[Split, Split]:
    classes = _lines(root / "meta" / "classes.txt")

    def split(name: str) -> Split:
        return _listed(root / "meta" / f"{name}.txt", root / "images", classes, ".jpg")

    return split("train"), split("test")


def _pets(root: Path) -> tuple[Split, Split]:
    def split(name: str) -> Split:
        source = root / "annotations" / f"{name}.txt"
        rows = _rows(source, 2)
        images = [_image(root / "images", f"{row[0]}.jpg", source) for row in rows]
        return images, [_class(source, row[1]) for row in rows]

    return split("trainval"), split("test")


def _sun397(root: Path) -> tuple[Split, Split]:
    # Names begin with "/" and count from the folder of the images: /a/abbey/sun_....jpg
    classes = [line.lstrip("/") for line in _lines(root / "ClassName.txt")]

    def split(name: str) -> Split:
        return _listed(root / f"{name}_01.txt", root, classes)

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


def _rows(path: Path, columns: int, separator: str | None = None, most_splits: int = -1) -> list[list[str]]:
    """Return the lines of a file, split into at least so many columns."""
    rows = [line.split(separator, most_splits) for line in _lines(path)]
    for row in rows:
        if len(row) < columns:
            _refuse(path, f"line {_shown(row)}", f"at least {columns} columns")
    return rows


def _listed(source: Path, folder: Path, classes: Sequence[str], suffix: str = "") -> Split:
    """Return the images of a list of CLASS/NAME, below a folder."""
    lines = [line.lstrip("/") for line in _lines(source)]
    images = [_image(folder, f"{line}{suffix}", source) for line in lines]
    return images, _classes(source, (line.rpartition("/")[0] for line in lines), classes)


def _image(folder: Path, name: str, source: Path) -> Path:
    return path_below(_FUNCTION, folder, name, source)


def _classes(source: Path, names: Iterable[str], classes: Sequence[str]) -> list[int]:
    """Return the number of each class."""
    number = {name: i for i, name in enumerate(classes)}
    labels: list[int] = []
    for name in names:
        if name not in number:
            _refuse(source, f"class {name[:60]!r}", f"one of the {len(classes)} listed")
        labels.append(number[name])
    return labels


def _class(source: Path, text: str) -> int:
    """Return the class of a text that counts from 1."""
    number = whole_number(text)
    if number is None or number < 1:
        _refuse(source, f"class {text[:60]!r}", "a whole number from 1")
    return number - 1


def _column(path: Path, header: Sequence[str], name: str) -> int:
    if name not in header:
        _refuse(path, f"columns {_shown(header[:6])}", f"a column {name!r}")
    return list(header).index(name)


def _integers(path: Path, values: Any, count: int | None = None) -> list[int]:
    """Return the whole numbers of a MATLAB variable."""
    flat = values.ravel() if isinstance(values, np.ndarray) else np.empty(0)
    with np.errstate(invalid="ignore"):
        is_whole = (flat >= 1) & (flat < _MOST) & (flat % 1 == 0)
    if not is_whole.all() or len(flat) != (len(flat) if count is None else count):
        _refuse(path, f"{len(flat)} numbers or numbers out of range", f"whole numbers from 1 to {_MOST - 1}")
    return flat.astype(int).tolist()


def _shown(row: Sequence[str]) -> str:
    return repr(" ".join(row)[:60])


def _refuse(path: Path, got: str, expected: str) -> NoReturn:
    fail(_FUNCTION, f"file {str(path)!r}", got, expected)
