"""Room for more stored entries than a layer has."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sparsejax.nn import SparseLinear
from sparsejax.pattern import SparsityPattern


def test_room_changes_no_result():
    pattern = SparsityPattern.from_mask(jnp.arange(12).reshape(4, 3) % 2 == 0)
    layer = SparseLinear(4, 3, pattern=pattern, rngs=nnx.Rngs(0))
    roomy = nnx.clone(layer)
    roomy.reserve(6)
    assert roomy.kernel.shape == (6,)
    roomy.reserve(9)
    assert roomy.kernel.shape == (9,) and roomy.pattern.nse == 9
    roomy.pattern.validate()
    x = jax.random.normal(jax.random.key(0), (5, 4))
    np.testing.assert_array_equal(roomy(x), layer(x))
    grads, expected = (nnx.grad(lambda m: (m(x) ** 2).sum())(m).kernel[...] for m in (roomy, layer))
    np.testing.assert_array_equal(grads, np.pad(expected, (0, 3)))
    np.testing.assert_array_equal(roomy.to_dense().kernel[...], layer.to_dense().kernel[...])


def test_room_cannot_be_taken_away():
    layer = SparseLinear(2, 2, pattern=SparsityPattern.from_mask(jnp.ones((2, 2), bool)), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="pad_to: nse has value 3; expected at least the present capacity 4"):
        layer.reserve(3)
