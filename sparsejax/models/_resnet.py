"""ResNet-18 and ResNet-50 with torchvision's layer names, padding and parameter counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, TypeAlias

import jax
from flax import nnx

from sparsejax.models._layers import batch_norm, check_choice, check_images, conv, global_average, max_pool
from sparsejax.nn import norm_act

PoolPadding: TypeAlias = tuple[tuple[int, int], tuple[int, int]]

TORCHVISION_POOL_PADDING: PoolPadding = ((1, 1), (1, 1))


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions and a shortcut: ``relu(bn2(conv2(relu(bn1(conv1(x))))) + shortcut(x))``.

    Args:
      in_features: channels of the input.
      width: channels of the output.
      stride: stride of the first convolution, pixels.
      rngs: random streams for initialisation.

    Source: He et al. 2016, "Deep Residual Learning for Image Recognition", figure 5 left.

    >>> BasicBlock(8, 16, 2, rngs=nnx.Rngs(0))(jax.numpy.ones((1, 8, 8, 8))).shape
    (1, 4, 4, 16)
    """

    expansion: ClassVar[int] = 1

    def __init__(self, in_features: int, width: int, stride: int, *, rngs: nnx.Rngs):
        self.conv1 = conv(in_features, width, 3, stride=stride, rngs=rngs)
        self.bn1 = batch_norm(width, rngs=rngs)
        self.conv2 = conv(width, width, 3, rngs=rngs)
        self.bn2 = batch_norm(width, rngs=rngs)
        self.downsample = _downsample(in_features, width, stride, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map ``float[B, H, W, in]`` to ``float[B, H/stride, W/stride, width]``."""
        y = norm_act(self.bn1, self.conv1(x))
        return norm_act(self.bn2, self.conv2(y), _shortcut(self.downsample, x))


class Bottleneck(nnx.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut; the stride is on the 3x3 convolution (version 1.5).

    Args:
      in_features: channels of the input.
      width: channels of the 3x3 convolution; the output has four times as many.
      stride: stride of the 3x3 convolution, pixels.
      rngs: random streams for initialisation.

    Source: He et al. 2016, figure 5 right; the position of the stride is torchvision's.

    >>> Bottleneck(8, 4, 2, rngs=nnx.Rngs(0))(jax.numpy.ones((1, 8, 8, 8))).shape
    (1, 4, 4, 16)
    """

    expansion: ClassVar[int] = 4

    def __init__(self, in_features: int, width: int, stride: int, *, rngs: nnx.Rngs):
        out_features = width * self.expansion
        self.conv1 = conv(in_features, width, 1, rngs=rngs)
        self.bn1 = batch_norm(width, rngs=rngs)
        self.conv2 = conv(width, width, 3, stride=stride, rngs=rngs)
        self.bn2 = batch_norm(width, rngs=rngs)
        self.conv3 = conv(width, out_features, 1, rngs=rngs)
        self.bn3 = batch_norm(out_features, rngs=rngs)
        self.downsample = _downsample(in_features, out_features, stride, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map ``float[B, H, W, in]`` to ``float[B, H/stride, W/stride, 4 * width]``."""
        y = norm_act(self.bn1, self.conv1(x))
        y = norm_act(self.bn2, self.conv2(y))
        return norm_act(self.bn3, self.conv3(y), _shortcut(self.downsample, x))


def _downsample(in_features: int, out_features: int, stride: int, rngs: nnx.Rngs) -> nnx.List[Any] | None:
    if stride == 1 and in_features == out_features:
        return None
    return nnx.List([conv(in_features, out_features, 1, stride=stride, rngs=rngs), batch_norm(out_features, rngs=rngs)])


def _shortcut(downsample: nnx.List[Any] | None, x: jax.Array) -> jax.Array:
    for layer in downsample or ():
        x = layer(x)
    return x


class ResNet(nnx.Module):
    """A residual network whose attribute paths are torchvision's parameter names.

    ``layer1[0].conv1.kernel`` is torchvision's ``layer1.0.conv1.weight``; ``downsample`` is a list of a 1x1
    convolution and a batch norm; ``fc`` is the classifier. Prefer `resnet18` and `resnet50`.

    Args:
      block: `BasicBlock` or `Bottleneck`.
      depths: number of blocks in each of the four stages (widths 64, 128, 256, 512).
      num_classes: outputs of the classifier.
      in_features: channels of the images.
      stem: "imagenet" (7x7 stride 2, then 3x3 max pooling stride 2) or "small" (3x3 stride 1, no pooling).
      rngs: random streams for initialisation.

    Attributes:
      pool_padding: zeros before and after each axis at the stem's pooling. torchvision's is one on each
        side; models converted from RigL's TensorFlow code need ((0, 1), (0, 1)), which
        `load_torch_state_dict` sets.

    Raises:
      ValueError: an unknown stem.

    Source: He et al. 2016, table 1.

    >>> make = lambda: ResNet(BasicBlock, (1, 1, 1, 1), 10, in_features=1, stem="small", rngs=nnx.Rngs(0))
    >>> model = nnx.eval_shape(make)
    >>> model.conv1.kernel.shape, model.layer2[0].downsample[0].kernel.shape
    ((3, 3, 1, 64), (1, 1, 64, 128))
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        depths: Sequence[int],
        num_classes: int,
        *,
        in_features: int,
        stem: str,
        rngs: nnx.Rngs,
    ):
        check_choice("ResNet", "stem", stem, ("imagenet", "small"))
        self.in_features = in_features
        self.stem = stem
        self.pool_padding: PoolPadding = TORCHVISION_POOL_PADDING
        size, stride = (7, 2) if stem == "imagenet" else (3, 1)
        self.conv1 = conv(in_features, 64, size, stride=stride, rngs=rngs)
        self.bn1 = batch_norm(64, rngs=rngs)
        wide = block.expansion
        self.layer1 = _stage(block, 64, 64, depths[0], 1, rngs)
        self.layer2 = _stage(block, 64 * wide, 128, depths[1], 2, rngs)
        self.layer3 = _stage(block, 128 * wide, 256, depths[2], 2, rngs)
        self.layer4 = _stage(block, 256 * wide, 512, depths[3], 2, rngs)
        self.fc = nnx.Linear(512 * wide, num_classes, rngs=rngs)

    def features(self, images: jax.Array) -> jax.Array:
        """Return the pooled features: ``float[B, H, W, C] -> float[B, 512 * expansion]``."""
        check_images("ResNet", images, self.in_features)
        x = norm_act(self.bn1, self.conv1(images))
        if self.stem == "imagenet":
            x = max_pool(x, (3, 3), strides=(2, 2), padding=self.pool_padding)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in stage:
                x = block(x)
        return global_average(x)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Return logits: ``float[B, H, W, C] -> float[B, num_classes]``."""
        return self.fc(self.features(images))


def _stage(
    block: type[BasicBlock] | type[Bottleneck],
    in_features: int,
    width: int,
    depth: int,
    stride: int,
    rngs: nnx.Rngs,
) -> nnx.List[Any]:
    blocks = [block(in_features, width, stride, rngs=rngs)]
    blocks += [block(width * block.expansion, width, 1, rngs=rngs) for _ in range(depth - 1)]
    return nnx.List(blocks)


def resnet18(num_classes: int = 1000, *, in_features: int = 3, stem: str = "imagenet", rngs: nnx.Rngs) -> ResNet:
    """Build ResNet-18 (11,689,512 parameters with 1000 classes and the ImageNet stem).

    Args:
      num_classes: outputs of the classifier.
      in_features: channels of the images.
      stem: "imagenet", or "small" for images of 64 pixels and less.
      rngs: random streams for initialisation.

    Returns:
      A `ResNet` in training mode; it maps float[B, H, W, in_features] to logits float[B, num_classes].

    Raises:
      ValueError: an unknown stem.

    Source: He et al. 2016, table 1, column 18-layer.

    >>> model = nnx.eval_shape(lambda: resnet18(10, in_features=1, stem="small", rngs=nnx.Rngs(0)))
    >>> len(model.layer2), model.layer2[0].conv1.kernel.shape
    (2, (3, 3, 64, 128))
    """
    return ResNet(BasicBlock, (2, 2, 2, 2), num_classes, in_features=in_features, stem=stem, rngs=rngs)


def resnet50(num_classes: int = 1000, *, in_features: int = 3, stem: str = "imagenet", rngs: nnx.Rngs) -> ResNet:
    """Build ResNet-50, version 1.5 (25,557,032 parameters with 1000 classes and the ImageNet stem).

    Args:
      num_classes: outputs of the classifier.
      in_features: channels of the images.
      stem: "imagenet", or "small" for images of 64 pixels and less.
      rngs: random streams for initialisation.

    Returns:
      A `ResNet` in training mode; it maps float[B, H, W, in_features] to logits float[B, num_classes].

    Raises:
      ValueError: an unknown stem.

    Source: He et al. 2016, table 1, column 50-layer.

    >>> model = nnx.eval_shape(lambda: resnet50(rngs=nnx.Rngs(0)))
    >>> len(model.layer3), model.fc.kernel.shape
    (6, (2048, 1000))
    """
    return ResNet(Bottleneck, (3, 4, 6, 3), num_classes, in_features=in_features, stem=stem, rngs=rngs)
