"""A decoder of text with GPT-2's layer names."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from sparsejax._checks import check_integer, fail
from sparsejax.models._attention import attend, embedding, gelu_tanh, linear


class _Attention(nnx.Module):
    """Causal self-attention with the fused projection ``c_attn``."""

    def __init__(self, width: int, heads: int, rngs: nnx.Rngs):
        self.heads = heads
        self.c_attn = linear(width, 3 * width, rngs)
        self.c_proj = linear(width, width, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        q, k, v = jnp.split(self.c_attn(x), 3, axis=-1)
        return self.c_proj(attend(q, k, v, self.heads, causal=True))


class _Mlp(nnx.Module):
    """Two linear layers with GELU in its tanh form between them."""

    def __init__(self, width: int, rngs: nnx.Rngs):
        self.c_fc = linear(width, 4 * width, rngs)
        self.c_proj = linear(4 * width, width, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.c_proj(gelu_tanh(self.c_fc(x)))


class _Block(nnx.Module):
    """Attention and a two-layer network, each behind a norm and beside a shortcut."""

    def __init__(self, width: int, heads: int, rngs: nnx.Rngs):
        self.ln_1 = nnx.LayerNorm(width, epsilon=1e-5, rngs=rngs)
        self.attn = _Attention(width, heads, rngs)
        self.ln_2 = nnx.LayerNorm(width, epsilon=1e-5, rngs=rngs)
        self.mlp = _Mlp(width, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class GPT(nnx.Module):
    """A decoder whose attribute paths are Hugging Face's names of GPT-2; the defaults are GPT-2 small.

    ``h[0].attn.c_attn.kernel`` is ``transformer.h.0.attn.c_attn.weight``. The output layer is the embedding ``wte``.

    Args:
      vocabulary: tokens that exist.
      width: features of a token.
      depth: blocks.
      heads: attention heads; they divide ``width``.
      length: longest sequence, tokens.
      rngs: random streams for initialisation.

    Raises:
      ValueError: heads that do not divide the width; when called, sequences that are too long.

    Source: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.3.

    >>> model = GPT(50, width=8, depth=1, heads=2, length=6, rngs=nnx.Rngs(0))
    >>> model(jnp.zeros((2, 5), jnp.int32)).shape
    (2, 5, 50)
    """

    dense_parts: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        vocabulary: int = 50257,
        *,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        length: int = 1024,
        rngs: nnx.Rngs,
    ):
        check_integer("GPT", "depth", depth)
        if width % heads:
            fail("GPT", "heads", f"value {heads}", f"a divisor of the width {width}")
        self.length = length
        self.wte = embedding(vocabulary, width, rngs)
        self.wpe = embedding(length, width, rngs)
        self.h = nnx.List([_Block(width, heads, rngs) for _ in range(depth)])
        self.ln_f = nnx.LayerNorm(width, epsilon=1e-5, rngs=rngs)

    def features(self, tokens: jax.Array) -> jax.Array:
        """Return the features of each position: ``int[B, L] -> float[B, L, width]``."""
        if tokens.ndim != 2 or tokens.shape[1] > self.length:
            fail("GPT", "tokens", f"shape {tuple(tokens.shape)}", f"(batch, at most {self.length})")
        x = self.wte(tokens) + self.wpe(jnp.arange(tokens.shape[1]))
        for block in self.h:
            x = block(x)
        return self.ln_f(x)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Return logits of the token after each position: ``int[B, L] -> float[B, L, vocabulary]``."""
        return self.wte.attend(self.features(tokens))
