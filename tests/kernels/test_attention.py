"""Attention in blocks: results and gradients against NumPy in float64, queries that see nothing, and bad input."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.attention_oracle import AttentionCase, check_attention
from helpers.grid import DTYPES, normal, wide
from sparsejax.kernels import attention

CASES = (
    AttentionCase(1, 1, 1, 1, 1, 1),
    AttentionCase(2, 197, 197, 2, 2, 64),
    AttentionCase(1, 65, 257, 3, 3, 33),  # one more than a block, of queries and of keys
    AttentionCase(2, 128, 512, 2, 1, 16),
    AttentionCase(2, 300, 130, 4, 2, 7, True),
    AttentionCase(1, 130, 300, 2, 2, 8, True),
    AttentionCase(2, 1, 40, 2, 2, 20, mask=(2, 1, 1, 40)),
    AttentionCase(3, 70, 9, 2, 1, 5, mask=(1, 1, 70, 9)),
    AttentionCase(2, 67, 270, 2, 2, 9, True, (1, 2, 67, 270), (2, 1, 67, 270)),
    AttentionCase(2, 33, 17, 4, 1, 12, True, (4, 1, 17), (17,)),
)
GRID = [(case, "float32") for case in CASES] + [(CASES[i], d) for i in (2, 8) for d in ("float64", "bfloat16")]


@pytest.mark.parametrize(("case", "dtype"), GRID, ids=str)
def test_result_and_gradients(case, dtype):
    if len(case.mask) == 1:  # an axis of queries, which the oracle looks for
        case = case._replace(mask=(1, *case.mask))
    with jax.enable_x64(dtype == "float64"):
        check_attention(case, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", [(0, 3, 5, 2), (2, 0, 5, 2), (2, 3, 0, 2), (2, 3, 5, 0), (0, 0, 0, 0)], ids=str)
def test_empty_arrays(sizes, dtype):
    with jax.enable_x64(dtype == "float64"):
        batch, queries, keys, features = sizes
        q, k = (normal(i, (batch, n, 4, features), dtype) for i, n in enumerate((queries, keys)))
        y, vjp = jax.vjp(lambda q, k, v: attention(q, k, v, causal=True), q, k, k)
        assert y.shape == q.shape and not np.any(wide(y))
        for grad, operand in zip(vjp(jnp.ones_like(y)), (q, k, k), strict=True):
            assert grad.shape == operand.shape and not np.any(wide(grad)[..., :0]) and not np.isnan(wide(grad)).any()


def both(q: Any, k: Any, v: Any, **options: Any) -> tuple[Any, Any]:
    """Ours and JAX's: results and gradients."""

    def run(f: Any) -> Any:
        def step(*o: Any) -> Any:
            y, vjp = jax.vjp(f, *o)
            return y, *vjp(jnp.cos(y) + 1)

        return [np.asarray(a) for a in jax.jit(step)(q, k, v)]

    mask, bias, causal = (options.get(name) for name in ("mask", "bias", "causal"))
    theirs = run(lambda *o: jax.nn.dot_product_attention(*o, bias, mask, is_causal=bool(causal)))
    return run(lambda *o: attention(*o, **options)), theirs


@pytest.mark.parametrize("causal", [False, True])
def test_queries_that_see_nothing_get_the_mean_of_all_values(causal):
    """Also of keys that come after them, in blocks that are skipped for others."""
    q, k, v = (normal(i, (2, n, 2, 8), "float32") for i, n in enumerate((70, 300, 300)))
    mask = np.ones((2, 1, 70, 300), bool)
    mask[0, 0, 5:9], mask[1, 0, :, :3] = False, False
    ours, theirs = both(q, k, v, mask=mask, causal=causal)
    np.testing.assert_allclose(ours[0][0, 5:9], np.broadcast_to(v[0].mean(0), (4, 2, 8)), atol=1e-6)
    assert not ours[1][0, 5:9].any()
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("low", [-1e9, np.finfo(np.float32).min, -np.inf])
def test_a_very_low_bias_is_a_mask(low):
    q, k, v = (normal(i, (1, n, 2, 8), "float32") for i, n in enumerate((5, 40, 40)))
    bias = np.zeros((1, 1, 5, 40), np.float32)
    bias[..., 7:] = low
    ours, theirs = both(q, k, v, bias=bias)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6)
    bias[..., 2, :] = low  # nothing is left: equal weights, as far as the rounding of a score allows
    for result in both(q, k, v, bias=bias)[0]:
        assert np.isfinite(result).all()


def test_infinities_and_nan_stay_in_their_queries():
    q, k, v = (normal(i, (1, 40, 2, 8), "float32") for i in range(3))
    q[0, 3, 0, 1], q[0, 4, 1, 2] = np.nan, np.inf
    y = np.array(attention(q, k, v))
    assert np.isnan(y[0, 3, 0]).all() and np.isnan(y[0, 4, 1]).all()
    y[0, 3, 0], y[0, 4, 1] = 0, 0
    assert np.isfinite(y).all()


def test_leading_axes_and_scale():
    q, k, v = (normal(i, (2, 3, n, 2, 4), "float32") for i, n in enumerate((5, 6, 6)))
    mask = np.random.default_rng(0).random((3, 1, 5, 6)) < 0.7
    y = attention(q, k, v, mask, scale=0.3)
    for i in range(2):
        np.testing.assert_array_equal(y[i], attention(q[i], k[i], v[i], mask, scale=0.3))
        np.testing.assert_array_equal(y[i, 1], attention(q[i, 1], k[i, 1], v[i, 1], mask[1], scale=0.3))


X = np.ones((2, 5, 4, 3), np.float32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((X[0, 0], X, X), r"q has shape \(4, 3\); expected three or more axes \(..., length, heads, features\)"),
        ((X.astype(np.float16), X, X), "q has dtype float16; expected dtype float32, float64 or bfloat16"),
        ((X, X.astype(jnp.bfloat16), X), "k has dtype bfloat16; expected dtype float32, that of q. Cast one"),
        ((X, X[:1], X), r"k has shape \(1, 5, 4, 3\); expected leading axes \(2,\) and 3 features to match q"),
        ((X, X[..., :2], X), r"k has shape \(2, 5, 4, 2\); expected leading axes \(2,\) and 3 features to match q"),
        ((X, X, X[:, :3]), r"v has shape \(2, 3, 4, 3\); expected \(2, 5, 4, 3\), that of k"),
        ((X, X[:, :, :3], X[:, :, :3]), "k has 3 heads; expected a divisor of q's 4"),
        ((X, X, X, np.ones((5, 5))), "mask has dtype float64; expected dtype bool. What is added to the scores is a b"),
        ((X, X, X, np.ones((3, 5), bool)), r"mask has shape \(3, 5\); expected a shape that broadcasts to \(2, 4, 5, "),
    ],
)
def test_bad_input_is_named(arguments, message):
    with jax.enable_x64(True), pytest.raises(ValueError, match=f"attention: {message}"):
        attention(*arguments)


def test_a_bool_bias_is_refused():
    with pytest.raises(ValueError, match="attention: bias has dtype bool; expected a float dtype"):
        attention(X, X, X, bias=np.ones((5, 5), bool))
