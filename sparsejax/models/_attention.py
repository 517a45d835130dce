"""Self-attention over one fused projection, and the layers that the transformers of the zoo share."""

from __future__ import annotations

import functools
from typing import Any

import jax
from flax import nnx

from sparsejax.kernels import attention

_WEIGHTS = nnx.initializers.normal(0.02)


def linear(in_features: int, out_features: int, rngs: nnx.Rngs) -> nnx.Linear:
    """Return a linear layer with weights of standard deviation 0.02, as ViT, BERT and GPT-2 start."""
    return nnx.Linear(in_features, out_features, kernel_init=_WEIGHTS, rngs=rngs)


def embedding(count: int, features: int, rngs: nnx.Rngs) -> nnx.Embed:
    """Return an embedding that starts with standard deviation 0.02."""
    return nnx.Embed(count, features, embedding_init=_WEIGHTS, rngs=rngs)


gelu = functools.partial(nnx.gelu, approximate=False)
gelu_tanh = functools.partial(nnx.gelu, approximate=True)


def attend(
    query: jax.Array, key: jax.Array, value: jax.Array, heads: int, *, causal: bool = False, mask: Any = None
) -> jax.Array:
    """Return softmax(q k^T / sqrt(d)) v for each of the heads that the last axis holds.

    Args:
      query: float[B, L, heads * d]; ``key`` and ``value`` the same.
      key: see ``query``.
      value: see ``query``.
      heads: number of heads.
      causal: whether a position sees only itself and those before it.
      mask: bool[B, L], false for positions that nothing sees; None for none.
    """
    q, k, v = (x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads) for x in (query, key, value))
    seen = None if mask is None else mask[:, None, None, :].astype(bool)
    return attention(q, k, v, seen, causal=causal).reshape(query.shape)
