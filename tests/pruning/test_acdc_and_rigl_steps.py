"""What AC/DC and RigL do at each step, on problems small enough to follow by hand."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sparsejax import pruning as sp

TARGET = jnp.arange(1.0, 13.0).reshape(3, 4)


def run(tx: Any, params: Any, steps: int, grad: Any = None) -> list[tuple[Any, Any]]:
    """Train on the quadratic |w - TARGET|^2 / 2 and return parameters and state before each step, and at the end."""

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        quadratic = {"kernel": params["kernel"] - TARGET, "bias": params["bias"] - 1.0}
        updates, state = tx.update(quadratic if grad is None else grad(params), state, params)
        return optax.apply_updates(params, updates), state

    history = [sp.init(tx, params)]
    for _ in range(steps):
        history.append(step(*history[-1]))
    return history


@pytest.fixture(scope="module")
def acdc_run() -> list[tuple[Any, Any]]:
    """Dense 0-2, sparse 3-4, dense 5-6, sparse 7-9; 3 of 12 weights."""
    phases = sp.acdc_phases(total=10, warmup=3, sparse=2, dense=2, last_dense=2, final_sparse=3)
    inner = optax.chain(optax.add_decayed_weights(0.01), optax.sgd(0.1, momentum=0.9))
    tx = sp.pruned(inner, sp.acdc(0.75, phases))
    return run(tx, {"kernel": jnp.zeros((3, 4)), "bias": jnp.zeros(2)}, 10)


def test_the_first_compressed_forward_sees_the_top_of_the_previous_step(acdc_run) -> None:
    w = m = np.zeros((3, 4), np.float32)
    for _ in range(3):  # classical SGD, momentum, coupled decay
        m = np.float32(0.9) * m + (w - np.asarray(TARGET) + np.float32(0.01) * w)
        w = w - np.float32(0.1) * m
    expected = np.where(np.arange(12).reshape(3, 4) >= 9, w, 0)
    np.testing.assert_allclose(acdc_run[3][0]["kernel"], expected, rtol=1e-6)
    assert int(sp.metrics(acdc_run[3][1])["nnz"]) == 3
    assert int(sp.metrics(acdc_run[2][1])["phase"]) == 0


def test_weights_that_come_back_are_zero_at_the_first_dense_forward(acdc_run) -> None:
    for before, after in ((4, 5),):
        mask = sp.get_mask(acdc_run[before][1])["kernel"]
        params, state = acdc_run[after]
        assert int(sp.metrics(state)["nnz"]) == 12
        assert not jnp.any(params["kernel"][~mask])
    assert bool(jnp.all(acdc_run[6][0]["kernel"] != 0))


def test_all_momentum_is_zero_before_the_first_dense_update(acdc_run) -> None:
    def trace(i: int) -> Any:
        return acdc_run[i][1].inner[1][0].trace

    assert not any(jnp.any(x) for x in jax.tree.leaves(trace(5)))
    assert all(bool(jnp.all(x != 0)) for x in jax.tree.leaves(trace(6)))
    # At a compression only dropped weights lose theirs; the bias keeps it.
    mask = sp.get_mask(acdc_run[3][1])["kernel"]
    assert not jnp.any(trace(3)["kernel"][~mask]) and bool(jnp.all(trace(3)["kernel"][mask] != 0))
    assert bool(jnp.all(trace(3)["bias"] != 0))


def test_weight_decay_acts_on_every_parameter(acdc_run) -> None:
    (before, state), (after, _) = acdc_run[5], acdc_run[6]
    # Momentum is 0, so the step is -lr * (g + decay * w) exactly.
    for name, target in (("kernel", TARGET), ("bias", jnp.ones(2))):
        expected = before[name] - 0.1 * (before[name] - target + 0.01 * before[name])
        np.testing.assert_allclose(after[name], expected, rtol=1e-6)
    assert int(state.step) == 5


def test_other_resets_of_acdc() -> None:
    phases = sp.acdc_phases(total=10, warmup=3, sparse=2, dense=2, last_dense=2, final_sparse=3)
    params = {"kernel": jnp.zeros((3, 4)), "bias": jnp.zeros(2)}
    kept = {}
    for reset in ("pruned", "none"):
        tx = sp.pruned(optax.sgd(0.1, momentum=0.9), sp.acdc(0.75, phases, reset=reset))  # type: ignore[arg-type]
        history = run(tx, params, 6)
        kept[reset] = history[3][1].inner[0].trace["kernel"], sp.get_mask(history[3][1])["kernel"]
        assert bool(jnp.all(history[5][1].inner[0].trace["bias"] != 0))
        # With any reset a weight that comes back starts at zero.
        assert not jnp.any(history[5][0]["kernel"][~sp.get_mask(history[4][1])["kernel"]])
    trace, mask = kept["pruned"]
    assert not jnp.any(trace[~mask])
    trace, mask = kept["none"]
    assert bool(jnp.all(trace[~mask] != 0))


PUBLISHED: dict[str, Any] = {
    # arguments in epochs, then the sparse intervals, inclusive
    "ImageNet 100": ((100, 10, 5, 5, 10, 15), [(e, e + 4) for e in range(10, 75, 10)] + [(85, 99)]),
    "ImageNet 150": ((150, 10, 5, 5, 10, 15), [(e, e + 4) for e in range(10, 125, 10)] + [(135, 149)]),
    "ImageNet 200": ((200, 10, 5, 5, 10, 15), [(e, e + 4) for e in range(10, 175, 10)] + [(185, 199)]),
    "CIFAR-100 freq 20": ((200, 10, 20, 20, 20, 30), [(10, 29), (50, 69), (90, 109), (130, 149), (170, 199)]),
    "CIFAR-100 dense 13": (
        (225, 10, 20, 13, 13, 50),
        [(10, 29), (43, 62), (76, 95), (109, 128), (142, 161), (175, 224)],
    ),
    "digits": ((80, 8, 8, 8, 8, 12), [(8, 15), (24, 31), (40, 47), (56, 59), (68, 79)]),
}
COUNTS = {
    "ImageNet 100": (50, 50),
    "ImageNet 150": (75, 75),
    "ImageNet 200": (100, 100),
    "CIFAR-100 freq 20": (90, 110),
    "CIFAR-100 dense 13": (75, 150),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_phase_lists_epoch_by_epoch(name) -> None:
    keys = ("total", "warmup", "sparse", "dense", "last_dense", "final_sparse")
    lengths, intervals = PUBLISHED[name]
    phases = sp.acdc_phases(**dict(zip(keys, lengths, strict=True)))
    expected = ["sparse" if any(a <= e <= b for a, b in intervals) else "dense" for e in range(lengths[0])]
    assert [phases.at(epoch).kind for epoch in range(lengths[0])] == expected
    if name in COUNTS:
        assert (phases.steps("dense"), phases.steps("sparse")) == COUNTS[name]
    method, scaled = sp.acdc(0.9, phases), sp.acdc_phases(**dict(zip(keys, lengths, strict=True)), steps_per_unit=3)
    fired = [t for t in range(1, lengths[0] + 1) if method.refresh(t)]
    assert fired == [t for t in range(1, lengths[0]) if expected[t] != expected[t - 1]]
    assert scaled.switches == tuple(3 * t for t in fired)


def test_phases_against_the_time_in_which_sgd_forgets() -> None:
    common = {"total": 100, "warmup": 10, "sparse": 5, "dense": 5, "last_dense": 10, "final_sparse": 15}
    optimizer = {"learning_rate": 0.256, "momentum": 0.875, "weight_decay": 2.0**-15}
    phases = sp.acdc_phases(**common, steps_per_unit=5005, **optimizer)
    assert phases.decay_ratio == pytest.approx(1.56, abs=0.01) and "phase / decay time: 1.56" in str(phases)
    with pytest.warns(sp.ShortPhasesWarning, match="expected at least 0.5"):
        sp.acdc_phases(**common, steps_per_unit=100, **optimizer)


def test_the_dense_partner_goes_on_from_inside_the_last_dense_phase(acdc_run) -> None:
    inner = optax.chain(optax.add_decayed_weights(0.01), optax.sgd(0.1, momentum=0.9))
    (params, state), (after, _) = acdc_run[5], acdc_run[6]
    partner = sp.dense_partner(state)
    grads = {"kernel": params["kernel"] - TARGET, "bias": params["bias"] - 1.0}
    updates, _ = inner.update(grads, partner, params)
    np.testing.assert_allclose(optax.apply_updates(params, updates)["kernel"], after["kernel"], rtol=1e-6)
    with pytest.raises(ValueError, match="dense_partner: opt_state has a mask in force"):
        sp.dense_partner(acdc_run[4][1])


GRAD = {"kernel": jnp.array([[9.0, 1.0, 8.0, 2.0], [3.0, 7.0, 4.0, 6.0], [0.5, 0.1, 0.2, 5.0]]), "bias": jnp.ones(2)}


@pytest.fixture(scope="module")
def rigl_run() -> list[tuple[Any, Any]]:
    """4 of 12 weights, exchange of floor(0.5 * 4) = 2 after steps 3 and 6, nothing from step 8 on."""
    tx = sp.pruned(optax.sgd(0.01, momentum=0.9), sp.rigl(2 / 3, update_every=3, stop=6, drop=0.5, seed=1))
    return run(tx, {"kernel": TARGET, "bias": jnp.zeros(2)}, 12, grad=lambda params: GRAD)


def test_the_inner_step_is_skipped_on_an_update(rigl_run) -> None:
    (before, old), (after, new) = rigl_run[2], rigl_run[3]
    np.testing.assert_array_equal(before["bias"], after["bias"])
    np.testing.assert_array_equal(old.inner[0].trace["bias"], new.inner[0].trace["bias"])
    survivors = sp.get_mask(old)["kernel"] & sp.get_mask(new)["kernel"]
    np.testing.assert_array_equal(before["kernel"][survivors], after["kernel"][survivors])
    assert not jnp.array_equal(rigl_run[3][0]["bias"], rigl_run[4][0]["bias"])
    assert int(new.step) == 3


def test_drops_the_smallest_and_grows_the_steepest(rigl_run) -> None:
    for t in (3, 6):
        old, new = (np.asarray(sp.get_mask(rigl_run[i][1])["kernel"]).ravel() for i in (t - 1, t))
        weights = np.abs(np.asarray(rigl_run[t - 1][0]["kernel"])).ravel()
        held = [i for i in np.argsort(-np.where(old, weights, -1), kind="stable")[:2]]
        rest = np.where(np.isin(np.arange(12), held), -1, np.asarray(GRAD["kernel"]).ravel())
        expected = sorted([*held, *np.argsort(-rest, kind="stable")[:2]])
        assert np.flatnonzero(new).tolist() == expected
        assert new.sum() == old.sum() == 4
        change = rigl_run[t][1].change
        assert int(change.dropped) == int(change.grown) == int((new & ~old).sum())


def test_a_dropped_weight_may_return_with_value_and_momentum() -> None:
    # The gradient is largest where the weights already are: what is dropped is what grows.
    mask_of = sp.pruned(optax.sgd(0.1), sp.static(2 / 3, seed=1)).init({"kernel": TARGET, "bias": jnp.zeros(2)}).mask
    grad = {"kernel": jnp.where(mask_of["kernel"], 5.0, 0.1), "bias": jnp.ones(2)}
    tx = sp.pruned(optax.sgd(0.01, momentum=0.9), sp.rigl(2 / 3, update_every=3, stop=6, drop=0.5, seed=1))
    history = run(tx, {"kernel": TARGET, "bias": jnp.zeros(2)}, 3, grad=lambda params: grad)
    (before, old), (after, new) = history[2], history[3]
    np.testing.assert_array_equal(before["kernel"], after["kernel"])
    np.testing.assert_array_equal(old.inner[0].trace["kernel"], new.inner[0].trace["kernel"])
    assert bool(jnp.all(new.inner[0].trace["kernel"][mask_of["kernel"]] != 0))
    assert int(new.change.dropped) == int(new.change.grown) == 0


def test_grown_weights_have_no_value_and_no_momentum(rigl_run) -> None:
    old, new = (sp.get_mask(rigl_run[i][1])["kernel"] for i in (2, 3))
    params, state = rigl_run[3]
    assert jnp.any(new & ~old)
    assert not jnp.any(params["kernel"][new & ~old])
    assert not jnp.any(state.inner[0].trace["kernel"][~(new & old)])
    assert bool(jnp.all(rigl_run[4][0]["kernel"][new & ~old] != 0))


def test_nothing_changes_after_the_end(rigl_run) -> None:
    masks = [sp.get_mask(state)["kernel"] for _, state in rigl_run]
    assert [int(state.change.step) for _, state in rigl_run] == [0] * 3 + [3] * 3 + [6] * 7
    assert all(jnp.array_equal(mask, masks[6]) for mask in masks[6:])
    assert not any(sp.rigl(2 / 3, update_every=3, stop=6).refresh(t) for t in range(9, 100))


def test_gradients_of_the_last_steps_are_added_up() -> None:
    method = sp.rigl(0.5, update_every=4, stop=8, grow_grad_steps=2)
    tx = sp.pruned(optax.sgd(0.0), method)
    params = {"kernel": jnp.ones((2, 2))}
    state: Any = tx.init(params)
    update, sums = jax.jit(tx.update), []
    for i in range(8):
        _, state = update({"kernel": jnp.full((2, 2), 10.0**i)}, state, params)
        sums.append(float(state.aux[0][0, 0]))
    assert sums == [0.0, 0.0, 1e2, 1.1e3, 0.0, 0.0, 1e6, 1.1e7]
