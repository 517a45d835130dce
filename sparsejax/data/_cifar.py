"""CIFAR-10 and CIFAR-100 as their authors ship them, without running what a pickle asks to run."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from sparsejax._checks import fail
from sparsejax._files import unreadable
from sparsejax._pickles import check_pickles

_SHAPE = (3, 32, 32)
_FILES = {
    10: ("cifar-10-batches", [f"data_batch_{i}" for i in range(1, 6)], ["test_batch"]),
    100: ("cifar-100", ["train"], ["test"]),
}
_BINARY = {10: "cifar-10-batches-bin", 100: "cifar-100-binary"}
_PYTHON = {10: "cifar-10-batches-py", 100: "cifar-100-python"}
# Bytes before the pixels in the binary form: the class, after the coarse class in CIFAR-100.
_HEAD = {10: 1, 100: 2}


class _PickledArray:
    """An array as its pickle describes it. NumPy would reserve whatever the description says."""

    def __init__(self, *_: Any) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def pixels(self) -> np.ndarray:
        """Return the uint8 array; ValueError for any other, or a description that its bytes do not fit."""
        _, shape, dtype, is_fortran, content = self.state
        if not isinstance(dtype, _PickledDtype) or dtype.code not in ("u1", b"u1"):
            raise ValueError("its pixels are no uint8 array")
        return np.frombuffer(content, np.uint8).reshape(shape, order="F" if is_fortran else "C")


class _PickledDtype:
    """A dtype as its pickle describes it, of which only the code counts."""

    def __init__(self, code: Any, *_: Any) -> None:
        self.code = code

    def __setstate__(self, state: Any) -> None:
        pass


def _latin1(text: str, encoding: Any) -> bytes:
    """Bytes as Python 3 pickles them for Python 2."""
    if encoding not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError(f"it asks for the encoding {encoding!r}")
    return text.encode("latin1")


# What the pickled arrays need, each replaced by what reserves no more than the file has.
_GLOBALS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): None,
    ("numpy", "dtype"): _PickledDtype,
    ("_codecs", "encode"): _latin1,
    ("numpy.core.multiarray", "_reconstruct"): _PickledArray,
    ("numpy._core.multiarray", "_reconstruct"): _PickledArray,
}


class _Arrays(pickle.Unpickler):
    """Read containers and descriptions of NumPy arrays, and refuse everything else."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if (module_name, global_name) not in _GLOBALS:
            raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}")
        return _GLOBALS[module_name, global_name]


def read_cifar(root: Path, num_classes: int) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Read the Python or the binary version.

    Args:
      root: the folder that unpacking makes, or its parent.
      num_classes: 10 or 100 (fine labels).

    Returns:
      (training, test), each uint8[N, 32, 32, 3] and a list of classes, in file order.

    Raises:
      FileNotFoundError: no file of either version.
      ValueError: a file of another form.
    """
    _, train, test = _FILES[num_classes]
    for folder in (root / _BINARY[num_classes], root / _PYTHON[num_classes], root):
        for suffix, read in ((".bin", _read_binary), ("", _read_python)):
            names = [[folder / f"{name}{suffix}" for name in split] for split in (train, test)]
            if all(path.is_file() for split in names for path in split):
                first, second = ([read(path, num_classes) for path in split] for split in names)
                return _joined(first), _joined(second)
    rule = f"the files of {_PYTHON[num_classes]} or {_BINARY[num_classes]}"
    fail("downstream_task", f"folder {str(root)!r}", "no complete version", rule, error=FileNotFoundError)


def _joined(parts: list[tuple[np.ndarray, list[int]]]) -> tuple[np.ndarray, list[int]]:
    return np.concatenate([pixels for pixels, _ in parts]), [label for _, labels in parts for label in labels]


def _read_binary(path: Path, num_classes: int) -> tuple[np.ndarray, list[int]]:
    head, content = _HEAD[num_classes], np.fromfile(path, np.uint8)
    if not len(content) or len(content) % (head + 3072):
        fail("downstream_task", f"file {str(path)!r}", f"{len(content)} bytes", f"a multiple of {head + 3072}")
    rows = content.reshape(-1, head + 3072)
    return _pixels(rows[:, head:]), rows[:, head - 1].astype(int).tolist()


def _read_python(path: Path, num_classes: int) -> tuple[np.ndarray, list[int]]:
    try:
        file = io.BytesIO(path.read_bytes())
        check_pickles(file)
        file.seek(0)
        content = _Arrays(file, encoding="bytes").load()
        labels = list(map(int, content[b"labels" if num_classes == 10 else b"fine_labels"]))
        pixels = content[b"data"].pixels()
    except Exception as error:  # the unpickler raises many kinds for damaged files
        raise unreadable("downstream_task", path, error, "a batch of CIFAR") from error
    if labels and not 0 <= min(labels) <= max(labels) < num_classes:
        got = f"classes {min(labels)} to {max(labels)}"
        fail("downstream_task", f"file {str(path)!r}", got, f"0 to {num_classes - 1}")
    if pixels.shape != (len(labels), 3072):
        fail("downstream_task", f"file {str(path)!r}", f"pixels of shape {pixels.shape}", f"({len(labels)}, 3072)")
    return _pixels(pixels), labels


def _pixels(rows: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(rows.reshape(-1, *_SHAPE).transpose(0, 2, 3, 1))
