"""MobileNet-V1: a stem and thirteen depthwise separable convolutions."""

from __future__ import annotations

import jax
from flax import nnx

from sparsejax._checks import fail
from sparsejax.models._layers import batch_norm, check_choice, check_images, conv, global_average
from sparsejax.nn import norm_act

# (channels, stride) of each separable convolution: Howard et al. 2017, table 1.
_PLAN = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (1024, 2),
    (1024, 1),
)
_MIN_CHANNELS = 8


class SeparableConv(nnx.Module):
    """A depthwise 3x3 and a pointwise convolution, each with batch norm and ReLU.

    Args:
      in_features: channels of the input.
      out_features: channels of the output.
      stride: stride of the depthwise convolution, pixels.
      rngs: random streams for initialisation.

    Source: Howard et al. 2017, "MobileNets", figure 3 right.

    >>> SeparableConv(8, 16, 2, rngs=nnx.Rngs(0))(jax.numpy.ones((1, 8, 8, 8))).shape
    (1, 4, 4, 16)
    """

    def __init__(self, in_features: int, out_features: int, stride: int, *, rngs: nnx.Rngs):
        self.depthwise = conv(in_features, in_features, 3, stride=stride, groups=in_features, rngs=rngs)
        self.bn1 = batch_norm(in_features, rngs=rngs)
        self.pointwise = conv(in_features, out_features, 1, rngs=rngs)
        self.bn2 = batch_norm(out_features, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map ``float[B, H, W, in]`` to ``float[B, H/stride, W/stride, out]``."""
        x = norm_act(self.bn1, self.depthwise(x))
        return norm_act(self.bn2, self.pointwise(x))


class MobileNetV1(nnx.Module):
    """MobileNet-V1; prefer the factory `mobilenet_v1`.

    Parameter names in torch style: ``conv1``, ``bn1``, ``blocks.I.depthwise``, ``blocks.I.bn1``,
    ``blocks.I.pointwise``, ``blocks.I.bn2`` with I from 0 to 12, and ``fc``.

    Args:
      num_classes: outputs of the classifier.
      width: multiplier of all channel counts (at least 8 channels are kept).
      in_features: channels of the images.
      stem: "imagenet" (first convolution with stride 2) or "small" (stride 1).
      rngs: random streams for initialisation.

    Raises:
      ValueError: an unknown stem, or a width that is not positive.

    Source: Howard et al. 2017, "MobileNets", table 1.

    >>> make = lambda: MobileNetV1(10, width=0.25, in_features=1, stem="small", rngs=nnx.Rngs(0))
    >>> model = nnx.eval_shape(make)
    >>> model.conv1.kernel.shape, model.fc.kernel.shape
    ((3, 3, 1, 8), (256, 10))
    """

    def __init__(self, num_classes: int, *, width: float, in_features: int, stem: str, rngs: nnx.Rngs):
        check_choice("MobileNetV1", "stem", stem, ("imagenet", "small"))
        if not width > 0:
            fail("MobileNetV1", "width", f"value {width}", "a positive multiplier")
        self.in_features = in_features
        channels = _scaled(32, width)
        self.conv1 = conv(in_features, channels, 3, stride=2 if stem == "imagenet" else 1, rngs=rngs)
        self.bn1 = batch_norm(channels, rngs=rngs)
        blocks = []
        for out_features, stride in _PLAN:
            blocks.append(SeparableConv(channels, _scaled(out_features, width), stride, rngs=rngs))
            channels = _scaled(out_features, width)
        self.blocks = nnx.List(blocks)
        self.fc = nnx.Linear(channels, num_classes, rngs=rngs)

    def features(self, images: jax.Array) -> jax.Array:
        """Return the pooled features: ``float[B, H, W, C] -> float[B, 1024 * width]``."""
        check_images("MobileNetV1", images, self.in_features)
        x = norm_act(self.bn1, self.conv1(images))
        for block in self.blocks:
            x = block(x)
        return global_average(x)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Return logits: ``float[B, H, W, C] -> float[B, num_classes]``."""
        return self.fc(self.features(images))


def _scaled(channels: int, width: float) -> int:
    return max(_MIN_CHANNELS, int(channels * width))


def mobilenet_v1(
    num_classes: int = 1000,
    *,
    width: float = 1.0,
    in_features: int = 3,
    stem: str = "imagenet",
    rngs: nnx.Rngs,
) -> MobileNetV1:
    """Build MobileNet-V1 (4,231,976 parameters with 1000 classes and width 1).

    Args:
      num_classes: outputs of the classifier.
      width: multiplier of all channel counts.
      in_features: channels of the images.
      stem: "imagenet", or "small" for images of 64 pixels and less.
      rngs: random streams for initialisation.

    Returns:
      A `MobileNetV1` in training mode; it maps float[B, H, W, in_features] to logits float[B, num_classes].

    Raises:
      ValueError: an unknown stem, or a width that is not positive.

    Source: Howard et al. 2017, "MobileNets", table 1.

    >>> model = nnx.eval_shape(lambda: mobilenet_v1(rngs=nnx.Rngs(0)))
    >>> len(model.blocks), model.blocks[0].depthwise.kernel.shape
    (13, (3, 3, 1, 32))
    """
    return MobileNetV1(num_classes, width=width, in_features=in_features, stem=stem, rngs=rngs)
