"""Exact zeros and exact counts for every method, one compilation, loop = scan = external refresh."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from sparsejax import pruning as sp
from sparsejax.pruning import schedules

RAMP = schedules.cubic(0.0, 0.75, begin=1, end=8)
GATE: Any = {"update_every": 3, "start": 1, "stop": 8}
UPDATES = (1, 4, 7, 8)
PHASES = sp.acdc_phases(total=10, warmup=2, sparse=2, dense=2, last_dense=2, final_sparse=4)
STEPS = 10
ALL, K = 80, 20  # weights, and what 75 % leaves
HALF = schedules.cubic(0.5, 0.75, begin=1, end=8)

METHODS: dict[str, Any] = {
    "one_shot": lambda: sp.one_shot(0.75, at=3),
    "magnitude": lambda: sp.magnitude(RAMP, **GATE),
    "acdc": lambda: sp.acdc(0.75, PHASES),
    "acdc layer": lambda: sp.acdc(0.75, PHASES, scope="layer", reset="pruned"),
    "random": lambda: sp.random_pruning(RAMP, **GATE),
    "saliency": lambda: sp.saliency(RAMP, **GATE, average=0.5),
    "fisher": lambda: sp.saliency(RAMP, **GATE, kind="fisher", average=0.9, scope="layer"),
    "static": lambda: sp.static(0.75),
    "set": lambda: sp.sparse_evolutionary_training(0.75, update_every=2, stop=8),
    "rigl": lambda: sp.rigl(0.75, update_every=2, stop=8),
    "rigl noise": lambda: sp.rigl(0.75, update_every=3, stop=6, grow_grad_steps=2, drop_noise=1e-5),
    "snfs": lambda: sp.snfs(0.75, update_every=2, stop=8),
    "granet": lambda: sp.granet(RAMP, **GATE),
    "granet sparse": lambda: sp.granet(HALF, **GATE),
    "mest": lambda: sp.mest(0.75, update_every=2, stop=8, grad_weight=0.1),
    "mest bound": lambda: sp.mest(0.75, update_every=2, stop=8, grad_weight=0.1, bound=0.5),
    "hard_threshold": lambda: sp.hard_threshold(0.75),
    "straight_through": lambda: sp.straight_through(0.75, update_every=2, decay=2e-4),
    "top_kast": lambda: sp.top_kast(0.75, 0.5, update_every=2, penalty=1e-3),
    "movement": lambda: sp.movement(RAMP, **GATE, scores_tx=optax.sgd(1.0)),
}
SOFT = ("straight_through", "top_kast", "movement")
CONSTANT = ("static", "set", "rigl", "rigl noise", "snfs", "mest", "hard_threshold", "straight_through", "top_kast")

INNERS: dict[str, Any] = {
    "sgd": lambda: optax.sgd(0.1),
    "momentum": lambda: optax.chain(optax.add_decayed_weights(1e-2), optax.sgd(0.1, momentum=0.9)),
    "adamw": lambda: optax.adamw(1e-2),
    "lion": lambda: optax.lion(1e-2),
    "adafactor": lambda: optax.adafactor(1e-2, min_dim_size_to_factor=4),
    "inject": lambda: optax.inject_hyperparams(optax.sgd)(learning_rate=0.1, momentum=0.9),
    "partition": lambda: optax.partition(
        {"x": optax.adam(1e-2), "y": optax.sgd(0.1, momentum=0.9)}, {"a": "x", "b": {"kernel": "y", "bias": "x"}}
    ),
    "MultiSteps": lambda: optax.sgd(0.1, momentum=0.9),
}


def promised(name: str, step: int) -> int:
    """Weights that the mask keeps after so many steps."""
    if name in CONSTANT:
        return K
    if name.startswith("acdc"):
        return K if PHASES.at(step).kind == "sparse" else ALL
    if name == "one_shot":
        return K if step >= 3 else ALL
    if name == "mest bound":
        return K if step >= 8 else ALL // 2
    level = (HALF if name == "granet sparse" else RAMP)(max([0, *(t for t in UPDATES if t <= step)]))
    return (
        sum(sp.uniform(level, (48, 32)))
        if name in ("random", "fisher")
        else sp.allocation.global_count(level, (48, 32))
    )


def run_checked(tools: Any, name: str, inner: str, dtype: Any, *, packed: bool = False) -> tuple[Any, Any, int]:
    """Take STEPS steps; check zeros and counts after each; return parameters, state, and compilations."""
    tx: Any = sp.pruned(INNERS[inner](), METHODS[name](), packed=packed)
    repeat = 2 if inner == "MultiSteps" else 1
    tx = optax.MultiSteps(tx, repeat).gradient_transformation() if repeat > 1 else tx
    params = tools.make_params(dtype)
    params, state = (params, tx.init(params)) if name in SOFT else sp.init(tx, params)
    traces = []

    @jax.jit
    def step(params: Any, state: Any, i: Any) -> Any:
        traces.append(i)
        return tools.make_step(tx)(params, state, i)

    for i in range(STEPS * repeat):
        params, state = step(params, state, i)
        # What is checked stays outside the program, which compiles the faster.
        mask, used = sp.get_mask(state), sp.forward_params(params, state) if name in SOFT else params
        pairs = [(np.asarray(mask[layer]["kernel"]), np.asarray(used[layer]["kernel"])) for layer in "ab"]
        assert not any(weight[~keep].any() for keep, weight in pairs)
        assert sum(keep.sum() for keep, _ in pairs) == sp.metrics(state)["nnz"] == promised(name, (i + 1) // repeat)
    leaves = jax.tree.leaves(params)
    assert all(leaf.dtype == dtype and bool(jnp.isfinite(leaf).all()) for leaf in leaves)
    return params, state, len(traces)


def sample() -> list[tuple[str, str, Any]]:
    """Every method once in each dtype, with two optimizers; every optimizer with five methods, in both dtypes."""
    names, inners = list(METHODS), list(INNERS)
    chosen = [(name, inners[i % len(inners)], jnp.float32) for i, name in enumerate(names)]
    return chosen + [(name, inners[(i + 3) % len(inners)], jnp.bfloat16) for i, name in enumerate(names)]


@pytest.mark.parametrize(("name", "inner", "dtype"), sample())
def test_zeros_and_counts_are_exact_and_one_compilation_serves_the_run(tools, name, inner, dtype) -> None:
    assert run_checked(tools, name, inner, dtype)[2] == 1


@pytest.mark.slow
@pytest.mark.parametrize(("name", "inner", "dtype"), [*itertools.product(METHODS, INNERS, (jnp.float32, jnp.bfloat16))])
def test_every_method_with_every_optimizer_in_both_dtypes(tools, optimized, name, inner, dtype) -> None:
    assert run_checked(tools, name, inner, dtype)[2] == 1


@pytest.mark.parametrize("name", ["acdc", "rigl", "magnitude", "top_kast"])
def test_packed_masks_give_the_same_bits(tools, optimized, name) -> None:
    plain, packed = (run_checked(tools, name, "sgd", jnp.float32, packed=flag) for flag in (False, True))
    tools.assert_equal_trees(plain[0], packed[0])
    tools.assert_equal_trees(sp.get_mask(plain[1]), sp.get_mask(packed[1]))
    assert packed[1].mask["a"]["kernel"].bits.nbytes == 6


@pytest.mark.parametrize("name", ["acdc", "rigl", "set"])
def test_loop_scan_and_external_refresh_agree_to_the_bit(tools, optimized, name) -> None:
    method = METHODS[name]()
    tx = sp.pruned(optax.sgd(0.1, momentum=0.9), method)
    start = sp.init(tx, tools.make_params())
    step = tools.make_step(tx)
    scanned, _ = jax.jit(lambda c: lax.scan(lambda c, i: (step(*c, i), None), c, jnp.arange(STEPS)))(start)

    loop, host = start, start
    compiled = jax.jit(step)
    grads_of = tools.random_grads

    def external(params: Any, state: Any, i: Any, refresh: bool) -> Any:
        updates, state = tx.update(grads_of(params, i), state, params, refresh=refresh)
        return optax.apply_updates(params, updates), state

    fixed_branch = jax.jit(external, static_argnums=3)
    for i in range(STEPS):
        loop = compiled(*loop, i)
        host = fixed_branch(*host, i, bool(method.refresh(i + 1)))
    tools.assert_equal_trees(scanned, loop)
    tools.assert_equal_trees(host, loop)
