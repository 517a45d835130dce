"""A small convolutional network for small images."""

from __future__ import annotations

from collections.abc import Sequence

import jax
from flax import nnx

from sparsejax._checks import fail
from sparsejax.models._layers import batch_norm, check_images, conv, global_average, max_pool
from sparsejax.nn import norm_act


class ConvNet(nnx.Module):
    """3x3 convolutions with batch norm and ReLU, 2x2 max pooling between them, global average, classifier.

    Attributes: ``convs`` and ``bns`` (lists of equal length) and ``fc``.

    Args:
      num_classes: outputs of the classifier.
      in_features: channels of the images.
      widths: channels of each convolution; images must be at least 2 ** (len(widths) - 1) pixels a side.
      rngs: random streams for initialisation.

    Raises:
      ValueError: no width; when called: images of the wrong rank or channels, or too small for the poolings.

    >>> model = ConvNet(10, in_features=1, widths=(8, 16), rngs=nnx.Rngs(0))
    >>> model(jax.numpy.ones((2, 8, 8, 1))).shape
    (2, 10)
    """

    def __init__(
        self,
        num_classes: int = 10,
        *,
        in_features: int = 1,
        widths: Sequence[int] = (32, 64, 128),
        rngs: nnx.Rngs,
    ):
        if not widths:
            fail("ConvNet", "widths", "no element", "the channels of at least one convolution")
        self.in_features = in_features
        channels = (in_features, *widths)
        self.convs = nnx.List([conv(a, b, 3, rngs=rngs) for a, b in zip(channels, widths, strict=False)])
        self.bns = nnx.List([batch_norm(width, rngs=rngs) for width in widths])
        self.fc = nnx.Linear(channels[-1], num_classes, rngs=rngs)

    def features(self, images: jax.Array) -> jax.Array:
        """Return the pooled features: ``float[B, H, W, C] -> float[B, widths[-1]]``."""
        check_images("ConvNet", images, self.in_features)
        smallest = 2 ** (len(self.convs) - 1)
        if min(images.shape[1:3]) < smallest:
            fail("ConvNet", "images", f"shape {tuple(images.shape)}", f"at least {smallest} pixels a side")
        x = images
        for index, (convolution, norm) in enumerate(zip(self.convs, self.bns, strict=True)):
            if index:
                x = max_pool(x, (2, 2), strides=(2, 2))
            x = norm_act(norm, convolution(x))
        return global_average(x)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Return logits: ``float[B, H, W, C] -> float[B, num_classes]``."""
        return self.fc(self.features(images))
