"""Both gradients with a ``perm_t`` that is no permutation; run by test_bad_input.py with poisoned results.

Compares the gradient of ``data`` from the pass that computes both gradients with the single one, which does not read
``perm_t``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from helpers.grid import make_pattern, normal
from sparsejax import SparsityPattern, conv, spmm

PRODUCTS: dict[str, tuple[tuple[int, ...], tuple[int, ...], Callable[..., Any]]] = {
    "spmm": ((70, 40), (100, 70), spmm),
    "spmm of a large pattern": ((400, 300), (64, 400), spmm),
    "conv": ((3, 3, 8, 16), (5, 9, 8, 8), conv),
    "conv with strides": ((3, 2, 8, 16), (5, 9, 8, 8), lambda d, p, x: conv(d, p, x, strides=2)),
    "pointwise conv": ((1, 1, 24, 16), (4, 8, 8, 24), conv),
    "conv of groups": ((3, 3, 4, 16), (3, 6, 6, 8), lambda d, p, x: conv(d, p, x, feature_group_count=2)),
}


def positions(pattern: SparsityPattern) -> dict[str, np.ndarray]:
    """Arrays in place of ``perm_t``, in range, none of them a permutation."""
    perm, entries = np.asarray(pattern.perm_t), int(pattern.indptr[-1])
    repeated, one_twice, beyond = perm.copy(), perm.copy(), perm.copy()
    repeated[: entries // 2] = perm[entries - entries // 2 : entries]
    one_twice[entries - 1] = perm[0]
    beyond[0] = pattern.nse - 1  # an element of the padding
    return {
        "zeros": np.zeros_like(perm),
        "all equal": np.full_like(perm, entries - 1),
        "half of them twice": repeated,
        "one twice": one_twice,
        "one in the padding": beyond,
        "random": np.random.default_rng(0).integers(0, pattern.nse, perm.shape).astype(np.int32),
    }


def check(name: str, dtype: str) -> None:
    """One product with all arrays of ``positions``."""
    shape, x_shape, product = PRODUCTS[name]
    pattern, _ = make_pattern("padded", shape)
    data, x = jnp.asarray(normal(0, (pattern.nse,), dtype)), jnp.asarray(normal(1, x_shape, dtype))
    ct = jnp.asarray(normal(2, product(data, pattern, x).shape, dtype))

    @jax.jit
    def gradients(p: SparsityPattern) -> tuple[Any, ...]:
        both = jax.vjp(lambda d, v: product(d, p, v), data, x)[1](ct)
        of_data = jax.linear_transpose(lambda d: product(d, p, x), data)(ct)
        of_x = jax.linear_transpose(lambda v: product(data, p, v), x)(ct)
        return (*both, *of_data, *of_x)

    dw = gradients(pattern)[0]
    assert np.isfinite(np.asarray(dw, np.float32)).all(), name
    for kind, perm_t in positions(pattern).items():
        malformed = dataclasses.replace(pattern, perm_t=jnp.asarray(perm_t))
        first = [np.asarray(a) for a in gradients(malformed)]
        second = [np.asarray(a) for a in gradients(malformed)]
        for one, other in zip(first, second, strict=True):
            assert np.isfinite(one.astype(np.float32)).all(), f"{name}, {kind}, {dtype}: a gradient has poison"
            assert one.tobytes() == other.tobytes(), f"{name}, {kind}, {dtype}: two runs differ"
        assert first[0].tobytes() == first[2].tobytes(), f"{name}, {kind}, {dtype}: not the single gradient of data"
        np.testing.assert_allclose(*(a.astype(np.float32) for a in (first[1], first[3])), rtol=0.02, atol=0.02)
    assert np.array_equal(gradients(pattern)[0], dw), f"{name}: the right pattern gives another gradient afterwards"


if __name__ == "__main__":
    for of_name in PRODUCTS:
        for of_dtype in ("float32", "bfloat16"):
            check(of_name, of_dtype)
    print("defined")
