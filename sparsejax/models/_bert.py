"""An encoder of text with BERT's layer names."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from sparsejax._checks import check_integer, fail
from sparsejax.models._attention import attend, embedding, gelu, linear

_EPSILON = 1e-12


class _Embeddings(nnx.Module):
    """Sum of the embeddings of word, position and segment, behind it a norm."""

    def __init__(self, vocabulary: int, length: int, width: int, rngs: nnx.Rngs):
        self.word_embeddings = embedding(vocabulary, width, rngs)
        self.position_embeddings = embedding(length, width, rngs)
        self.token_type_embeddings = embedding(2, width, rngs)
        self.LayerNorm = nnx.LayerNorm(width, epsilon=_EPSILON, rngs=rngs)

    def __call__(self, tokens: jax.Array, types: jax.Array) -> jax.Array:
        x = self.word_embeddings(tokens) + self.position_embeddings(jnp.arange(tokens.shape[1]))
        return self.LayerNorm(x + self.token_type_embeddings(types))


class _Projections(nnx.Module):
    """Query, key and value, each of its own layer, and their attention."""

    def __init__(self, width: int, heads: int, rngs: nnx.Rngs):
        self.heads = heads
        self.query, self.key, self.value = (linear(width, width, rngs) for _ in range(3))

    def __call__(self, x: jax.Array, mask: jax.Array | None) -> jax.Array:
        return attend(self.query(x), self.key(x), self.value(x), self.heads, mask=mask)


class _Output(nnx.Module):
    """A linear layer, a shortcut, and the norm behind both."""

    def __init__(self, in_features: int, width: int, rngs: nnx.Rngs):
        self.dense = linear(in_features, width, rngs)
        self.LayerNorm = nnx.LayerNorm(width, epsilon=_EPSILON, rngs=rngs)

    def __call__(self, x: jax.Array, shortcut: jax.Array) -> jax.Array:
        return self.LayerNorm(self.dense(x) + shortcut)


class _Dense(nnx.Module):
    """A linear layer under the name ``dense``."""

    def __init__(self, in_features: int, out_features: int, rngs: nnx.Rngs):
        self.dense = linear(in_features, out_features, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.dense(x)


class _Attention(nnx.Module):
    def __init__(self, width: int, heads: int, rngs: nnx.Rngs):
        self.self = _Projections(width, heads, rngs)
        self.output = _Output(width, width, rngs)

    def __call__(self, x: jax.Array, mask: jax.Array | None) -> jax.Array:
        return self.output(getattr(self, "self")(x, mask), x)  # noqa: B009


class _Layer(nnx.Module):
    """Attention and a two-layer network, each with a shortcut and the norm behind it."""

    def __init__(self, width: int, heads: int, rngs: nnx.Rngs):
        self.attention = _Attention(width, heads, rngs)
        self.intermediate = _Dense(width, 4 * width, rngs)
        self.output = _Output(4 * width, width, rngs)

    def __call__(self, x: jax.Array, mask: jax.Array | None) -> jax.Array:
        x = self.attention(x, mask)
        return self.output(gelu(self.intermediate(x)), x)


class _Encoder(nnx.Module):
    def __init__(self, width: int, depth: int, heads: int, rngs: nnx.Rngs):
        self.layer = nnx.List([_Layer(width, heads, rngs) for _ in range(depth)])

    def __call__(self, x: jax.Array, mask: jax.Array | None) -> jax.Array:
        for layer in self.layer:
            x = layer(x, mask)
        return x


class Bert(nnx.Module):
    """An encoder and classifier whose attribute paths are Hugging Face's names of BERT; the defaults are BERT base.

    ``encoder.layer[0].output.dense.kernel`` is ``bert.encoder.layer.0.output.dense.weight``; ``classifier`` is that of
    BertForSequenceClassification, on ``pooler``'s tanh of the first token.

    Args:
      num_classes: outputs of the classifier.
      vocabulary: tokens that exist.
      width: features of a token.
      depth: blocks.
      heads: attention heads; they divide ``width``.
      length: longest sequence, tokens.
      rngs: random streams for initialisation.

    Raises:
      ValueError: heads that do not divide the width; when called, sequences that are too long.

    Source: Devlin et al. 2019, "BERT", sections 3 and A.2.

    >>> model = Bert(2, vocabulary=50, width=8, depth=1, heads=2, length=6, rngs=nnx.Rngs(0))
    >>> model(jnp.zeros((2, 5), jnp.int32)).shape
    (2, 2)
    """

    dense_parts: ClassVar[tuple[str, ...]] = ("pooler", "classifier")

    def __init__(
        self,
        num_classes: int = 2,
        *,
        vocabulary: int = 30522,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        length: int = 512,
        rngs: nnx.Rngs,
    ):
        check_integer("Bert", "depth", depth)
        if width % heads:
            fail("Bert", "heads", f"value {heads}", f"a divisor of the width {width}")
        self.length = length
        self.embeddings = _Embeddings(vocabulary, length, width, rngs)
        self.encoder = _Encoder(width, depth, heads, rngs)
        self.pooler = _Dense(width, width, rngs)
        self.classifier = linear(width, num_classes, rngs)

    def features(
        self, tokens: jax.Array, mask: jax.Array | None = None, token_types: jax.Array | None = None
    ) -> jax.Array:
        """Return the pooled features: ``int[B, L] -> float[B, width]``; ``mask`` is as for calls."""
        if tokens.ndim != 2 or tokens.shape[1] > self.length:
            fail("Bert", "tokens", f"shape {tuple(tokens.shape)}", f"(batch, at most {self.length})")
        x = self.embeddings(tokens, jnp.zeros_like(tokens) if token_types is None else token_types)
        return jnp.tanh(self.pooler(self.encoder(x, mask)[:, 0]))

    def __call__(
        self, tokens: jax.Array, mask: jax.Array | None = None, token_types: jax.Array | None = None
    ) -> jax.Array:
        """Return logits: ``int[B, L] -> float[B, num_classes]``.

        Args:
          tokens: int[B, L].
          mask: bool or int [B, L], zero for padding; None if there is none.
          token_types: int[B, L], 0 or 1: the segment; None for segment 0.
        """
        return self.classifier(self.features(tokens, mask, token_types))
