"""Attention in blocks in the place of Flax's: the ``attention_fn`` of ``MultiHeadAttention``, in NNX and in Linen."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn.dtypes import promote_dtype

from sparsejax.kernels import attention, is_supported


def dot_product_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    bias: jax.Array | None = None,
    mask: jax.Array | None = None,
    broadcast_dropout: bool = True,
    dropout_rng: jax.Array | None = None,
    dropout_rate: float = 0.0,
    deterministic: bool = False,
    dtype: Any = None,
    precision: Any = None,
    module: Any = None,
    is_causal: bool = False,
) -> jax.Array:
    """Compute attention as ``nnx.dot_product_attention`` does, block by block.

    Give it to ``nnx.MultiHeadAttention`` or ``linen.MultiHeadDotProductAttention`` as ``attention_fn``. Results are
    those of Flax to rounding. With dropout, or where the weights are to be stored (``module``), Flax's own function is
    called, because both need the matrix of weights; also for float16, and for values with another number of features
    than keys.

    Args:
      query: float[..., queries, heads, features].
      key: float[..., keys, kv_heads, features].
      value: as ``key``.
      bias: float, broadcastable to ``[..., heads, queries, keys]``, or None.
      mask: broadcastable to the same, not 0 where a query sees a key; None is everywhere.
      broadcast_dropout, dropout_rng, dropout_rate, deterministic: as in Flax.
      dtype: of the computation; None is the common type of query, key and value.
      precision: as in Flax, where its function is called; the kernel's products are those of its types.
      module: as in Flax.
      is_causal: whether query i sees keys j <= i only.

    Returns:
      float of the shape of ``query``.

    Raises:
      ValueError: shapes or dtypes disagree.

    >>> layer = nnx.MultiHeadAttention(2, 4, attention_fn=dot_product_attention, decode=False, rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((1, 3, 4))).shape
    (1, 3, 4)
    """
    promoted: Any = promote_dtype((query, key, value), dtype=dtype)
    q, k, v = map(jnp.asarray, promoted)
    drops = dropout_rate > 0.0 and not deterministic
    if drops or module is not None or not is_supported(q.dtype) or k.shape != v.shape:
        options: dict[str, Any] = {
            "bias": bias,
            "mask": mask,
            "broadcast_dropout": broadcast_dropout,
            "dropout_rng": dropout_rng,
            "dropout_rate": dropout_rate,
            "deterministic": deterministic,
            "dtype": dtype,
            "precision": precision,
            "module": module,
        }
        if module is not None and not isinstance(module, nnx.Module):
            from flax import linen

            return linen.dot_product_attention(query, key, value, **options)
        return nnx.dot_product_attention(query, key, value, **options, is_causal=is_causal)
    seen = None if mask is None else jnp.asarray(mask).astype(bool)
    return attention(q, k, v, seen, bias=bias, causal=is_causal)
