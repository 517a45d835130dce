"""``attention_fn`` of Flax's layers: the same results as with Flax's own function, and the cases that go there."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from helpers.grid import normal
from sparsejax.nn import dot_product_attention


def layer(**options: Any) -> tuple[nnx.MultiHeadAttention, nnx.MultiHeadAttention]:
    """The same layer with our function and with that of Flax."""
    make = lambda **more: nnx.MultiHeadAttention(2, 12, decode=False, rngs=nnx.Rngs(0), **options, **more)  # noqa: E731
    return make(attention_fn=dot_product_attention), make()


def assert_same(got: Any, want: Any) -> None:
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, rtol=1e-4, atol=1e-5), got, want)


@pytest.mark.parametrize("kind", ["plain", "mask", "causal", "cross"])
def test_nnx(kind: str) -> None:
    x, other = normal(0, (3, 9, 12), "float32"), normal(1, (3, 5, 12), "float32")
    tokens = jnp.asarray([[1] * 9, [1] * 4 + [0] * 5, [0] * 9])
    options: dict[str, Any] = {
        "mask": {"mask": nnx.make_attention_mask(tokens, tokens)},
        "causal": {"mask": nnx.make_causal_mask(tokens), "is_causal": True},
    }.get(kind, {})

    def step(module: Any) -> Any:
        def loss(module: Any, x: Any) -> Any:
            return jnp.sum(jnp.sin(module(x, other if kind == "cross" else None, **options)))

        return nnx.jit(nnx.value_and_grad(loss, argnums=(0, 1)))(module, x)

    (got, (grads, dx)), (want, (wanted, wanted_dx)) = map(step, layer())
    assert_same((got, nnx.to_pure_dict(grads), dx), (want, nnx.to_pure_dict(wanted), wanted_dx))


def test_decoding_with_a_cache() -> None:
    x = normal(0, (2, 3, 12), "float32")
    outs = []
    for module in layer():
        module.init_cache((2, 3, 12))
        outs.append([module(x[:, i : i + 1], decode=True) for i in range(3)])
    assert_same(*outs)


@pytest.mark.filterwarnings("ignore:Using 'Module.sow")
def test_dropout_and_stored_weights_are_those_of_flax() -> None:
    x = normal(0, (2, 5, 12), "float32")
    ours, flax = (m(x, deterministic=False, rngs=nnx.Rngs(dropout=1)) for m in layer(dropout_rate=0.5))
    np.testing.assert_array_equal(ours, flax)
    ours, flax = (m(x, deterministic=True) for m in layer(dropout_rate=0.5))
    assert_same(ours, flax)
    stored = layer()[0]
    stored(x, sow_weights=True)
    assert jax.tree.leaves(nnx.state(stored, nnx.Intermediate))[0].shape == (2, 2, 5, 5)
    half = [m(x).dtype for m in layer(dtype=jnp.float16)]
    assert half == [jnp.float16] * 2


def test_linen() -> None:
    x, mask = normal(0, (2, 5, 12), "float32"), np.tril(np.ones((5, 5)))
    ours, flax = (
        linen.MultiHeadDotProductAttention(2, dropout_rate=0.5, **more)
        for more in ({"attention_fn": dot_product_attention}, {})
    )
    params = flax.init(jax.random.key(0), x, deterministic=True)
    assert_same(*(m.apply(params, x, mask=mask, deterministic=True) for m in (ours, flax)))
    rngs = {"dropout": jax.random.key(1)}
    assert_same(*(m.apply(params, x, deterministic=False, rngs=rngs) for m in (ours, flax)))
    _, state = ours.apply(params, x, deterministic=True, sow_weights=True, mutable="intermediates")
    assert jax.tree.leaves(state)[0].shape == (2, 2, 5, 5)
