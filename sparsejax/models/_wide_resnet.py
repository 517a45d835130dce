"""Wide residual networks for small images."""

from __future__ import annotations

from typing import Any

import jax
from flax import nnx

from sparsejax._checks import fail
from sparsejax.models._layers import batch_norm, check_images, conv, global_average
from sparsejax.nn import norm_act


class WideBlock(nnx.Module):
    """A pre-activation block: batch norm, ReLU, 3x3 convolution, twice, dropout between, plus the shortcut.

    Where the number of channels changes, the shortcut is a 1x1 convolution of the activated input.

    Args:
      in_features: channels of the input.
      out_features: channels of the output.
      stride: stride of the first convolution and of the shortcut, pixels.
      dropout: probability of dropping an activation, in [0, 1); 0 makes no dropout layer.
      rngs: random streams for initialisation and dropout.

    Source: Zagoruyko and Komodakis 2016, "Wide Residual Networks", figure 1 (c, d).

    >>> WideBlock(8, 16, 2, 0.0, rngs=nnx.Rngs(0))(jax.numpy.ones((1, 8, 8, 8))).shape
    (1, 4, 4, 16)
    """

    def __init__(self, in_features: int, out_features: int, stride: int, dropout: float, *, rngs: nnx.Rngs):
        self.bn1 = batch_norm(in_features, rngs=rngs)
        self.conv1 = conv(in_features, out_features, 3, stride=stride, rngs=rngs)
        self.bn2 = batch_norm(out_features, rngs=rngs)
        self.dropout = nnx.Dropout(dropout, rngs=rngs) if dropout else None
        self.conv2 = conv(out_features, out_features, 3, rngs=rngs)
        changes = in_features != out_features
        self.shortcut = conv(in_features, out_features, 1, stride=stride, rngs=rngs) if changes else None

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map ``float[B, H, W, in]`` to ``float[B, H/stride, W/stride, out]``."""
        active = norm_act(self.bn1, x)
        y = norm_act(self.bn2, self.conv1(active))
        if self.dropout is not None:
            y = self.dropout(y)
        return self.conv2(y) + (x if self.shortcut is None else self.shortcut(active))


class WideResNet(nnx.Module):
    """A wide residual network; prefer the factory `wide_resnet`.

    Attributes: ``conv1``, ``block1`` to ``block3`` (lists of `WideBlock`), ``bn1``, ``fc``.

    Args:
      depth: number of convolutions, 6 n + 4, the three shortcuts included.
      width: multiplier of the channel counts 16, 32, 64.
      num_classes: outputs of the classifier.
      dropout: probability of dropping an activation inside a block, in [0, 1).
      in_features: channels of the images.
      rngs: random streams for initialisation and dropout.

    Raises:
      ValueError: a depth that is not 6 n + 4, a width below 1, or a dropout outside [0, 1).

    Source: Zagoruyko and Komodakis 2016, "Wide Residual Networks", table 1.

    >>> net = WideResNet(10, 1, 10, dropout=0.0, in_features=1, rngs=nnx.Rngs(0))
    >>> net(jax.numpy.ones((2, 8, 8, 1))).shape
    (2, 10)
    """

    def __init__(
        self,
        depth: int,
        width: int,
        num_classes: int,
        *,
        dropout: float,
        in_features: int,
        rngs: nnx.Rngs,
    ):
        if depth < 10 or (depth - 4) % 6:
            fail("WideResNet", "depth", f"value {depth}", "6 n + 4 with n at least 1, such as 22 or 28")
        if width < 1:
            fail("WideResNet", "width", f"value {width}", "at least 1")
        if not 0 <= dropout < 1:
            fail("WideResNet", "dropout", f"value {dropout}", "a probability in [0, 1)")
        self.in_features = in_features
        count = (depth - 4) // 6
        self.conv1 = conv(in_features, 16, 3, rngs=rngs)
        self.block1 = _group(16, 16 * width, count, 1, dropout, rngs)
        self.block2 = _group(16 * width, 32 * width, count, 2, dropout, rngs)
        self.block3 = _group(32 * width, 64 * width, count, 2, dropout, rngs)
        self.bn1 = batch_norm(64 * width, rngs=rngs)
        self.fc = nnx.Linear(64 * width, num_classes, rngs=rngs)

    def features(self, images: jax.Array) -> jax.Array:
        """Return the pooled features: ``float[B, H, W, C] -> float[B, 64 * width]``."""
        check_images("WideResNet", images, self.in_features)
        x = self.conv1(images)
        for group in (self.block1, self.block2, self.block3):
            for block in group:
                x = block(x)
        return global_average(norm_act(self.bn1, x))

    def __call__(self, images: jax.Array) -> jax.Array:
        """Return logits: ``float[B, H, W, C] -> float[B, num_classes]``."""
        return self.fc(self.features(images))


def _group(
    in_features: int, out_features: int, count: int, stride: int, dropout: float, rngs: nnx.Rngs
) -> nnx.List[Any]:
    blocks = [WideBlock(in_features, out_features, stride, dropout, rngs=rngs)]
    blocks += [WideBlock(out_features, out_features, 1, dropout, rngs=rngs) for _ in range(count - 1)]
    return nnx.List(blocks)


def wide_resnet(
    depth: int = 28,
    width: int = 10,
    num_classes: int = 10,
    *,
    dropout: float = 0.0,
    in_features: int = 3,
    rngs: nnx.Rngs,
) -> WideResNet:
    """Build a wide residual network (WRN-28-10 with 10 classes: 36,479,194 parameters).

    Args:
      depth: number of convolutions, 6 n + 4, the three shortcuts included.
      width: multiplier of the channel counts 16, 32, 64.
      num_classes: outputs of the classifier.
      dropout: probability of dropping an activation inside a block, in [0, 1).
      in_features: channels of the images.
      rngs: random streams for initialisation and dropout.

    Returns:
      A `WideResNet` in training mode; it maps float[B, H, W, in_features] to logits float[B, num_classes].

    Raises:
      ValueError: a depth that is not 6 n + 4, a width below 1, or a dropout outside [0, 1).

    Source: Zagoruyko and Komodakis 2016, "Wide Residual Networks", table 1.

    >>> model = nnx.eval_shape(lambda: wide_resnet(22, 2, rngs=nnx.Rngs(0)))
    >>> len(model.block1), model.fc.kernel.shape
    (3, (128, 10))
    """
    return WideResNet(depth, width, num_classes, dropout=dropout, in_features=in_features, rngs=rngs)
