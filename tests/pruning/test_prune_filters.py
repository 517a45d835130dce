"""Filters over paths of dicts, linen parameters, NNX states and tuples."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import linen, nnx
from flax.core import freeze

from sparsejax.pruning import get_mask, is_kernel, mask_from_zeros, one_shot, path, pruned, sparsity_of
from sparsejax.pruning._filters import select_leaves
from sparsejax.pruning._leaves import leaf_names


class Attention(NamedTuple):
    query: Any
    key: Any
    value: Any


class Net(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.stem = nnx.Conv(1, 2, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(2, rngs=rngs)
        self.layers = nnx.List([nnx.Linear(2, 3, rngs=rngs)])
        self.embed = nnx.Embed(5, 2, rngs=rngs)


def chosen(where: Any, params: Any) -> list[str]:
    return select_leaves("test", where, params).prunable_names


PARAMS = {
    "head": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)},
    "norm": {"scale": jnp.ones(3)},
    "stem": {
        "kernel": jnp.ones((3, 3, 1, 2)),
        "weight": jnp.ones((2, 2)),
        "count": jnp.ones((2, 2), jnp.int32),
    },
}


def test_is_kernel_selects_weights_only() -> None:
    assert chosen(is_kernel(), PARAMS) == ["head/kernel", "stem/kernel", "stem/weight"]
    vector = {
        "kernel": jnp.ones(3),
        "x": {"kernel": jnp.ones((2, 2), jnp.int32)},
        "y": {"weight": jnp.ones((1, 1))},
    }
    assert chosen(is_kernel(), vector) == ["y/weight"]


def test_combinators() -> None:
    assert chosen(is_kernel() & ~path("head/*"), PARAMS) == ["stem/kernel", "stem/weight"]
    assert chosen(path("head/kernel") | path("*/weight"), PARAMS) == ["head/kernel", "stem/weight"]
    assert chosen(is_kernel() & (lambda name, leaf: leaf.ndim == 4), PARAMS) == ["stem/kernel"]
    assert chosen(lambda name, leaf: name.startswith("norm"), PARAMS) == ["norm/scale"]
    assert repr(is_kernel() & ~(path("a") | path("b"))) == "(is_kernel() & ~(path('a') | path('b')))"


def test_nnx_states_have_the_same_names_boxed_and_pure() -> None:
    state = nnx.state(Net(nnx.Rngs(0)), nnx.Param)
    assert chosen(is_kernel(), state) == ["layers/0/kernel", "stem/kernel"]
    assert leaf_names(nnx.as_pure(state)) == leaf_names(state)
    assert chosen(is_kernel() & ~path("stem/*"), state) == ["layers/0/kernel"]


def test_linen_parameters_plain_frozen_and_partitioned() -> None:
    init = linen.with_partitioning(linen.initializers.lecun_normal(), (None, None))
    for layer in (linen.Dense(3), linen.Dense(3, kernel_init=init)):
        variables = layer.init(jax.random.key(0), jnp.ones((1, 2)))
        assert chosen(is_kernel(), variables) == ["params/kernel"]
        assert chosen(is_kernel(), freeze(variables)) == ["params/kernel"]


def test_an_attribute_called_value_is_not_taken_for_a_box() -> None:
    params = {"attn": Attention(*(jnp.ones((2, 2)) for _ in range(3)))}
    assert leaf_names(params) == ["attn/query", "attn/key", "attn/value"]
    hidden = {"attn": Attention(optax.MaskedNode(), optax.MaskedNode(), jnp.ones((2, 2)))}
    assert leaf_names(hidden) == ["attn/value"]


def test_tuples_and_a_bare_array_can_be_pruned() -> None:
    params = (jnp.arange(4.0), [jnp.arange(4.0).reshape(2, 2)])
    state = pruned(optax.sgd(0.1), one_shot(0.5), where=lambda name, leaf: leaf.ndim == 2).init(params)
    mask = get_mask(state)
    assert mask[0] == optax.MaskedNode()
    assert mask[1][0].tolist() == [[False, False], [True, True]]
    bare = pruned(optax.sgd(0.1), one_shot(0.5), where=lambda name, leaf: True).init(jnp.arange(4.0))
    assert get_mask(bare).tolist() == [False, False, True, True]


def test_nothing_selected_is_an_error_that_lists_the_paths() -> None:
    with pytest.raises(ValueError, match=r"pruned.init: where=is_kernel\(\) has no matching leaf; .*'dense/bias'"):
        pruned(optax.sgd(0.1), one_shot(0.5)).init({"dense": {"bias": jnp.ones(3)}})
    with pytest.raises(ValueError, match="mask_from_zeros: where"):
        mask_from_zeros({"bias": jnp.ones(3)})
    with pytest.raises(ValueError, match="sparsity_of: where"):
        sparsity_of({"bias": jnp.ones(3)})


def test_a_misspelt_glob_is_an_error_even_when_it_excludes() -> None:
    with pytest.raises(ValueError, match=r"path\('haed/\*'\), has no matching leaf"):
        pruned(optax.sgd(0.1), one_shot(0.5), where=is_kernel() & ~path("haed/*")).init(PARAMS)


def test_integer_leaves_and_wrong_filters_are_refused() -> None:
    with pytest.raises(ValueError, match="leaf 'stem/count' has dtype int32; expected a floating dtype"):
        pruned(optax.sgd(0.1), one_shot(0.5), where=path("stem/*")).init(PARAMS)
    with pytest.raises(TypeError, match=r"A glob is written path\('...'\)"):
        is_kernel() & "head/*"  # type: ignore[operator]
    with pytest.raises(TypeError, match="path: glob has type int"):
        path(3)  # type: ignore[arg-type]
