"""Linen modules, written as Flax's documentation writes them, that the tests of conversion share."""

from __future__ import annotations

import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn


class Mlp(nn.Module):
    """The feed-forward half of a block."""

    hidden: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        features = x.shape[-1]
        return nn.Dense(features)(nn.gelu(nn.Dense(self.hidden)(x)))


class Block(nn.Module):
    """A pre-norm transformer block."""

    heads: int = 2
    rate: float = 0.1

    @nn.compact
    def __call__(self, x: jax.Array, mask: Any = None, deterministic: bool = True) -> jax.Array:
        attention = nn.MultiHeadDotProductAttention(self.heads, dropout_rate=self.rate)
        x = x + attention(nn.LayerNorm()(x), mask=mask, deterministic=deterministic)
        y = Mlp(2 * x.shape[-1])(nn.LayerNorm()(x))
        return x + nn.Dropout(self.rate)(y, deterministic=deterministic)


class ViT(nn.Module):
    """Patches, a class token, two blocks, a head."""

    features: int = 8
    classes: int = 3

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        x = nn.Conv(self.features, (4, 4), strides=(4, 4), name="embedding")(images)
        x = x.reshape(x.shape[0], -1, self.features)
        token = self.param("cls", nn.initializers.zeros, (1, 1, self.features))
        x = jnp.concatenate([jnp.tile(token, (x.shape[0], 1, 1)), x], 1)
        x = x + self.param("pos_embedding", nn.initializers.normal(0.02), (1, x.shape[1], self.features))
        for i in range(2):
            x = Block(name=f"block_{i}")(x, deterministic=not train)
        return nn.Dense(self.classes, name="head")(nn.LayerNorm()(x)[:, 0])


class ScannedBlock(Block):
    """A block in the form that ``nn.scan`` takes."""

    @nn.compact
    def __call__(self, x: jax.Array, mask: Any = None, deterministic: bool = True) -> Any:
        return super().__call__(x, mask, deterministic), None


class Gpt(nn.Module):
    """A decoder with ``setup``; its blocks are one scanned, rematerialised block."""

    vocabulary: int = 11
    features: int = 8
    axis: int = 0

    def setup(self) -> None:
        self.wte = nn.Embed(self.vocabulary, self.features)
        self.wpe = nn.Embed(8, self.features)
        block = nn.scan(
            nn.remat(ScannedBlock, prevent_cse=False, static_argnums=(3,)),
            variable_axes={"params": self.axis},
            split_rngs={"params": True, "dropout": True},
            in_axes=(nn.broadcast, nn.broadcast),
            length=3,
        )
        self.blocks = block()
        self.norm = nn.LayerNorm()
        self.head = nn.Dense(self.vocabulary, use_bias=False)

    def encode(self, tokens: jax.Array, train: bool = False) -> jax.Array:
        x = self.wte(tokens) + self.wpe(jnp.arange(tokens.shape[1]))
        return self.norm(self.blocks(x, nn.make_causal_mask(tokens), not train)[0])

    def __call__(self, tokens: jax.Array, train: bool = False) -> jax.Array:
        return self.head(self.encode(tokens, train))


def kernel_masks(params: Any, density: float = 0.1, leave: tuple[str, ...] = ("embedding", "head")) -> Any:
    """Random masks of all kernels but embeddings and head, None elsewhere."""

    def mask(path: Any, leaf: Any) -> Any:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if not name.endswith("kernel") or any(part in name for part in leave):
            return None
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        return rng.random(leaf.shape) < density

    return jax.tree_util.tree_map_with_path(mask, params)


def masked(params: Any, masks: Any) -> Any:
    """Parameters times masks."""
    return jax.tree.map(lambda mask, leaf: leaf if mask is None else leaf * mask, masks, params, is_leaf=_is_none)


def _is_none(node: Any) -> bool:
    return node is None
