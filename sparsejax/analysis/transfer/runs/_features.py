"""Features of a frozen network: computed once, kept on disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sparsejax._checks import fail
from sparsejax.data import Images
from sparsejax.models import without_head

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Features:
    """Features and classes of a split.

    Attributes:
      x: float32[N, F].
      y: int32[N].

    Raises:
      ValueError: different lengths, another rank, no example, or values that are not finite.

    >>> Features(np.ones((2, 3), np.float32), np.array([0, 1], np.int32)).x.shape
    (2, 3)
    """

    x: np.ndarray
    y: np.ndarray

    def __post_init__(self) -> None:
        if self.x.ndim != 2 or self.y.ndim != 1 or not self.x.size:
            fail("Features", "x, y", f"shapes {self.x.shape} and {self.y.shape}", "[N, F] and [N], not empty")
        if len(self.x) != len(self.y):
            fail("Features", "y", f"{len(self.y)} elements", f"{len(self.x)}, as many as x has rows")
        bad = np.asarray(~np.isfinite(self.x).all(axis=1))
        if bad.any():
            got = f"values that are not finite in {bad.sum()} of {len(bad)} rows, first in row {int(bad.argmax())}"
            fail("Features", "x", got, "finite numbers", "Has the network diverged, or are its batch statistics bad?")


def extract_features(
    model: Any,
    images: Images,
    *,
    head: str | None = None,
    batch_size: int = 128,
    cache: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Features:
    """Run a frozen network on images in inference mode, without its classifier.

    Batch norm uses the stored statistics and leaves them alone. Features with more than two axes are averaged over all
    but the first and the last. They do not depend on the batch size (to rounding) nor on any seed: images are taken
    without augmentation.

    Args:
      model: NNX module, sparse or dense. It is not changed.
      images: a split.
      head: path of the classifier; found by its name if None; "" for a network that has none.
      batch_size: images per call; bounds the memory of activations.
      cache: folder; the features of a network on a split are stored there, under a hash of both.
      progress: called with (images done, images in all).

    Returns:
      `Features`, float32 on the host.

    Raises:
      ValueError: no such head, features that are not finite.

    Source: Iofinova et al. 2022, linear fine-tuning on pre-extracted features.

    >>> from sparsejax.data import ArrayImages
    >>> from sparsejax.models import MLP
    >>> split = ArrayImages(np.ones((3, 4), np.float32), np.zeros(3, np.int32))
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
            return Features(np.load(file), images.labels)
    count, size = len(images), min(batch_size, len(images))
    parts = []
    for start in range(0, count, size):
        rows = np.arange(start, min(start + size, count))
        chunk = images.images(rows)
        # Every call has the same shape, so it is compiled once.
        padded = np.concatenate([chunk, np.zeros((size - len(chunk), *chunk.shape[1:]), chunk.dtype)])
        parts.append(np.asarray(features_of(backbone, jnp.asarray(padded)), np.float32)[: len(rows)])
        if progress is not None:
            progress(int(rows[-1]) + 1, count)
    found = Features(np.concatenate(parts), images.labels)
    if file is not None:
        _save(file, found.x)
    return found


@nnx.jit
def features_of(backbone: Any, images: jax.Array) -> jax.Array:
    """Features float[n, F] of a network without classifier, in the mode it is in."""
    out = backbone(images)
    return out.mean(axis=tuple(range(1, out.ndim - 1))) if out.ndim > 2 else out


def model_hash(model: Any) -> str:
    """Return a hash of every variable of a model, and of its layers' names and sizes."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path(nnx.state(model, nnx.Not(nnx.RngState)))[0]:
        array = np.ascontiguousarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _key(backbone: Any, images: Images) -> str:
    text = f"{type(backbone).__name__} {model_hash(backbone)} {images.fingerprint()}"
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _save(file: Path, x: np.ndarray) -> None:
    """Write under another name first: a reader finds the whole file or none."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_suffix(f".{os.getpid()}.partial")
    with draft.open("wb") as out:
        np.save(out, x)
    draft.replace(file)
