"""Models by name, for the command line."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from flax import nnx

from sparsejax._files import PathLike
from sparsejax.models._convnet import ConvNet
from sparsejax.models._layers import check_choice
from sparsejax.models._mlp import MLP
from sparsejax.models._mobilenet import MobileNetV1, mobilenet_v1
from sparsejax.models._resnet import ResNet, resnet18, resnet50
from sparsejax.models._torch_checkpoint import read_checkpoint
from sparsejax.models._vit import ViT, vit
from sparsejax.models._wide_resnet import WideResNet, wide_resnet

# An ImageNet stem divides the side by 4 before the first block: too much for CIFAR and Tiny ImageNet.
_LARGEST_SMALL_SIDE = 64

# What torchvision, RigL, timm and Hugging Face call the first convolution.
_STEM = re.compile(
    r"conv1\.weight|initial_conv\.weight|patch_embed\.proj\.weight|conv_proj\.weight"
    r"|embedder\.embedder\.convolution\.weight|embeddings\.patch_embeddings\.projection\.weight"
)
_Shape = tuple[int, int]
_Model = ResNet | MobileNetV1 | WideResNet | ConvNet | MLP | ViT


def _patch(stem: str) -> int:
    return 4 if stem == "small" else 16


_BUILDERS: dict[str, Callable[[int, int, _Shape, str, nnx.Rngs], _Model]] = {
    "resnet18": lambda n, c, s, stem, rngs: resnet18(n, in_features=c, stem=stem, rngs=rngs),
    "resnet50": lambda n, c, s, stem, rngs: resnet50(n, in_features=c, stem=stem, rngs=rngs),
    "mobilenet_v1": lambda n, c, s, stem, rngs: mobilenet_v1(n, in_features=c, stem=stem, rngs=rngs),
    "wide_resnet": lambda n, c, s, stem, rngs: wide_resnet(num_classes=n, in_features=c, rngs=rngs),
    "convnet": lambda n, c, s, stem, rngs: ConvNet(n, in_features=c, rngs=rngs),
    "mlp": lambda n, c, s, stem, rngs: MLP(math.prod(s) * c, n, rngs=rngs),
    **{
        f"vit_{size}": lambda n, c, s, stem, rngs, size=size: vit(
            size, n, image_size=s, patch=_patch(stem), in_features=c, rngs=rngs
        )
        for size in ("tiny", "small", "base")
    },
}

MODEL_NAMES: tuple[str, ...] = tuple(_BUILDERS)


def build(
    name: str,
    num_classes: int,
    in_features: int,
    image_shape: tuple[int, int],
    rngs: nnx.Rngs,
    *,
    stem: str | None = None,
) -> _Model:
    """Build a model by name, with a given stem or the one that fits the image size.

    Args:
      name: one of `MODEL_NAMES`.
      num_classes: outputs of the classifier.
      in_features: channels of the images.
      image_shape: (height, width), pixels.
      rngs: random streams for initialisation.
      stem: "imagenet" or "small", for ResNets and MobileNets; a ViT has patches of 16 and of 4 pixels. None: "small" up
        to 64 pixels a side. For a checkpoint pass `stem_of_torch`.

    Returns:
      The model in training mode; float[B, height, width, in_features] to logits float[B, num_classes].

    Raises:
      ValueError: an unknown name or stem, or images that a ViT's patches do not divide.

    >>> build("mlp", 10, 1, (8, 8), nnx.Rngs(0)).in_features
    64
    """
    check_choice("build", "name", name, MODEL_NAMES)
    stem = stem or ("small" if max(image_shape) <= _LARGEST_SMALL_SIDE else "imagenet")
    check_choice("build", "stem", stem, ("imagenet", "small"))
    return _BUILDERS[name](num_classes, in_features, image_shape, stem, rngs)


def stem_of_torch(source: PathLike | Mapping[str, Any]) -> str | None:
    """Return the stem of the ResNet or ViT in a PyTorch checkpoint, by the window of its first convolution.

    Args:
      source: as for `load_torch`.

    Returns:
      "imagenet" for a window of 7 pixels or patches of 16, "small" for 3 and 4; None where the window does not tell, as
      for MobileNet's, which is 3 pixels wide in both.

    Raises:
      FileNotFoundError: no such file.
      ImportError: torch (or safetensors) is needed for this file and not installed.
      ValueError: not a checkpoint.

    >>> import numpy as np
    >>> stem_of_torch({"conv1.weight": np.ones((64, 3, 7, 7)), "layer1.0.conv1.weight": np.ones((64, 64, 3, 3))})
    'imagenet'
    """
    values = read_checkpoint(source).values
    if not any(name.startswith(("layer1.", "blocks.", "encoder.")) and ".depthwise." not in name for name in values):
        return None
    stems: dict[tuple[int, ...], str] = {(7, 7): "imagenet", (16, 16): "imagenet", (3, 3): "small", (4, 4): "small"}
    windows = (value.shape[2:] for name, value in values.items() if _STEM.fullmatch(name) and value.ndim == 4)
    return stems.get(next(windows, ()))
