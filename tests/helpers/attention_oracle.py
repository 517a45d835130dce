"""Attention and its gradients from the definition, in NumPy and float64."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from helpers.grid import assert_close, normal, wide
from sparsejax import _ffi
from sparsejax.kernels import attention


class AttentionCase(NamedTuple):
    """One call: sizes, and the shapes of bias and mask (empty for none)."""

    batch: int
    queries: int
    keys: int
    heads: int
    kv_heads: int
    features: int
    causal: bool = False
    bias: tuple[int, ...] = ()
    mask: tuple[int, ...] = ()


def operands(case: AttentionCase, dtype: str, seed: int = 0) -> dict[str, Any]:
    """Random ones; the mask hides every key of some queries where it has queries."""
    q, k = (case.batch, case.queries, case.heads, case.features), (case.batch, case.keys, case.kv_heads, case.features)
    found: dict[str, Any] = {"q": normal(seed, q, dtype), "k": normal(seed + 1, k, dtype)}
    found |= {"v": normal(seed + 2, k, dtype), "ct": normal(seed + 3, q, dtype)}
    if case.bias:
        found["bias"] = normal(seed + 4, case.bias, "float64" if dtype == "float64" else "float32")
    if case.mask:
        found["mask"] = np.random.default_rng(seed).random(case.mask) < 0.6
        if found["mask"].shape[-2] > 1:
            found["mask"][..., 1, :] = False
    return found


def run(case: AttentionCase, o: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
    """The result, and the gradients of q, k and v."""

    def f(q: Any, k: Any, v: Any) -> Any:
        return attention(q, k, v, o.get("mask"), bias=o.get("bias"), causal=case.causal)

    y, vjp = jax.vjp(f, o["q"], o["k"], o["v"])
    return y, *vjp(jnp.asarray(o["ct"]))


def _products(spec: str, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A sum of products, and the same sum of absolute values."""
    return np.einsum(spec, a, b), np.einsum(spec, np.abs(a), np.abs(b))


def check_attention(case: AttentionCase, dtype: str, seed: int = 0) -> None:
    """Result and gradients within the rounding of their sums.

    An error of a score is a relative error of its weight. So a bound is that of the sums of the result, times the
    size of the largest score. In bfloat16, ``avx512_bf16`` rounds weights and the gradients of scores too, by
    half a unit in the last place.
    """
    o = operands(case, dtype, seed)
    y, dq, dk, dv = jax.jit(run, static_argnums=0)(case, o)
    group, scale = case.heads // case.kv_heads, 1 / math.sqrt(case.features)
    q, ct = wide(o["q"]), wide(o["ct"])
    k, v = (np.repeat(wide(o[name]), group, axis=2) for name in ("k", "v"))

    scores, size = (scale * s for s in _products("blhd,bshd->bhls", q, k))
    if case.bias:
        scores, size = scores + wide(o["bias"]), size + np.abs(wide(o["bias"]))
    seen = np.ones((case.queries, case.keys), bool)
    if case.causal:
        seen = np.tril(seen)
    seen = np.broadcast_to(seen & o.get("mask", True), scores.shape)
    shifted = np.where(seen, scores, -np.inf)
    nothing = ~seen.any(-1, keepdims=True)
    weights = np.where(nothing, 1.0, np.exp(shifted - np.where(nothing, 0, shifted.max(-1, keepdims=True))))
    weights /= weights.sum(-1, keepdims=True)
    step = np.finfo("float64" if dtype == "float64" else "float32").eps
    rounded = 2.0**-8 / (8 * step) if dtype == "bfloat16" and _ffi.isa() == "avx512_bf16" else 0.0
    far = 4 + 2 * size.max() + rounded
    want, size = _products("bhls,bshd->blhd", weights, v)
    assert_close(y, want, far * size, dtype)

    slope, slope_size = _products("blhd,bshd->bhls", ct, v)
    per_query = (*_products("blhd,blhd->blh", ct, want), np.einsum("blhd,blhd->blh", np.abs(ct), size))
    mean, mean_size, mean_terms = (np.swapaxes(s, 1, 2)[..., None] for s in per_query)
    stored = 2.0**-8 / step if dtype == "bfloat16" else 1.0  # the mean is formed with y as it is stored
    d = np.where(seen, weights * (slope - mean) * scale, 0)
    errors = far * (slope_size + mean_size) + stored * mean_size + rounded * mean_terms
    d_size = np.where(seen, weights * errors * scale, 0)

    def heads(x: np.ndarray) -> np.ndarray:
        return x.reshape(case.batch, case.keys, case.kv_heads, group, case.features).sum(3)

    assert_close(dq, np.einsum("bhls,bshd->blhd", d, k), np.einsum("bhls,bshd->blhd", d_size, np.abs(k)), dtype)
    bound = np.einsum("bhls,blhd->bshd", d_size, np.abs(q))
    assert_close(dk, heads(np.einsum("bhls,blhd->bshd", d, q)), heads(bound), dtype)
    want, bound = _products("bhls,blhd->bshd", weights, ct)
    assert_close(dv, heads(want), far * heads(bound), dtype)


COMPACT_ATTENTIONS = (
    AttentionCase(2, 70, 300, 4, 2, 17, True, mask=(2, 1, 70, 300)),
    AttentionCase(1, 133, 131, 2, 2, 24, True),
    AttentionCase(3, 5, 9, 2, 1, 3, bias=(1, 2, 5, 9)),
)
