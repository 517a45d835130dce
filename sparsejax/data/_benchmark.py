"""The twelve downstream data sets by name."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from sparsejax._checks import fail
from sparsejax.data._benchmark_layouts import LAYOUTS, Split
from sparsejax.data._benchmarks import BENCHMARKS
from sparsejax.data._pictures import Pictures, Reading
from sparsejax.data._task import ImageTask


def benchmark(
    name: str, root: str | os.PathLike[str], reading: Reading | None = None, *, allow_missing_classes: bool = False
) -> ImageTask:
    """Find the images of one of the twelve data sets, in the layout its distributor ships. Nothing is downloaded.

    ============  ====================================================================================================
    name          what must lie in ``root``
    ============  ====================================================================================================
    aircraft      FGVC 2013b: ``data/images``, ``data/variants.txt``, ``data/images_variant_{trainval,test}.txt``
    birds         Birdsnap 1.1: ``images.txt``, ``test_images.txt``, and the downloaded files in ``images``
    caltech101    ``101_ObjectCategories``; 30 images of each class for training, background class left out
    caltech256    ``256_ObjectCategories``; 60 images of each class for training, clutter class kept
    cars          ``cars_train``, ``cars_test``, ``devkit/cars_train_annos.mat``, ``cars_test_annos_withlabels.mat``
    cifar10, 100  ``cifar-10-batches-py`` or ``-bin``, ``cifar-100-python`` or ``-binary``, or the files themselves
    dtd           ``images``, ``labels/{train,val,test}1.txt``; training and validation of split 1 for training
    flowers       ``jpg``, ``imagelabels.mat``, ``setid.mat``; training and validation for training
    food101       ``images``, ``meta/classes.txt``, ``meta/{train,test}.txt``
    pets          ``images``, ``annotations/{trainval,test}.txt``
    sun397        the class folders ``a`` to ``z``, ``ClassName.txt``, ``{Training,Testing}_01.txt``
    ============  ====================================================================================================

    Birdsnap is a list of addresses of which many are dead; what is there is used. Its split here is the distributor's
    (2443 test images), which is not the one behind the published results (8171).

    Args:
      name: a key of `BENCHMARKS`.
      root: the folder.
      reading: how pictures are read; as for ImageNet if None (what the study does for linear fine-tuning; for full
        fine-tuning it takes the mean and deviation of the data set, in `BENCHMARKS`).
      allow_missing_classes: accept a part of the data set.

    Returns:
      `ImageTask`, with the metric and group of `BENCHMARKS`; pictures are opened when they are needed.

    Raises:
      FileNotFoundError: a file or folder is missing.
      ValueError: an unknown name, a file of another form, or classes without images.
      ImportError: scipy is needed for cars and flowers.

    Source: Iofinova et al. 2022, section on downstream tasks, and the splits in the authors' code.
    """
    if name not in LAYOUTS:
        fail("benchmark", "name", f"value {name!r}", f"one of {', '.join(LAYOUTS)}")
    root = Path(root)
    if not root.is_dir():
        fail("benchmark", "root", f"value {str(root)!r}", "an existing folder", error=FileNotFoundError)
    train, test = (_pictures(split, reading or Reading()) for split in LAYOUTS[name](root))
    facts = BENCHMARKS[name]
    return ImageTask(
        name,
        train,
        test,
        facts.num_classes,
        metric=facts.metric,
        group=facts.group,
        allow_missing_classes=allow_missing_classes,
    )


def _pictures(split: Split, reading: Reading) -> Pictures:
    pictures, labels = split
    return Pictures(pictures, np.asarray(labels, np.int32), reading)
