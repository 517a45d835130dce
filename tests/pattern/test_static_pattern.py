"""Equality, hash and serialization of patterns: what static arguments, caches and checkpoints need."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx, serialization

from sparsejax import SparsityPattern, spmm
from sparsejax.nn import SparseLinear


def pattern(seed: int = 0, nse: int | None = None, shape: tuple[int, ...] = (5, 4)) -> SparsityPattern:
    mask = np.random.default_rng(seed).random(shape) < 0.4
    return SparsityPattern.from_mask(mask, nse)


def test_patterns_are_equal_by_content() -> None:
    one, same = pattern(), pattern()
    assert one == same
    assert (one != same) is False
    assert hash(one) == hash(same)
    assert one != pattern(1)
    assert one != pattern(nse=one.nse + 1)  # another capacity is another program
    flat = SparsityPattern.from_mask(np.ones((4, 3), bool))
    assert flat != dataclasses.replace(flat, shape=(2, 2, 3))
    assert one != "a pattern" and one != None  # noqa: E711
    assert len({one, same, pattern(1)}) == 2


def pickled(value: SparsityPattern) -> SparsityPattern:
    return pickle.loads(pickle.dumps(value))


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickled, jax.device_put])
def test_copies_are_equal_and_changes_are_seen(duplicate) -> None:
    one = pattern()
    hash(one)  # the digest is kept from here on
    assert duplicate(one) == one
    changed = dataclasses.replace(duplicate(one), perm_t=one.perm_t[::-1])
    assert changed != one
    assert jax.tree.map(lambda a: a + 0, one) == one


def test_a_pattern_is_a_static_argument() -> None:
    traced = []

    def product(static: SparsityPattern, data: jax.Array, x: jax.Array) -> jax.Array:
        traced.append(static)
        return spmm(data, static, x)

    call = jax.jit(product, static_argnums=0)
    for seed in (0, 0, 1, 0):
        p = pattern(seed)
        data, x = jnp.arange(1.0, p.nse + 1), jnp.ones((2, 5))
        np.testing.assert_allclose(call(p, data, x), x @ p.scatter(data), rtol=1e-6)
    assert len(traced) == 2


@pytest.mark.parametrize("use", [hash, lambda p: p == pattern(), lambda p: pattern() == p])
def test_a_traced_pattern_is_refused_with_a_reason(use) -> None:
    with pytest.raises(TypeError, match=r"SparsityPattern: pattern has traced arrays; expected concrete ones\."):
        jax.jit(use)(pattern())


def test_placeholders_of_tree_maps_compare() -> None:
    shapes = jax.eval_shape(lambda p: p, pattern())
    assert shapes == jax.eval_shape(lambda p: p, pattern(nse=pattern().nse))
    assert shapes != pattern()
    assert hash(jax.tree.map(lambda _: None, pattern())) == hash(jax.tree.map(lambda _: None, pattern()))


def test_patterns_go_through_flax_serialization() -> None:
    one, target = pattern(0, nse=12), pattern(1, nse=12)
    assert serialization.from_bytes(target, serialization.to_bytes(one)) == one
    tree = {"a": [one], "b": jnp.ones(2)}
    restored = serialization.from_state_dict({"a": [target], "b": jnp.zeros(2)}, serialization.to_state_dict(tree))
    assert restored["a"][0] == one
    assert isinstance(restored["a"][0].indices, jax.Array)


def test_the_state_of_a_sparse_layer_goes_through_flax_serialization() -> None:
    def layer(seed: int) -> SparseLinear:
        return SparseLinear(5, 4, pattern=pattern(seed, nse=12), rngs=nnx.Rngs(seed))

    stored = serialization.to_bytes(nnx.to_pure_dict(nnx.state(layer(0))))
    other = layer(1)
    state = nnx.state(other)
    nnx.replace_by_pure_dict(state, serialization.from_bytes(nnx.to_pure_dict(state), stored))
    nnx.update(other, state)
    assert other.pattern == layer(0).pattern
    np.testing.assert_array_equal(other(jnp.ones((2, 5))), layer(0)(jnp.ones((2, 5))))


def test_a_pattern_that_is_taken_apart_and_put_together_is_the_same_object() -> None:
    """As Linen does with the attributes of every module that it makes."""
    one = pattern()
    assert serialization.from_state_dict(one, serialization.to_state_dict(one)) is one


def test_a_serialized_pattern_that_is_wrong_is_refused() -> None:
    state = serialization.to_state_dict(pattern())
    with pytest.raises(ValueError, match=r"serialized state has shape \(5, 4\); expected shape \(4, 5\)"):
        serialization.from_state_dict(pattern(shape=(4, 5)), state)
    state["indices"] = np.full_like(state["indices"], 99)
    with pytest.raises(ValueError, match="indices has element 0 equal to 99"):
        serialization.from_state_dict(pattern(), state)
