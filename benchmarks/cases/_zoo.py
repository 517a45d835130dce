"""The zoo's transformers as networks to be trained, in the sizes of their papers."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import numpy as np
from flax import nnx

from sparsejax.models import GPT, Bert, vit

from ._network import CLASSES, NetworkCase, layers


class Kind(NamedTuple):
    """A network of the zoo.

    Attributes:
      title: in words.
      build: makes it.
      input_shape: of one input: (height, width, channels) of an image, or (tokens,) of a text.
      vocabulary: tokens that exist; 0 for images.
      classifier: path of the layer that stays float32; empty for an embedding that is also the output layer.
    """

    title: str
    build: Callable[[nnx.Rngs], nnx.Module]
    input_shape: tuple[int, ...]
    vocabulary: int = 0
    classifier: str = "head"


def _vit(size: str) -> Kind:
    return Kind(f"ViT {size}, 224 x 224", lambda rngs: vit(size, CLASSES, rngs=rngs), (224, 224, 3))


ZOO = {
    "vit_tiny": _vit("tiny"),
    "vit_small": _vit("small"),
    "vit_base": _vit("base"),
    "gpt": Kind("GPT-2 small, 128 tokens", lambda rngs: GPT(rngs=rngs), (128,), 50257, ""),
    "bert": Kind("BERT base, 128 tokens", lambda rngs: Bert(CLASSES, rngs=rngs), (128,), 30522, "classifier"),
}


@dataclasses.dataclass(frozen=True, eq=False)
class ZooCase(NetworkCase):
    """A transformer of `ZOO`; all linear layers are pruned but those that `sparsejax.models` leaves dense."""

    dense_variants: ClassVar[tuple[str, ...]] = ("sparsejax attention",)

    @property
    def kind(self) -> Kind:
        """Of the network."""
        return ZOO[self.network]

    @property
    def title(self) -> str:
        """As `NetworkCase.title`."""
        return self.kind.title

    @property
    def classifier(self) -> str:
        """As `NetworkCase.classifier`."""
        return self.kind.classifier

    def build(self, *, plain: bool) -> Any:
        """As `NetworkCase.build`; the zoo has one form."""
        del plain
        return self.kind.build(nnx.Rngs(self.seed))

    def kernels(self) -> dict[str, tuple[int, ...]]:
        """As `NetworkCase.kernels`."""
        model: Any = nnx.eval_shape(lambda: self.build(plain=True))
        found = layers(model, (nnx.Linear,))
        return {path: m.kernel.shape for path, m in found.items() if path.split("/")[0] not in model.dense_parts}

    def input_shape(self) -> tuple[int, ...]:
        """As `NetworkCase.input_shape`."""
        return self.kind.input_shape

    @functools.cached_property
    def inputs(self) -> np.ndarray:
        """float32[batch, height, width, channels], or int32[batch, tokens]."""
        if not self.kind.vocabulary:
            return super().inputs
        return self._tokens(1)

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """int32[batch] of a classifier; int32[batch, tokens] of a language model."""
        return super().labels if self.classifier else self._tokens(2)

    def _tokens(self, stream: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, stream])
        return rng.integers(0, self.kind.vocabulary, (self.batch, *self.input_shape()), dtype=np.int32)
