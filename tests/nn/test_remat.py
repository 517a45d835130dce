"""Layers whose forward pass is computed again in the backward pass give the same gradients."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sparsejax.nn import SparseConv, SparseLinear

DENSE = {
    "linear": (SparseLinear, lambda: nnx.Linear(12, 8, rngs=nnx.Rngs(0)), (5, 12)),
    "conv": (SparseConv, lambda: nnx.Conv(4, 6, (3, 3), rngs=nnx.Rngs(0)), (2, 5, 7, 4)),
}


@pytest.mark.parametrize("name", DENSE)
def test_remat_gives_the_gradients_of_the_layer(name):
    kind, make, shape = DENSE[name]
    dense = make()
    mask = jax.random.uniform(jax.random.key(1), dense.kernel.shape) < 0.3
    layer, x = kind.from_dense(dense, mask), jax.random.normal(jax.random.key(2), shape)

    def gradients(call):
        return nnx.jit(nnx.grad(lambda layer, x: jnp.sum(jnp.tanh(call(layer, x)) ** 2), argnums=(0, 1)))(layer, x)

    plain, again = gradients(lambda layer, x: layer(x)), gradients(nnx.remat(lambda layer, x: layer(x)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), plain, again)
    assert all(jnp.any(leaf != 0) for leaf in jax.tree.leaves(plain))
