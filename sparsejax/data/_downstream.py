"""The twelve downstream data sets of the study of sparse transfer: sizes, statistics, settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from sparsejax._checks import fail
from sparsejax._files import PathLike, existing_folder, naming
from sparsejax._surface import renamed_arguments
from sparsejax.data._byte_split import ByteImageSplit
from sparsejax.data._downstream_layouts import LAYOUTS, Split
from sparsejax.data._picture_checks import check_one_size
from sparsejax.data._preprocessing import Preprocessing
from sparsejax.data._task import ImageSplit, ImageTask, LazyImageSplit


@dataclass(frozen=True)
class DownstreamDataset:
    """One downstream data set.

    Attributes:
      title: full name.
      num_classes, n_train, n_test: of the study's split.
      metric: how the study counts accuracy; where it cannot be told from the published values, the convention of
        earlier transfer studies.
      group: "fine_grained" or "general", a grouping made for this project.
      learning_rate: base learning rate of the study's full fine-tuning.
      mean, std: of each channel, pixels in [0, 1].
    """

    title: str
    num_classes: int
    n_train: int
    n_test: int
    metric: Literal["top1", "mean_per_class"]
    group: Literal["fine_grained", "general"]
    learning_rate: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


# Source: code of Iofinova et al. 2022, "How Well Do Sparse ImageNet Models Transfer?", and Salman et al. 2020, whose
# data sets and statistics it takes.
# fmt: off
DOWNSTREAM_DATASETS: dict[str, DownstreamDataset] = {
    "aircraft": DownstreamDataset(
        "FGVC Aircraft (variant labels)", 100, 6667, 3333, "mean_per_class", "fine_grained", 0.01,
        (0.4892, 0.5159, 0.5356), (0.2275, 0.22, 0.2476)),
    "birds": DownstreamDataset(
        "Birdsnap", 500, 32677, 8171, "top1", "fine_grained", 0.001,
        (0.4856, 0.4948, 0.4486), (0.2233, 0.2213, 0.2586)),
    "caltech101": DownstreamDataset(
        "Caltech-101", 101, 3030, 5647, "mean_per_class", "general", 0.001,
        (0.5413, 0.5063, 0.4693), (0.3115, 0.309, 0.3183)),
    "caltech256": DownstreamDataset(
        "Caltech-256 (with the clutter class)", 257, 15420, 15187, "mean_per_class", "general", 0.001,
        (0.5438, 0.5141, 0.4821), (0.3077, 0.3044, 0.3163)),
    "cars": DownstreamDataset(
        "Stanford Cars", 196, 8144, 8041, "top1", "fine_grained", 0.01,
        (0.4513, 0.4354, 0.4358), (0.29, 0.288, 0.2951)),
    "cifar10": DownstreamDataset(
        "CIFAR-10", 10, 50000, 10000, "top1", "general", 0.001,
        (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.201)),
    "cifar100": DownstreamDataset(
        "CIFAR-100", 100, 50000, 10000, "top1", "general", 0.001,
        (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    "dtd": DownstreamDataset(
        "Describable Textures (DTD), split 1", 47, 3760, 1880, "top1", "general", 0.001,
        (0.5322, 0.4734, 0.4251), (0.2642, 0.253, 0.2613)),
    "flowers": DownstreamDataset(
        "Oxford 102 Flowers", 102, 2040, 6149, "mean_per_class", "fine_grained", 0.001,
        (0.5133, 0.4148, 0.3383), (0.2959, 0.2502, 0.29)),
    "food101": DownstreamDataset(
        "Food-101", 101, 75750, 25250, "top1", "fine_grained", 0.001,
        (0.5566, 0.4378, 0.3193), (0.2589, 0.2622, 0.263)),
    "pets": DownstreamDataset(
        "Oxford-IIIT Pets", 37, 3680, 3669, "mean_per_class", "fine_grained", 0.001,
        (0.4807, 0.4432, 0.3949), (0.2598, 0.2537, 0.2597)),
    "sun397": DownstreamDataset(
        "SUN397, split 1", 397, 19850, 19850, "top1", "general", 0.001,
        (0.4772, 0.4566, 0.4168), (0.2556, 0.252, 0.272)),
}
# fmt: on


@renamed_arguments(reading="preprocessing")
def downstream_task(
    name: str,
    root: PathLike,
    preprocessing: Preprocessing | None = None,
    *,
    allow_missing_classes: bool = False,
) -> ImageTask:
    """Read one of the twelve downstream data sets, in the layout its distributor ships; nothing is downloaded.

    ============  ====================================================================================================
    name          files in ``root``
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

    Birdsnap is a list of addresses of which many are dead; the images in the folder are used. Its split here is the
    distributor's (2443 test images), which is not the one behind the published results (8171).

    Args:
      name: a key of `DOWNSTREAM_DATASETS`.
      root: the folder.
      preprocessing: how pictures are resized, cropped and scaled; as for ImageNet if None (what the study does for
        linear fine-tuning; for full fine-tuning it takes the mean and deviation in `DOWNSTREAM_DATASETS`). With
        ``size=None`` pictures are taken as they are, which all must have one size.
      allow_missing_classes: accept a part of the data set.

    Returns:
      `ImageTask`, with the metric and group of `DOWNSTREAM_DATASETS`; pictures are opened when they are needed.

    Raises:
      FileNotFoundError: a file or folder is missing.
      ValueError: an unknown name, a file of another form, or classes without images.

    Source: Iofinova et al. 2022, section on downstream tasks, and the splits in the authors' code.
    """
    if name not in LAYOUTS:
        fail("downstream_task", "name", f"value {name!r}", f"one of {', '.join(LAYOUTS)}")
    root = existing_folder("downstream_task", root, "root")
    facts = DOWNSTREAM_DATASETS[name]
    with naming(root):
        train, test = (_pictures(split, preprocessing or Preprocessing()) for split in LAYOUTS[name](root))
        return ImageTask(
            name,
            train,
            test,
            facts.num_classes,
            metric=facts.metric,
            group=facts.group,
            allow_missing_classes=allow_missing_classes,
        )


def _pictures(split: Split, preprocessing: Preprocessing) -> ImageSplit:
    pictures, labels = split
    numbers = np.asarray(labels, np.int32)
    if preprocessing.size is None and isinstance(pictures, np.ndarray):  # CIFAR, as it is
        return ByteImageSplit(pictures, numbers, preprocessing.mean, preprocessing.std, preprocessing.augmentation)
    if preprocessing.size is None:
        check_one_size("downstream_task", pictures)
    return LazyImageSplit(pictures, numbers, preprocessing)
