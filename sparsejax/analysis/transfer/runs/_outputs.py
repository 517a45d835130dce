"""Probabilities of a classifier on a split: computed, and kept in a file that other analyses read."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from flax import nnx

from sparsejax._checks import fail
from sparsejax._files import PathLike, write_atomically
from sparsejax._npz import read_npz
from sparsejax.data import ImageSplit
from sparsejax.train import map_batches

_TEST_BATCH = 256


class RunOutputs(NamedTuple):
    """What a classifier says about a test split.

    Attributes:
      probs: float32[N, K].
      labels: int32[N], the true classes.
      sparsity: fraction of pruned weights of the network.
    """

    probs: np.ndarray
    labels: np.ndarray
    sparsity: float


def predict_probabilities(model: nnx.Module, images: ImageSplit) -> np.ndarray:
    """Return class probabilities float32[N, K] of a classifier in inference mode; it is left in the mode it was in.

    >>> from sparsejax.data import ArrayImageSplit
    >>> from sparsejax.models import MLP
    >>> split = ArrayImageSplit(np.ones((3, 4), np.float32), np.zeros(3, np.int32))
    >>> predict_probabilities(MLP(4, 1, rngs=nnx.Rngs(0)), split).tolist()
    [[1.0], [1.0], [1.0]]
    """
    copy = nnx.clone(model, graph=True)
    copy.eval()
    parts = map_batches(lambda batch: _probabilities(copy, batch), images.images, len(images), _TEST_BATCH)
    return np.concatenate(list(parts)).astype(np.float32)


@nnx.jit
def _probabilities(model: nnx.Module, images: jax.Array) -> jax.Array:
    return jax.nn.softmax(model(images), axis=-1)  # pyright: ignore[reportCallIssue]


def save_outputs(path: Path, outputs: RunOutputs) -> None:
    """Write outputs as ``.npz`` with the arrays ``probs``, ``labels``, ``sparsity``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: np.savez_compressed(file, **outputs._asdict()))


def read_outputs(function: str, path: PathLike) -> RunOutputs:
    """Read what `save_outputs` wrote.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a damaged file, or one without the three arrays or with other shapes.
    """
    arrays = read_npz(function, path)
    missing = [name for name in RunOutputs._fields if name not in arrays]
    operand = f"file {str(path)!r}"
    if missing:
        fail(function, operand, f"no array {', '.join(missing)}", f"the arrays {', '.join(RunOutputs._fields)}")
    probs, labels, sparsity = (arrays[name] for name in RunOutputs._fields)
    if probs.ndim != 2 or labels.shape != (len(probs),) or sparsity.size != 1:
        fail(function, operand, f"shapes {probs.shape} and {labels.shape}", "probs [N, K] and labels [N]")
    return RunOutputs(probs, labels.astype(np.int32), float(sparsity))
