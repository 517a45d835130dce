"""The twelve downstream data sets of the study of sparse transfer: sizes, statistics, settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Benchmark:
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
BENCHMARKS: dict[str, Benchmark] = {
    "aircraft": Benchmark(
        "FGVC Aircraft (variant labels)",
        100,
        6667,
        3333,
        "mean_per_class",
        "fine_grained",
        0.01,
        (0.4892, 0.5159, 0.5356),
        (0.2275, 0.22, 0.2476),
    ),
    "birds": Benchmark(
        "Birdsnap", 500, 32677, 8171, "top1", "fine_grained", 0.001, (0.4856, 0.4948, 0.4486), (0.2233, 0.2213, 0.2586)
    ),
    "caltech101": Benchmark(
        "Caltech-101",
        101,
        3030,
        5647,
        "mean_per_class",
        "general",
        0.001,
        (0.5413, 0.5063, 0.4693),
        (0.3115, 0.309, 0.3183),
    ),
    "caltech256": Benchmark(
        "Caltech-256 (with the clutter class)",
        257,
        15420,
        15187,
        "mean_per_class",
        "general",
        0.001,
        (0.5438, 0.5141, 0.4821),
        (0.3077, 0.3044, 0.3163),
    ),
    "cars": Benchmark(
        "Stanford Cars", 196, 8144, 8041, "top1", "fine_grained", 0.01, (0.4513, 0.4354, 0.4358), (0.29, 0.288, 0.2951)
    ),
    "cifar10": Benchmark(
        "CIFAR-10", 10, 50000, 10000, "top1", "general", 0.001, (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.201)
    ),
    "cifar100": Benchmark(
        "CIFAR-100", 100, 50000, 10000, "top1", "general", 0.001, (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
    ),
    "dtd": Benchmark(
        "Describable Textures (DTD), split 1",
        47,
        3760,
        1880,
        "top1",
        "general",
        0.001,
        (0.5322, 0.4734, 0.4251),
        (0.2642, 0.253, 0.2613),
    ),
    "flowers": Benchmark(
        "Oxford 102 Flowers",
        102,
        2040,
        6149,
        "mean_per_class",
        "fine_grained",
        0.001,
        (0.5133, 0.4148, 0.3383),
        (0.2959, 0.2502, 0.29),
    ),
    "food101": Benchmark(
        "Food-101", 101, 75750, 25250, "top1", "fine_grained", 0.001, (0.5566, 0.4378, 0.3193), (0.2589, 0.2622, 0.263)
    ),
    "pets": Benchmark(
        "Oxford-IIIT Pets",
        37,
        3680,
        3669,
        "mean_per_class",
        "fine_grained",
        0.001,
        (0.4807, 0.4432, 0.3949),
        (0.2598, 0.2537, 0.2597),
    ),
    "sun397": Benchmark(
        "SUN397, split 1", 397, 19850, 19850, "top1", "general", 0.001, (0.4772, 0.4566, 0.4168), (0.2556, 0.252, 0.272)
    ),
}
