"""Cadences as 0.1.0 wrote them: a warning that names the new arguments, and updates at exactly the former steps."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sparsejax import pruning as sp
from sparsejax.pruning import schedules

# What 0.1.0 did, written out: the gate, and the steps before an end.


def gate(delta: int, begin: int, end: int) -> set[int]:
    return {*range(begin, end, delta), end}


def before(every: int, end: int) -> set[int]:
    return set(range(every, end, every))


HORIZON = 60
RAMP = schedules.cubic(0.0, 0.9, begin=0, end=7)
SCORES = {"scores_tx": optax.sgd(1.0)}
AFTER = set(range(HORIZON))


def refresh(delta: int, begin: int, end: int) -> Any:
    with pytest.warns(DeprecationWarning, match="sparsejax.pruning.every is deprecated.*update_every, start, stop"):
        return sp.every(delta, begin, end)


CASES: list[tuple[Any, set[int]]] = [
    (lambda: sp.magnitude(RAMP, refresh=refresh(3, 2, 10)), gate(3, 2, 10)),
    (lambda: sp.saliency(RAMP, refresh=refresh(3, 2, 9)), gate(3, 2, 9)),
    (lambda: sp.random_pruning(RAMP, refresh=refresh(50, 0, 9)), gate(50, 0, 9)),
    (lambda: sp.movement(RAMP, refresh=refresh(3, 2, 9), **SCORES), gate(3, 2, 9) | {t for t in AFTER if t > 9}),
    (lambda: sp.granet(RAMP, refresh=refresh(3, 2, 9), end=20), gate(3, 2, 9) | set(range(2, 20, 3))),
    (lambda: sp.granet(RAMP, refresh=refresh(3, 1, 10), end=19), gate(3, 1, 10) | set(range(1, 19, 3))),
    (lambda: sp.sparse_evolutionary_training(0.9, every=3, end=9), before(3, 9)),
    (lambda: sp.sparse_evolutionary_training(0.9, every=3, end=10), before(3, 10)),
    (lambda: sp.rigl(0.9, every=4, end=11), before(4, 11)),
    (lambda: sp.snfs(0.9, every=4, end=13), before(4, 13)),
    (lambda: sp.mest(0.9, every=3, end=10, grad_weight=0.1), gate(3, 3, 10)),
    (lambda: sp.top_kast(0.9, 0.5, period=7), {t for t in AFTER if t % 7 == 0}),
    (lambda: sp.straight_through(0.9, period=7), {t for t in AFTER if t % 7 == 0}),
    (lambda: sp.soft_movement(threshold=0.1, penalty=1.0, begin=5, **SCORES), {t for t in AFTER if t >= 5}),
]


@pytest.mark.parametrize(("make", "steps"), CASES)
def test_former_arguments_warn_and_update_at_the_former_steps(make, steps) -> None:
    with pytest.warns(DeprecationWarning, match="use .*(update_every|start)"):
        method = make()
    assert {t for t in range(HORIZON) if method.refresh(t)} == steps


def test_the_default_period_of_rigl_and_its_cosine_are_the_former_ones() -> None:
    with pytest.warns(DeprecationWarning, match=r"rigl\(end=...\) is deprecated .* use update_every, start, stop"):
        method: Any = sp.rigl(0.9, end=750)
    assert {t for t in range(1000) if method.refresh(t)} == before(100, 750)
    assert method.drop(375) == pytest.approx(0.15) and method.drop(750) == 0
    with pytest.warns(DeprecationWarning):
        method = sp.snfs(0.9, every=10, end=100)
    assert method.drop(50) == pytest.approx(0.25) and method.drop(100) == 0


def test_granet_at_a_last_pruning_off_the_grid_only_prunes_and_then_only_exchanges(tools) -> None:
    with pytest.warns(DeprecationWarning):
        method = sp.granet(lambda t: t / 10, refresh=refresh(3, 1, 6), end=9, drop=0.5)
    tx = sp.pruned(optax.sgd(0.0), method)
    params, state = tools.make_params(), None
    state, counts = tx.init(params), []
    for i in range(9):
        grads = tools.random_grads(params, i)
        _, state = tx.update(grads, state, params)
        counts.append(int(sp.metrics(state)["nnz"]))
        if i + 1 == 6:
            assert int(state.change.grown) == 0
    assert counts == [72, 72, 72, 48, 48, 32, 32, 32, 32]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: sp.magnitude(RAMP, refresh=100), TypeError, "magnitude: refresh has type int"),
        (lambda: sp.rigl(0.9, every=10, end=10), ValueError, "rigl: end has value 10; expected more than every"),
        (lambda: sp.granet(RAMP, refresh=refresh(1, 1, 7), end=7), ValueError, "granet: end has value 7"),
        (lambda: sp.rigl(0.9, end=1000, update_every=2), TypeError, "multiple values for .*update_every"),
    ],
)
def test_wrong_former_arguments_are_refused(make, error, message) -> None:
    with pytest.warns(DeprecationWarning), pytest.raises(error, match=message):
        make()


def test_a_former_argument_beside_its_new_name_is_refused() -> None:
    with pytest.raises(TypeError, match="top_kast: got 'update_every' and its old name 'period'"):
        sp.top_kast(0.9, 0.5, period=2, update_every=2)  # type: ignore[call-arg]


def test_the_former_gate() -> None:
    former = refresh(4, 5, 15)
    assert (former.delta, former.begin, former.end, former.steps()) == (4, 5, 15, (5, 9, 13, 15))
    np.testing.assert_array_equal(former(jnp.arange(5, 16)), [t in (5, 9, 13, 15) for t in range(5, 16)])
    with pytest.warns(DeprecationWarning, match="sparsejax.pruning.Every is deprecated"):
        assert isinstance(former, sp.Every)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("set_", "sparse_evolutionary_training"),
        ("str_", "soft_threshold"),
        ("random_", "random_pruning"),
        ("STR", "SoftThreshold"),
        ("STRParams", "SoftThresholdParams"),
    ],
)
def test_former_names_warn(old, new) -> None:
    with pytest.warns(DeprecationWarning, match=f"pruning.{old} is deprecated .* use sparsejax.pruning.{new}"):
        assert getattr(sp, old) is getattr(sp, new)
