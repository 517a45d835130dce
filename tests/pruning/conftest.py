"""A small tree of parameters and the step functions that the pruning tests share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sparsejax import pruning

SIZES = (48, 32)
GRADIENTS = np.random.default_rng(1).normal(size=(100, max(SIZES))).astype(np.float32)


def make_params(dtype: Any = jnp.float32) -> dict[str, Any]:
    first, second = jax.random.split(jax.random.key(0))
    return {
        "a": {"kernel": jax.random.normal(first, (6, 8)).astype(dtype), "bias": jnp.ones(8, dtype)},
        "b": {"kernel": jax.random.normal(second, (8, 4)).astype(dtype), "bias": jnp.ones(4, dtype)},
    }


def random_grads(params: Any, step: Any) -> Any:
    """Gradients that are dense and of the size of the weights, so that nothing stays zero by itself.

    Rows of a table: a generator in every compiled step would cost more than the step.
    """
    row = jnp.asarray(GRADIENTS)[step]
    return jax.tree.map(lambda x: row[: x.size].reshape(x.shape).astype(x.dtype), params)


def make_step(tx: optax.GradientTransformation) -> Callable[[Any, Any, Any], tuple[Any, Any]]:
    def step(params: Any, state: Any, i: Any) -> tuple[Any, Any]:
        updates, state = tx.update(random_grads(params, i), state, params)
        return optax.apply_updates(params, updates), state

    return step


def outside(params: Any, mask: Any) -> list[jax.Array]:
    """Return the weights outside the mask, one array per pruned kernel."""
    return [params[layer]["kernel"][~mask[layer]["kernel"]] for layer in ("a", "b")]


def assert_equal_trees(left: Any, right: Any) -> None:
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for x, y in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert x.dtype == y.dtype
        assert jnp.array_equal(x, y)


@pytest.fixture
def gradual() -> pruning.Method:
    """0 to 90 % over steps 2 to 11; the period 4 does not divide the range."""
    return pruning.magnitude(pruning.schedules.cubic(0.0, 0.9, begin=2, end=11), update_every=4, start=2, stop=11)


@pytest.fixture
def tools() -> Any:
    """Return the helpers above under one name; test files cannot import a conftest."""

    class Tools:
        sizes = SIZES
        make_params = staticmethod(make_params)
        make_step = staticmethod(make_step)
        random_grads = staticmethod(random_grads)
        outside = staticmethod(outside)
        assert_equal_trees = staticmethod(assert_equal_trees)

    return Tools
