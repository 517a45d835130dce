"""Transformers as networks to be trained: blocks over embedded tokens, with a classifier of their mean."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from sparsejax.nn import dot_product_attention

from ._network import CLASSES, NetworkCase, layers

EPSILON = 1e-6


class Size(NamedTuple):
    """Blocks, width of a token, heads, width of the two-layer networks, tokens of an input."""

    blocks: int
    width: int
    heads: int
    hidden: int
    tokens: int


SIZES = {"vit-small": Size(4, 384, 6, 1536, 197), "transformer-768": Size(2, 768, 12, 3072, 128)}


class Block(nnx.Module):
    """Attention and a two-layer network with GELU, each behind a norm and beside a shortcut."""

    def __init__(self, size: Size, attention: Any, rngs: nnx.Rngs):
        self.norm1 = nnx.LayerNorm(size.width, epsilon=EPSILON, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(size.heads, size.width, attention_fn=attention, decode=False, rngs=rngs)
        self.norm2 = nnx.LayerNorm(size.width, epsilon=EPSILON, rngs=rngs)
        self.fc1 = nnx.Linear(size.width, size.hidden, rngs=rngs)
        self.fc2 = nnx.Linear(size.hidden, size.width, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.attention(self.norm1(x))
        return x + self.fc2(nnx.gelu(self.fc1(self.norm2(x)), approximate=False))


class Transformer(nnx.Module):
    """Blocks, a norm, the mean over tokens and a classifier: ``float[batch, tokens, width] -> float[batch, classes]``.

    Source: Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words", section 3.1, without the map of patches.
    """

    def __init__(self, size: Size, attention: Any, rngs: nnx.Rngs):
        self.dtype = jnp.float32
        self.blocks = nnx.List([Block(size, attention, rngs) for _ in range(size.blocks)])
        self.norm = nnx.LayerNorm(size.width, epsilon=EPSILON, rngs=rngs)
        self.fc = nnx.Linear(size.width, CLASSES, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x.astype(self.dtype)
        for block in self.blocks:
            x = block(x)
        return self.fc(self.norm(x).mean(1))


@dataclasses.dataclass(frozen=True, eq=False)
class TransformerCase(NetworkCase):
    """A transformer of `SIZES`; all projections of its blocks are pruned, its classifier is not."""

    dense_variants: ClassVar[tuple[str, ...]] = ("flax", "sparsejax attention")

    @property
    def size(self) -> Size:
        """Of the network."""
        return SIZES[self.network]

    @property
    def title(self) -> str:
        """As `NetworkCase.title`."""
        size = self.size
        return f"{self.network} ({size.blocks} blocks of width {size.width}, {size.tokens} tokens)"

    def build(self, *, plain: bool) -> Transformer:
        """As `NetworkCase.build`."""
        attention = nnx.dot_product_attention if plain else dot_product_attention
        return Transformer(self.size, attention, nnx.Rngs(self.seed))

    def kernels(self) -> dict[str, tuple[int, ...]]:
        """As `NetworkCase.kernels`."""
        model = nnx.eval_shape(lambda: self.build(plain=True))
        found = layers(model.blocks, (nnx.Linear, nnx.LinearGeneral))
        return {f"blocks/{path}": layer.kernel.shape for path, layer in found.items()}

    def input_shape(self) -> tuple[int, ...]:
        """As `NetworkCase.input_shape`."""
        return self.size.tokens, self.size.width
