"""Features of a frozen network: computed once, kept on disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from numpy.typing import ArrayLike

from sparsejax._checks import fail
from sparsejax._files import write_atomically
from sparsejax.analysis._arrays import read_numbers
from sparsejax.data import ImageSplit
from sparsejax.models import without_head
from sparsejax.train import map_batches

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Features:
    """Features and classes of a split; other array-likes, such as data frames, are converted.

    Attributes:
      x: float32[N, F].
      y: int32[N].

    Raises:
      ValueError: different lengths, another rank, no example, features that are not finite, or classes that are missing
        or no whole numbers from 0.

    >>> Features(np.ones((2, 3), np.float32), np.array([0, 1], np.int32)).x.shape
    (2, 3)
    """

    x: np.ndarray
    y: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "x", _read("x", self.x, np.float32))
        object.__setattr__(self, "y", _read("y", self.y, np.int32))
        if self.x.ndim != 2 or self.y.ndim != 1 or not self.x.size:
            fail("Features", "x, y", f"shapes {self.x.shape} and {self.y.shape}", "[N, F] and [N], not empty")
        if len(self.x) != len(self.y):
            fail("Features", "y", f"{len(self.y)} elements", f"{len(self.x)}, as many as x has rows")
        bad = np.asarray(~np.isfinite(self.x).all(axis=1))
        if bad.any():
            got = f"values that are not finite in {bad.sum()} of {len(bad)} rows, first in row {int(bad.argmax())}"
            fail("Features", "x", got, "finite numbers", "Has the network diverged, or are its batch statistics bad?")


def _read(name: str, values: ArrayLike, dtype: type[np.number]) -> np.ndarray:
    if isinstance(values, np.ndarray) and values.dtype == dtype:
        return values
    numbers = read_numbers("Features", name, values)
    if dtype == np.int32:
        bad = ~((numbers >= 0) & (numbers == np.trunc(numbers)) & (numbers < 2**31))
        if bad.any():
            got = f"value {numbers[bad][0]:g} in row {int(np.argwhere(bad)[0][0])}"
            fail("Features", name, got, "class numbers from 0")
    return numbers.astype(dtype)


def extract_features(
    model: nnx.Module,
    images: ImageSplit,
    *,
    head: str | None = None,
    batch_size: int = 128,
    cache: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Features:
    """Run a frozen network on images in inference mode, without its classifier.

    Batch norm uses the stored statistics. Features with more than two axes are averaged over all but the first and the
    last. They do not depend on the batch size (up to rounding) nor on a seed: images are not augmented.

    Args:
      model: NNX module, sparse or dense. It is not changed.
      images: a split.
      head: path of the classifier; looked up by name if None; "" for a network that has none.
      batch_size: images per call; bounds the memory of activations.
      cache: folder; the features of a network on a split are stored there, under a hash of both.
      progress: called with (images done, total images).

    Returns:
      `Features`, float32 on the host.

    Raises:
      ValueError: no such head, features that are not finite.

    Source: Iofinova et al. 2022, linear fine-tuning on pre-extracted features.

    >>> from sparsejax.data import ArrayImageSplit
    >>> from sparsejax.models import MLP
    >>> split = ArrayImageSplit(np.ones((3, 4), np.float32), np.zeros(3, np.int32))
    >>> extract_features(MLP(4, 2, hidden=(5,), rngs=nnx.Rngs(0)), split).x.shape
    (3, 5)
    """
    if batch_size < 1:
        fail("extract_features", "batch_size", f"value {batch_size}", "at least 1")
    backbone = without_head(model, head)
    backbone.eval()
    file = None
    if cache is not None:
        file = Path(cache) / f"features-{_key(backbone, images)}.npy"
        if file.is_file():
            try:
                x = np.load(file)
            except (ValueError, EOFError) as error:
                got, hint = f"damaged content ({error})", "Delete the file to compute it again."
                fail("extract_features", f"file {str(file)!r}", got, "stored features", hint)
            return Features(x, images.labels)
    parts, done = [], 0
    for part in map_batches(lambda batch: features_of(backbone, batch), images.images, len(images), batch_size):
        parts.append(part.astype(np.float32))
        done += len(part)
        if progress is not None:
            progress(done, len(images))
    features = Features(np.concatenate(parts), images.labels)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, lambda out: np.save(out, features.x))
    return features


@nnx.jit
def features_of(backbone: nnx.Module, images: jax.Array) -> jax.Array:
    """Return features float[n, F] of a network without classifier, in the mode it is in."""
    out = backbone(images)
    return out.mean(axis=tuple(range(1, out.ndim - 1))) if out.ndim > 2 else out


def model_hash(model: nnx.Module) -> str:
    """Return a hash of every variable of a model, and of its layers' names and sizes."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path(nnx.state(model, nnx.Not(nnx.RngState)))[0]:
        array = np.ascontiguousarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _key(backbone: nnx.Module, images: ImageSplit) -> str:
    text = f"{type(backbone).__name__} {model_hash(backbone)} {images.fingerprint()}"
    return hashlib.sha256(text.encode()).hexdigest()[:24]
