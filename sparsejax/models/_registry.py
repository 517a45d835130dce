"""Models by name, for the command line."""

from __future__ import annotations

import math
from collections.abc import Callable

from flax import nnx

from sparsejax.models._convnet import ConvNet
from sparsejax.models._layers import check_choice
from sparsejax.models._mlp import MLP
from sparsejax.models._mobilenet import MobileNetV1, mobilenet_v1
from sparsejax.models._resnet import ResNet, resnet18, resnet50
from sparsejax.models._wide_resnet import WideResNet, wide_resnet

# An ImageNet stem divides the side by 4 before the first block: too much for CIFAR and Tiny ImageNet.
_LARGEST_SMALL_SIDE = 64

_Shape = tuple[int, int]
_Model = ResNet | MobileNetV1 | WideResNet | ConvNet | MLP


def _stem(shape: _Shape) -> str:
    return "small" if max(shape) <= _LARGEST_SMALL_SIDE else "imagenet"


_BUILDERS: dict[str, Callable[[int, int, _Shape, nnx.Rngs], _Model]] = {
    "resnet18": lambda n, c, s, rngs: resnet18(n, in_features=c, stem=_stem(s), rngs=rngs),
    "resnet50": lambda n, c, s, rngs: resnet50(n, in_features=c, stem=_stem(s), rngs=rngs),
    "mobilenet_v1": lambda n, c, s, rngs: mobilenet_v1(n, in_features=c, stem=_stem(s), rngs=rngs),
    "wide_resnet": lambda n, c, s, rngs: wide_resnet(num_classes=n, in_features=c, rngs=rngs),
    "convnet": lambda n, c, s, rngs: ConvNet(n, in_features=c, rngs=rngs),
    "mlp": lambda n, c, s, rngs: MLP(math.prod(s) * c, n, rngs=rngs),
}

MODEL_NAMES: tuple[str, ...] = tuple(_BUILDERS)


def build(name: str, num_classes: int, in_features: int, image_shape: tuple[int, int], rngs: nnx.Rngs) -> _Model:
    """Build a model by name, with the stem that fits the image size.

    Args:
      name: one of `MODEL_NAMES`.
      num_classes: outputs of the classifier.
      in_features: channels of the images.
      image_shape: (height, width), pixels. Up to 64 pixels a side the small-image stem is used.
      rngs: random streams for initialisation.

    Returns:
      The model in training mode; float[B, height, width, in_features] to logits float[B, num_classes].

    Raises:
      ValueError: an unknown name.

    >>> build("mlp", 10, 1, (8, 8), nnx.Rngs(0)).in_features
    64
    """
    check_choice("build", "name", name, MODEL_NAMES)
    return _BUILDERS[name](num_classes, in_features, image_shape, rngs)
