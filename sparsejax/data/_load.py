"""Data sets by a short text, for the command line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from sparsejax._checks import fail
from sparsejax._surface import renamed_arguments
from sparsejax.data._augmentation import Augmentation
from sparsejax.data._byte_split import ByteImageSplit
from sparsejax.data._dataset import Dataset
from sparsejax.data._digits import digits
from sparsejax.data._downstream import DOWNSTREAM_DATASETS, downstream_task
from sparsejax.data._idx import idx_dataset, idx_images
from sparsejax.data._image_folder import image_folder
from sparsejax.data._npz_images import npz_images
from sparsejax.data._preprocessing import Preprocessing
from sparsejax.data._task import ArrayImageSplit, ImageTask

# Data whose images are in memory, or in one mapped file, at the size they have.
_IN_MEMORY: dict[str, Callable[[str], ImageTask]] = {"idx": idx_images, "npz": npz_images}
SPECS = "digits, idx:PATH, npz:PATH, folder:PATH, or NAME:PATH with NAME one of " + ", ".join(DOWNSTREAM_DATASETS)
"""What a text that names a data set may be."""


def load(spec: str) -> Dataset:
    """Load a data set named by a text into memory.

    Args:
      spec: "digits" (see `digits`), or "idx:PATH" with the path of a folder (see `idx_dataset`).

    Returns:
      The `Dataset`, pixels in [0, 1].

    Raises:
      ValueError: any other text, or what the loader raises.
      FileNotFoundError: no such folder.

    >>> load("digits").num_classes
    10
    """
    if spec == "digits":
        return digits()
    kind, _, path = spec.partition(":")
    if kind == "idx" and path:
        return idx_dataset(path)
    fail("load", "spec", f"value {spec!r}", "'digits' or 'idx:PATH'", "See load_task for others.")


@renamed_arguments(reading="preprocessing")
def load_task(
    spec: str,
    preprocessing: Preprocessing | None = None,
    *,
    augmentation: Augmentation | None = None,
    skip_corrupt: bool = False,
) -> ImageTask:
    """Load a task named by a text; image files and IDX files are read when a batch needs them.

    Args:
      spec: "folder:PATH" (see `image_folder`), "NAME:PATH" of one of the twelve (see `downstream_task`), "npz:PATH"
        (see `npz_images`), "idx:PATH" (see `idx_images`), or "digits": images of the last three are standardised
        with the mean and deviation of the data set.
      preprocessing: how pictures of a folder or of one of the twelve are resized, cropped and scaled. With
        ``size=None`` they are taken as they are. The others always are.
      augmentation: random changes of training images that are asked for with a seed; instead of
        ``preprocessing.augmentation`` for pictures, and none by default for the others.
      skip_corrupt: leave out pictures of a folder that cannot be read.

    Returns:
      The `ImageTask`.

    Raises:
      ValueError: any other text, or what the loader raises.
      FileNotFoundError: no such folder.

    >>> load_task("digits").num_classes
    10
    """
    kind, _, path = spec.partition(":")
    if spec == "digits":
        return _augmented(ImageTask.from_dataset(digits().standardized()), augmentation)
    if kind in _IN_MEMORY and path:
        return _augmented(_IN_MEMORY[kind](path), augmentation)
    preprocessing = preprocessing or Preprocessing()
    if augmentation is not None:
        preprocessing = replace(preprocessing, augmentation=augmentation)
    if kind == "folder" and path:
        return image_folder(path, preprocessing, skip_corrupt=skip_corrupt)
    if kind in DOWNSTREAM_DATASETS and path:
        return downstream_task(kind, path, preprocessing)
    fail("load_task", "spec", f"value {spec!r}", SPECS)


def _augmented(task: ImageTask, augmentation: Augmentation | None) -> ImageTask:
    train: Any = task.train
    if augmentation is None or not isinstance(train, ArrayImageSplit | ByteImageSplit):
        return task
    return replace(task, train=replace(train, augmentation=augmentation))
