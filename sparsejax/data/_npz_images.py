"""Image data sets in one ``.npz`` file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sparsejax._checks import fail
from sparsejax._files import PathLike, naming
from sparsejax._npz import read_npz
from sparsejax.data._byte_split import ByteImageSplit, channel_statistics
from sparsejax.data._task import ArrayImageSplit, ImageTask

_FUNCTION = "npz_images"
_NAMES = ("x_train", "y_train", "x_test", "y_test")


def npz_images(path: PathLike) -> ImageTask:
    """Read a data set from an archive of NumPy with the arrays ``x_train``, ``y_train``, ``x_test`` and ``y_test``.

    Images are uint8 [N, H, W] or [N, H, W, C], or float32 of the same shapes; labels are integers [N] or [N, 1]. Both
    are standardised with mean and deviation of each channel of the training images. Bytes stay bytes in memory and are
    scaled a batch at a time.

    Args:
      path: the file, as `numpy.savez` or `numpy.savez_compressed` writes it (Keras' ``mnist.npz`` is one).

    Returns:
      `ImageTask` named for the file.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a damaged archive, missing arrays, or arrays of other shapes or types.

    >>> import tempfile
    >>> x, y = np.arange(32, dtype=np.uint8).reshape(2, 4, 4), np.array([0, 1])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/toy.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    ...     npz_images(f"{folder}/toy.npz").train.images([0]).shape
    (1, 4, 4, 1)
    """
    path = Path(path)
    arrays = read_npz(_FUNCTION, path)
    missing = [name for name in _NAMES if name not in arrays]
    if missing:
        fail(_FUNCTION, f"file {str(path)!r}", f"no array {', '.join(missing)}", f"the arrays {', '.join(_NAMES)}")
    train, test = (_images(path, name, arrays[name]) for name in ("x_train", "x_test"))
    labels = [_labels(path, name, arrays[name]) for name in ("y_train", "y_test")]
    if train.dtype != test.dtype or train.shape[1:] != test.shape[1:]:
        got = f"x_test {test.dtype}{list(test.shape)}"
        fail(_FUNCTION, f"file {str(path)!r}", got, f"images like x_train, {train.dtype}{list(train.shape)}")
    with naming(path):
        if train.dtype == np.uint8:
            scale = channel_statistics(train)
            splits = [ByteImageSplit(x, y, *scale) for x, y in zip((train, test), labels, strict=True)]
        else:
            mean, std = train.mean((0, 1, 2), dtype=np.float64), train.std((0, 1, 2), dtype=np.float64)
            shift, scale = mean.astype(np.float32), np.where(std > 0, std, 1).astype(np.float32)
            splits = [ArrayImageSplit((x - shift) / scale, y) for x, y in zip((train, test), labels, strict=True)]
        return ImageTask(path.stem, splits[0], splits[1], 1 + max(int(y.max()) for y in labels))


def _images(path: Path, name: str, array: np.ndarray) -> np.ndarray:
    array = array[..., None] if array.ndim == 3 else array
    if array.ndim != 4 or str(array.dtype) not in ("uint8", "float32") or not array.size:
        got = f"{name} {array.dtype}{list(array.shape)}"
        fail(_FUNCTION, f"file {str(path)!r}", got, "uint8 or float32 images [N, H, W] or [N, H, W, C], none empty")
    return array


def _labels(path: Path, name: str, array: np.ndarray) -> np.ndarray:
    array = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    if array.ndim != 1 or array.dtype.kind not in "iu" or not array.size:
        got = f"{name} {array.dtype}{list(array.shape)}"
        fail(_FUNCTION, f"file {str(path)!r}", got, "integers [N], one for each image")
    return array.astype(np.int32)
