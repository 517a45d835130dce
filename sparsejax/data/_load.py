"""Data sets by a short text, for the command line."""

from __future__ import annotations

from sparsejax._checks import fail
from sparsejax._surface import renamed_arguments
from sparsejax.data._dataset import Dataset
from sparsejax.data._digits import digits
from sparsejax.data._downstream import DOWNSTREAM_DATASETS, downstream_task
from sparsejax.data._idx import idx_dataset
from sparsejax.data._image_folder import image_folder
from sparsejax.data._preprocessing import Preprocessing
from sparsejax.data._task import ImageTask


def load(spec: str) -> Dataset:
    """Load a data set named by a text.

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
    fail("load", "spec", f"value {spec!r}", "'digits' or 'idx:PATH'")


@renamed_arguments(reading="preprocessing")
def load_task(spec: str, preprocessing: Preprocessing | None = None) -> ImageTask:
    """Load a task named by a text.

    Args:
      spec: "folder:PATH" (see `image_folder`), "NAME:PATH" of one of the twelve (see `downstream_task`), or what `load`
        takes: images are then standardised with the mean and deviation of the data set.
      preprocessing: how pictures of a folder or of one of the twelve are resized, cropped and scaled.

    Returns:
      The `ImageTask`.

    Raises:
      ValueError: any other text, or what the loader raises.
      FileNotFoundError: no such folder.

    >>> load_task("digits").num_classes
    10
    """
    kind, _, path = spec.partition(":")
    if kind == "folder" and path:
        return image_folder(path, preprocessing)
    if kind in DOWNSTREAM_DATASETS and path:
        return downstream_task(kind, path, preprocessing)
    if spec != "digits" and not (kind == "idx" and path):
        names = ", ".join(f"{name}:PATH" for name in DOWNSTREAM_DATASETS)
        fail("load_task", "spec", f"value {spec!r}", f"digits, idx:PATH, folder:PATH, {names}")
    return ImageTask.from_dataset(load(spec).standardized())
