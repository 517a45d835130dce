"""ResNet-18 as a network to be trained."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
from flax import nnx

from sparsejax.models import BasicBlock, ResNet

from ._network import CLASSES, NetworkCase, layers

# Larger images get the stem of ImageNet's networks, which divides their side by 4.
LARGEST_SMALL_IMAGE = 64


class PlainResNet(ResNet):
    """The network with Flax's own pooling in place of ours, whose layout suits sparse layers."""

    def features(self, images: jax.Array) -> jax.Array:
        """As `ResNet.features`."""
        x = nnx.relu(self.bn1(self.conv1(images)))
        if self.stem == "imagenet":
            # Flax's annotation of the padding is narrower than what it takes.
            x = nnx.max_pool(x, (3, 3), strides=(2, 2), padding=self.pool_padding)  # pyright: ignore[reportArgumentType]
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in stage:
                x = block(x)
        return x.mean((1, 2))


@dataclasses.dataclass(frozen=True, eq=False)
class ResNetCase(NetworkCase):
    """ResNet-18; its first convolution and its classifier keep all weights.

    Attributes:
      image: pixels of a side. Up to 64 the network has the stem for small images.
    """

    image: int = 224
    dense_variants: ClassVar[tuple[str, ...]] = ("flax", "sparsejax pooling")

    @property
    def title(self) -> str:
        """As `NetworkCase.title`."""
        return f"ResNet-18, {self.image} x {self.image}"

    @property
    def small_stem(self) -> bool:
        """Whether the network begins with a 3x3 convolution and no pooling."""
        return self.image <= LARGEST_SMALL_IMAGE

    def build(self, *, plain: bool) -> ResNet:
        """As `NetworkCase.build`."""
        network = PlainResNet if plain else ResNet
        stem = "small" if self.small_stem else "imagenet"
        return network(BasicBlock, (2, 2, 2, 2), CLASSES, in_features=3, stem=stem, rngs=nnx.Rngs(self.seed))

    def kernels(self) -> dict[str, tuple[int, ...]]:
        """As `NetworkCase.kernels`."""
        model = nnx.eval_shape(lambda: self.build(plain=True))
        shapes = {path: layer.kernel.shape for path, layer in layers(model, (nnx.Conv,)).items()}
        del shapes["conv1"]
        return shapes

    def input_shape(self) -> tuple[int, ...]:
        """As `NetworkCase.input_shape`."""
        return self.image, self.image, 3
