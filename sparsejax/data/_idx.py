"""IDX files, the format of MNIST (one array of a fixed type in a file), and folders of them."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import BinaryIO, NoReturn, TypeAlias

import numpy as np

from sparsejax._checks import fail
from sparsejax._files import PathLike, existing_file, existing_folder, naming, unreadable
from sparsejax.data._byte_split import ByteImageSplit, channel_statistics
from sparsejax.data._dataset import Dataset
from sparsejax.data._task import ImageTask

_Split: TypeAlias = tuple[np.ndarray, np.ndarray]
_FUNCTION = "idx_dataset"
_TRAIN_PERCENT = 80
# NumPy 1.26 takes 32 axes.
_MOST_AXES = 32
# Deflate packs at most 1032 bytes into one.
_MOST_COMPRESSION = 1032
_CHUNK = 1 << 20
_GZIP_MAGIC = b"\x1f\x8b"
# Third byte of the file to the big-endian type of its elements.
_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(path: PathLike) -> np.ndarray:
    """Read one IDX file, gzipped or not (decided by its content, not by its name).

    Args:
      path: the file. Layout: two zero bytes, a type code, the number of axes, one big-endian 32-bit size
        for each axis, then the elements, big-endian, last axis fastest.

    Returns:
      A new array of the file's shape, in native byte order: uint8, int8, int16, int32, float32 or float64.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a bad magic number, an unknown type, more than 32 axes, or another
        number of bytes than the header declares.

    Source: LeCun, Cortes, Burges, "The MNIST database", section "The IDX file format".

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     _ = file.write(bytes([0, 0, 8, 2, 0, 0, 0, 1, 0, 0, 0, 3, 7, 8, 9])), file.flush()
    ...     read_idx(file.name)
    array([[7, 8, 9]], dtype=uint8)
    """
    return _open(existing_file("read_idx", path), mapped=False)


def _open(path: Path, *, mapped: bool) -> np.ndarray:
    """Read a file, or map one of bytes that is not compressed."""
    size = path.stat().st_size
    with path.open("rb") as file:
        packed = file.read(2) == _GZIP_MAGIC
        file.seek(0)
        if not packed:
            return _read_array(path, file, size, packed=False, mapped=mapped)
        try:
            with gzip.GzipFile(fileobj=file) as unpacked:
                return _read_array(path, unpacked, size, packed=True, mapped=False)
        except (OSError, EOFError, zlib.error) as error:
            raise unreadable("read_idx", path, error, "an intact gzip file") from error


def _read_array(path: Path, stream: BinaryIO | gzip.GzipFile, size: int, *, packed: bool, mapped: bool) -> np.ndarray:
    """Read the header, then no more than it declares.

    Args:
      path: for messages.
      stream: at the beginning of the content.
      size: bytes of the file.
      packed: whether the file is compressed.
      mapped: return a map of the file where its elements are bytes.
    """
    head = stream.read(4)
    if len(head) < 4 or head[:2] != b"\x00\x00" or head[2] not in _DTYPES:
        _bad(path, f"first bytes {head.hex(' ') or 'absent'}", "00 00, a type code 08 to 0e, and the rank")
    rank, dtype = head[3], np.dtype(_DTYPES[head[2]])
    sizes = stream.read(4 * rank)
    start = 4 + 4 * rank
    if len(sizes) < 4 * rank:
        _bad(path, f"{4 + len(sizes)} bytes", f"a header of {start} for {rank} axes", "Is it truncated?")
    shape = tuple(int(side) for side in np.frombuffer(sizes, ">u4"))
    if rank > _MOST_AXES:
        _bad(path, f"{rank} axes", f"at most {_MOST_AXES}")
    expected = start + math.prod(shape) * dtype.itemsize
    rule = f"{expected} for {dtype.name}{list(shape)}"
    if not packed and expected != size:
        _bad(path, f"{size} bytes", rule, "Is it truncated?" if size < expected else "")
    if expected > size * _MOST_COMPRESSION:
        _bad(path, f"{size} bytes, compressed", rule, "Is it truncated?")
    if math.prod(max(1, side) for side in shape) >= 2**48:
        _bad(path, f"shape {list(shape)}", "fewer than 2^48 elements, axes of size 0 left out")
    if mapped and dtype == np.uint8 and math.prod(shape):
        return np.memmap(path, np.uint8, "r", start, shape)
    content = bytearray()
    while len(content) <= expected - start and (chunk := stream.read(min(_CHUNK, expected - start + 1 - len(content)))):
        content += chunk
    if len(content) != expected - start:
        is_short = len(content) < expected - start
        got = f"{start + len(content)} bytes" if is_short else f"more than {expected} bytes"
        _bad(path, got, rule, "Is it truncated?" if is_short else "")
    return np.frombuffer(content, dtype).reshape(shape).astype(dtype.newbyteorder("="))


def _bad(path: Path, got: str, expected: str, hint: str = "") -> NoReturn:
    fail("read_idx", f"file {str(path)!r}", got, expected, hint)


def idx_dataset(folder: PathLike) -> Dataset:
    """Read a folder in the layout of MNIST.

    Pairs are ``PREFIXimages*idx3*`` and ``PREFIXlabels*idx1*`` with the same prefix, gzipped or not; where
    a file exists in both forms the uncompressed one is read. With one pair whose prefix contains "train"
    and one whose prefix contains "t10k" or "test", these are the splits. With one pair alone its first 80 % are
    for training and the rest for testing, in file order.

    Args:
      folder: the folder, not searched recursively.

    Returns:
      A `Dataset` named for the folder, with images float32[N, H, W, 1], bytes divided by 255; num_classes
      is the largest label plus one.

    Raises:
      FileNotFoundError: no such folder, or no pair in it.
      ValueError: a file without its partner, pairs that are neither of the two layouts, images that are not
        bytes[N, H, W], labels that are not bytes[N], different counts, or a malformed file (see `read_idx`).

    Source: LeCun, Cortes, Burges, "The MNIST database".

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     head = lambda rank: bytes([0, 0, 8, rank, 0, 0, 0, 5])
    ...     images = head(3) + bytes([0, 0, 0, 1, 0, 0, 0, 1]) + bytes(5)
    ...     _ = pathlib.Path(folder, "t10k-images-idx3-ubyte").write_bytes(images)
    ...     _ = pathlib.Path(folder, "t10k-labels-idx1-ubyte").write_bytes(head(1) + bytes([0, 1, 2, 3, 4]))
    ...     data = idx_dataset(folder)
    >>> data.train_labels.tolist(), data.test_labels.tolist()
    ([0, 1, 2, 3], [4])
    """
    folder = existing_folder(_FUNCTION, folder)
    train, test, num_classes = _splits(folder)
    images = [x.astype(np.float32) / np.float32(255) for x, _ in (train, test)]
    with naming(folder):
        return Dataset(folder.resolve().name, images[0], train[1], images[1], test[1], num_classes)


def idx_images(folder: PathLike) -> ImageTask:
    """Read a folder in the layout of MNIST without loading its images.

    As `idx_dataset`, but the pixels stay bytes, in the file where it is not compressed, and a batch is read and
    standardised (with mean and deviation of the training images) when it is asked for.

    Args:
      folder: the folder, not searched recursively.

    Returns:
      `ImageTask` named for the folder; images are float32[n, H, W, 1].

    Raises:
      FileNotFoundError, ValueError: as `idx_dataset`, and for a class without examples.
    """
    folder = existing_folder(_FUNCTION, folder)
    train, test, num_classes = _splits(folder)
    with naming(folder):
        if not train[0].size:
            fail(_FUNCTION, f"folder {str(folder)!r}", "no training image", "at least one")
        scale = channel_statistics(train[0])
        splits = [ByteImageSplit(images, labels, *scale) for images, labels in (train, test)]
        return ImageTask(folder.resolve().name, splits[0], splits[1], num_classes)


def _splits(folder: Path) -> tuple[_Split, _Split, int]:
    """Return training and test images uint8[N, H, W, 1] with their labels, and the number of classes."""
    pairs = _pairs(folder)
    train = [prefix for prefix in pairs if "train" in prefix]
    test = [prefix for prefix in pairs if "t10k" in prefix or "test" in prefix]
    if len(pairs) == 2 and len(train) == len(test) == 1 and train != test:
        splits = _read(*pairs[train[0]]), _read(*pairs[test[0]])
    elif len(pairs) == 1:
        images, labels = _read(*next(iter(pairs.values())))
        cut = len(labels) * _TRAIN_PERCENT // 100
        splits = (images[:cut], labels[:cut]), (images[cut:], labels[cut:])
    else:
        fail(
            _FUNCTION,
            f"folder {str(folder)!r}",
            f"pairs {sorted(pairs)}",
            "one pair, or one named 'train' and one named 't10k' or 'test'",
        )
    return *splits, 1 + max(int(labels.max(initial=0)) for _, labels in splits)


def _pairs(folder: Path) -> dict[str, tuple[Path, Path]]:
    images = _by_prefix(folder, "images", "idx3")
    labels = _by_prefix(folder, "labels", "idx1")
    if not images and not labels:
        fail(
            _FUNCTION,
            f"folder {str(folder)!r}",
            "no IDX files",
            "files named *images*idx3* and *labels*idx1*",
            error=FileNotFoundError,
        )
    alone = sorted(path.name for path in _unpaired(images, labels) + _unpaired(labels, images))
    if alone:
        fail(_FUNCTION, f"folder {str(folder)!r}", f"no partner for {', '.join(alone)}", "images with labels")
    return {prefix: (images[prefix], labels[prefix]) for prefix in images}


def _by_prefix(folder: Path, kind: str, rank: str) -> dict[str, Path]:
    # Reverse order puts NAME.gz before NAME, so the uncompressed file replaces the compressed one.
    paths = sorted((path for path in folder.glob(f"*{kind}*{rank}*") if path.is_file()), reverse=True)
    return {path.name.split(kind)[0]: path for path in paths}


def _unpaired(files: dict[str, Path], partners: dict[str, Path]) -> list[Path]:
    return [path for prefix, path in files.items() if prefix not in partners]


def _read(images_path: Path, labels_path: Path) -> _Split:
    images, labels = _open(images_path, mapped=True), _open(labels_path, mapped=False)
    for path, array, rank in ((images_path, images, 3), (labels_path, labels, 1)):
        if array.ndim != rank or array.dtype != np.uint8:
            got = f"{array.ndim} axes of {array.dtype}"
            fail(_FUNCTION, f"file {str(path)!r}", got, f"{rank} of uint8")
    if len(images) != len(labels):
        fail(
            _FUNCTION,
            f"file {str(labels_path)!r}",
            f"{len(labels)} labels",
            f"{len(images)}, as many as {images_path.name} has images",
        )
    return images[..., None], labels.astype(np.int32)
