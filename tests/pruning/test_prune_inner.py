"""Every public transform of Optax inside ``pruned``: it works there if it works alone, or the error names it."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib
import pytest

from sparsejax import pruning as sp

PARAMS = {
    "a": {"kernel": jax.random.normal(jax.random.key(0), (4, 6)), "bias": jnp.ones(6)},
    "b": {"kernel": jax.random.normal(jax.random.key(1), (6, 4)), "bias": jnp.ones(4)},
}
SOME = {"a": True, "b": {"kernel": True, "bias": False}}
LABELS = {"a": "x", "b": {"kernel": "y", "bias": "x"}}


def sgd() -> Any:
    return optax.sgd(0.1, momentum=0.9)


def key() -> jax.Array:
    return jax.random.key(0)


# Those that need other arguments than a learning rate, or none.
MAKE: dict[str, Callable[[Any], Any]] = {
    "adaptive_grad_clip": lambda f: f(1.0),
    "add_noise": lambda f: f(0.01, 0.55, key=key()),
    "apply_every": lambda f: f(2),
    "apply_if_finite": lambda f: f(sgd(), 3),
    "chain": lambda f: f(optax.clip(1.0), sgd()),
    "clip": lambda f: f(1.0),
    "clip_by_block_rms": lambda f: f(1.0),
    "clip_by_global_norm": lambda f: f(1.0),
    "conditionally_mask": lambda f: f(sgd(), lambda step: step % 2 == 0),
    "conditionally_transform": lambda f: f(sgd(), lambda step: step % 2 == 0),
    "differentially_private_aggregate": lambda f: f(1.0, 0.1, key=key()),
    "dpsgd": lambda f: f(0.1, 1.0, 0.1, seed=0),
    "ema": lambda f: f(0.9),
    "flatten": lambda f: f(sgd()),
    "freeze": lambda f: f(SOME),
    "galore": lambda f: f(0.01, rank=2),
    "inject_hyperparams": lambda f: f(optax.adam)(learning_rate=0.1),
    "inject_stateful_hyperparams": lambda f: f(optax.adam)(learning_rate=0.1),
    "lookahead": lambda f: f(sgd(), 2, 0.5),
    "masked": lambda f: f(sgd(), SOME),
    "measure_with_ema": lambda f: f(optax.global_norm, 0.9),
    "mechanize": lambda f: f(sgd()),
    "multi_transform": lambda f: f({"x": sgd(), "y": optax.adam(0.1)}, LABELS),
    "named_chain": lambda f: f(("clip", optax.clip(1.0)), ("sgd", sgd())),
    "noisy_sgd": lambda f: f(0.1, key=key()),
    "partition": lambda f: f({"x": sgd(), "y": optax.adam(0.1)}, LABELS),
    "sam": lambda f: f(sgd(), optax.sgd(0.01), sync_period=2),
    "scale": lambda f: f(-0.1),
    "scale_by_backtracking_linesearch": lambda f: f(5),
    "scale_by_galore": lambda f: f(rank=2),
    "scale_by_schedule": lambda f: f(lambda step: -0.1),
    "scale_by_zoom_linesearch": lambda f: f(5),
    "schedule_free": lambda f: f(sgd(), 0.1),
    "selective_transform": lambda f: f(sgd(), freeze_mask=SOME),
    "snapshot": lambda f: f("norm", optax.global_norm),
    "split_real_and_imaginary": lambda f: f(sgd()),
    "stateless": lambda f: f(lambda updates, params: updates),
    "stateless_with_tree_map": lambda f: f(lambda update, weight: update),
    "trace": lambda f: f(0.9),
    "with_extra_args_support": lambda f: f(sgd()),
}


LINE_SEARCH = ("value", "grad", "value_fn")
EXTRA = {
    "lbfgs": LINE_SEARCH,
    "momo": ("value",),
    "momo_adam": ("value",),
    "polyak_sgd": ("value",),
    "reduce_on_plateau": ("value",),
    "scale_by_backtracking_linesearch": LINE_SEARCH,
    "scale_by_polyak": ("value",),
    "scale_by_zoom_linesearch": LINE_SEARCH,
    "sophia": ("obj_fn",),
}
# They want gradients of single examples, another tree of updates, or kernels only.
NOT_ALONE = {"differentially_private_aggregate", "dpsgd", "measure_with_ema", "scale_by_muon"}
REFUSED = {"flatten", "lookahead"}


def public_transforms() -> Iterator[tuple[str, Any]]:
    """Every function of Optax that returns a gradient transformation."""
    for module in (optax, optax.contrib):
        for name in sorted(vars(module)):
            function = vars(module)[name]
            is_public = isinstance(function, types.FunctionType) and not name.startswith("_")
            if is_public and "GradientTransformation" in str(inspect.signature(function).return_annotation):
                yield name, function


TRANSFORMS = dict(public_transforms()) | {"scale_by_factored_rms": optax.scale_by_factored_rms}


def make(name: str) -> Any:
    function = TRANSFORMS[name]
    if name in MAKE:
        return MAKE[name](function)
    return function(1e-2) if "learning_rate" in inspect.signature(function).parameters else function()


class HalfThenAll(sp.Method):
    """Keep every other weight after step 1, and all after step 3."""

    def init(self, view: sp.View) -> tuple[list[jax.Array], Any]:
        return view.masks, ()

    def refresh(self, step: Any) -> Any:
        return (step == 1) | (step == 3)

    def update(self, view: sp.View) -> tuple[list[jax.Array], Any]:
        half = [(jnp.arange(weight.size) % 2 == 0).reshape(weight.shape) for weight in view.weights]
        return [mask | (view.step == 3) for mask in half], ()


def loss(params: Any) -> jax.Array:
    return sum((jnp.sum((leaf - 0.3) ** 2) for leaf in jax.tree.leaves(params)), start=jnp.zeros(()))


def steps(name: str, tx: Any, each: Callable[[Any, Any], None]) -> None:
    """Take four steps, with the extra arguments that the transform asks for."""
    params, state = PARAMS, tx.init(PARAMS)
    for _ in range(4):
        value, grads = jax.value_and_grad(loss)(params)
        offered = {"value": value, "grad": grads, "value_fn": loss, "obj_fn": loss}
        extra = {argument: offered[argument] for argument in EXTRA.get(name, ())}
        updates, state = tx.update(grads, state, params, **extra)
        assert jax.tree.structure(updates) == jax.tree.structure(params), "other updates"
        params = optax.apply_updates(params, updates)
        each(params, state)


def check(params: Any, state: Any) -> None:
    """No weight outside the mask, and nothing kept for one at the step that prunes it."""
    mask = sp.get_mask(state)
    for layer in "ab":
        keep = mask[layer]["kernel"]
        assert not jnp.any(params[layer]["kernel"][~keep])
        if int(state.step) == 1:
            kept = [part for part in jax.tree.leaves(state.inner) if jnp.shape(part) == keep.shape]
            assert all(not jnp.any(part[~keep]) for part in kept)
    sp.check(params, state)


@pytest.mark.filterwarnings("ignore")  # some are deprecated in Optax
@pytest.mark.parametrize("name", sorted(TRANSFORMS.keys() - REFUSED - NOT_ALONE))
def test_an_inner_transform(name) -> None:
    steps(name, sp.pruned(make(name), HalfThenAll()), check)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_an_inner_transform_without_moments_of_single_weights(name) -> None:
    for inner in (make(name), optax.chain(optax.clip(1.0), make(name))):
        with pytest.raises(ValueError, match=rf"pruned.init: inner has .*optax\.{name}"):
            sp.pruned(inner, HalfThenAll()).init(PARAMS)
    assert sp.pruned(optax.flatten(optax.sgd(0.1)), HalfThenAll()).init(PARAMS)  # no moments


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", sorted(NOT_ALONE))
def test_an_inner_transform_that_fails_alone_is_named(name) -> None:
    with pytest.raises((ValueError, AssertionError)):
        steps(name, optax.with_extra_args_support(make(name)), lambda params, state: None)
    with pytest.raises(ValueError) as inside:
        steps(name, sp.pruned(make(name), HalfThenAll()), check)
    text = "\n".join([str(inside.value), *getattr(inside.value, "__notes__", ())])
    assert "raised by the inner optimizer, in " in text or "the result of inner.update" in text


def test_how_many() -> None:
    assert len(TRANSFORMS.keys() - REFUSED - NOT_ALONE) > 100
