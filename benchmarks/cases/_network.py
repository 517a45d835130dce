"""A network to be trained: ResNet-18 with random masks, images and labels, and the gradients of its first step."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from flax import nnx

from sparsejax.models import BasicBlock, ResNet

CLASSES = 1000
LEARNING_RATE = 1e-3
MOMENTUM = 0.9
# Networks of float32 layers differ more than one layer does: errors pass through all others, and ReLUs flip. PyTorch's
# channels-last form differs by 0.017 from its contiguous one; a gradient that is 5 % too large is detected.
TOLERANCE = 3e-2

# Larger images get the stem of ImageNet's networks, which divides their side by 4.
LARGEST_SMALL_IMAGE = 64


@dataclasses.dataclass(frozen=True)
class Trainer:
    """One way to train the network.

    Attributes:
      step: one training step with SGD and momentum; returns the loss, a float, when all is done.
      gradients: after the first step, the gradients of it by parameter path ("layer1/0/conv1/kernel") in Flax's
        layout: the momentum, which starts at zero.
    """

    step: Callable[[], float]
    gradients: Callable[[], dict[str, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class NetworkPeer:
    """An implementation; as `Peer`, for networks.

    Attributes:
      name: as in ``--peers``.
      absent: why it cannot run here at all, or None.
      unsupported: why it cannot train a network, or None.
      variants: ways in which it can, by name; the fastest counts. Each call builds a network.
    """

    name: str
    absent: Callable[[], str | None]
    unsupported: Callable[[NetworkCase], str | None]
    variants: Callable[[NetworkCase], dict[str, Callable[[], Trainer]]]


@dataclasses.dataclass(frozen=True, eq=False)
class NetworkCase:
    """ResNet-18 at uniform sparsity; its first convolution and its classifier keep all weights.

    Attributes:
      image: pixels of a side. Up to 64 the network has the stem for small images.
      batch: images per step.
      sparsity: fraction of zeros of each other convolution.
      seed: of everything random.
    """

    image: int
    batch: int
    sparsity: float
    seed: int = 0

    def model(self, network: type[ResNet] = ResNet) -> ResNet:
        """A new dense network, with zeros where the masks say so; always the same values."""
        stem = "small" if self.image <= LARGEST_SMALL_IMAGE else "imagenet"
        model = network(BasicBlock, (2, 2, 2, 2), CLASSES, in_features=3, stem=stem, rngs=nnx.Rngs(self.seed))
        for path, layer in convolutions(model).items():
            if path in self.masks:
                layer.kernel.set_value(layer.kernel[...] * self.masks[path])
        return model

    @functools.cached_property
    def masks(self) -> dict[str, np.ndarray]:
        """bool masks by layer path, true where a weight is stored."""
        rng = np.random.default_rng(self.seed)
        make = functools.partial(ResNet, BasicBlock, (2, 2, 2, 2), CLASSES, in_features=3, stem="small")
        shapes = {p: c.kernel.shape for p, c in convolutions(nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0)))).items()}
        del shapes["conv1"]
        masks = {}
        for path, shape in shapes.items():
            size = math.prod(shape)
            mask = np.zeros(size, bool)
            mask[rng.choice(size, max(1, round((1 - self.sparsity) * size)), replace=False)] = True
            masks[path] = mask.reshape(shape)
        return masks

    @functools.cached_property
    def images(self) -> np.ndarray:
        """float32[batch, image, image, 3]."""
        rng = np.random.default_rng([self.seed, 1])
        return rng.standard_normal((self.batch, self.image, self.image, 3), np.float32)

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """int32[batch]."""
        return np.random.default_rng([self.seed, 2]).integers(0, CLASSES, self.batch, dtype=np.int32)

    def masked(self, gradients: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Gradients with zeros where no weight is stored, which is all that a sparse network has."""
        masks = {f"{path}/kernel": mask for path, mask in self.masks.items()}
        return {path: g * masks[path] if path in masks else g for path, g in gradients.items()}


def convolutions(model: Any) -> dict[str, nnx.Conv]:
    """All convolutions by path."""
    return {"/".join(map(str, p)): layer for p, layer in nnx.iter_modules(model) if isinstance(layer, nnx.Conv)}


def difference(right: tuple[float, dict[str, np.ndarray]], got: tuple[float, dict[str, np.ndarray]]) -> float:
    """Largest relative difference of the losses and of any parameter's gradient (by Euclidean norm)."""
    if right[1].keys() != got[1].keys():
        return math.inf
    errors = [abs(got[0] - right[0]) / abs(right[0])]
    for path, gradient in right[1].items():
        errors.append(float(np.linalg.norm(got[1][path] - gradient) / np.linalg.norm(gradient)))
    worst = max(errors)
    return math.inf if any(map(math.isnan, errors)) else worst
