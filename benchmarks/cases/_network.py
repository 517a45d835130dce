"""A network to be trained: random masks, inputs and labels, and the gradients of its first step."""

from __future__ import annotations

import abc
import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from flax import nnx

CLASSES = 1000
LEARNING_RATE = 1e-3
MOMENTUM = 0.9
# Networks of float32 layers differ more than one layer does: errors pass through all others, and ReLUs flip. PyTorch's
# channels-last form differs by 0.017 from its contiguous one; a gradient that is 5 % too large is detected. In bfloat16
# a ResNet-18's first gradients are off by 0.4 to 0.5 of their norms: the bound tells another network, which is off by
# more than 1, and the same code in float32 tells the rest.
TOLERANCES = {"float32": 3e-2, "bfloat16": 0.8}
# A gradient is compared relative to its norm, but not to less than this fraction of the largest: a key's bias, which
# softmax does not see, has a gradient of rounding errors only.
_SMALLEST = 1e-3


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
      dtype: in which it computes; None is that of the case.
    """

    name: str
    absent: Callable[[], str | None]
    unsupported: Callable[[NetworkCase], str | None]
    variants: Callable[[NetworkCase], dict[str, Callable[[], Trainer]]]
    dtype: str | None = None

    def tolerance(self, case: NetworkCase) -> float:
        """Largest `difference` of a right first step to that of the dense network in float32."""
        return TOLERANCES[self.dtype or case.dtype]


@dataclasses.dataclass(frozen=True, eq=False)
class NetworkCase(abc.ABC):
    """A network at uniform sparsity; its classifier and what else `kernels` leaves out keep all weights.

    Attributes:
      network: its name.
      batch: inputs per step.
      sparsity: fraction of zeros of each pruned kernel.
      dtype: of activations and products in Flax; parameters are float32. The classifier is always float32.
      seed: of everything random.
    """

    # The forms of the dense network: all functions Flax's, or some ours.
    dense_variants: ClassVar[tuple[str, ...]]

    network: str
    batch: int
    sparsity: float
    dtype: str = "float32"
    seed: int = 0

    @property
    @abc.abstractmethod
    def title(self) -> str:
        """Network and sizes in words."""

    @property
    def classifier(self) -> str:
        """Path of the classifier."""
        return "fc"

    @abc.abstractmethod
    def build(self, *, plain: bool) -> Any:
        """A new dense network in float32, without a mask; ``plain``: of Flax's functions only."""

    @abc.abstractmethod
    def kernels(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the kernels that are pruned, by layer path."""

    @abc.abstractmethod
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input."""

    @functools.cached_property
    def inputs(self) -> np.ndarray:
        """float32[batch, ...]."""
        rng = np.random.default_rng([self.seed, 1])
        return rng.standard_normal((self.batch, *self.input_shape()), np.float32)

    @property
    def over(self) -> str:
        """Network, sizes and type in words."""
        return f"{self.title}, batch {self.batch}, {self.dtype}"

    def model(self, *, plain: bool = False) -> Any:
        """A new dense network, with zeros where the masks say so; always the same values."""
        model = self.build(plain=plain)
        for path, mask in self.masks.items():
            kernel = functools.reduce(_child, path.split("/"), model).kernel
            kernel.set_value(kernel[...] * mask)
        modules: Any = nnx.iter_modules(model)
        for path, module in modules:
            if hasattr(module, "dtype") and path != (self.classifier,):
                module.dtype = jnp.dtype(self.dtype)
        return model

    @functools.cached_property
    def masks(self) -> dict[str, np.ndarray]:
        """bool masks by layer path, true where a weight is stored."""
        rng = np.random.default_rng(self.seed)
        masks = {}
        for path, shape in self.kernels().items():
            size = math.prod(shape)
            mask = np.zeros(size, bool)
            mask[rng.choice(size, max(1, round((1 - self.sparsity) * size)), replace=False)] = True
            masks[path] = mask.reshape(shape)
        return masks

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """int32[batch], or one for each row of the logits."""
        return np.random.default_rng([self.seed, 2]).integers(0, CLASSES, self.batch, dtype=np.int32)

    def masked(self, gradients: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Gradients with zeros where no weight is stored, which is all that a sparse network has."""
        masks = {f"{path}/kernel": mask for path, mask in self.masks.items()}
        return {path: g * masks[path] if path in masks else g for path, g in gradients.items()}


def _child(module: Any, name: str) -> Any:
    return module[int(name)] if name.isdecimal() else getattr(module, name)


def layers(model: Any, kinds: tuple[type, ...]) -> dict[str, Any]:
    """Layers of these classes by path."""
    return {"/".join(map(str, p)): layer for p, layer in nnx.iter_modules(model) if isinstance(layer, kinds)}


def difference(right: tuple[float, dict[str, np.ndarray]], got: tuple[float, dict[str, np.ndarray]]) -> float:
    """Largest relative difference of the losses and of any parameter's gradient (by Euclidean norm)."""
    if right[1].keys() != got[1].keys():
        return math.inf
    errors = [abs(got[0] - right[0]) / abs(right[0])]
    norms = {path: float(np.linalg.norm(gradient)) for path, gradient in right[1].items()}
    for path, gradient in right[1].items():
        scale = max(norms[path], _SMALLEST * max(norms.values()))
        errors.append(float(np.linalg.norm(got[1][path] - gradient)) / scale)
    worst = max(errors)
    return math.inf if any(map(math.isnan, errors)) else worst
