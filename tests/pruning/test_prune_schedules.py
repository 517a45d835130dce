"""Schedules, cadences and counts: end values hit, monotone, host and traced agree, bad numbers refused."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sparsejax.pruning import magnitude, schedules, uniform
from sparsejax.pruning.allocation import global_count
from sparsejax.pruning.methods._cadence import Cadence
from sparsejax.pruning.schedules import sparsity_at

RAMPS = [schedules.polynomial, schedules.cubic, schedules.linear, schedules.cosine]


@pytest.mark.parametrize("make", RAMPS)
def test_a_ramp_hits_both_ends_exactly_and_never_falls(make) -> None:
    schedule = make(0.1, 0.95, begin=7, end=40)
    assert schedule(0) == schedule(7) == 0.1
    assert schedule(40) == schedule(10_000) == 0.95
    values = [schedule(t) for t in range(50)]
    assert values == sorted(values)
    assert values[20] not in (0.1, 0.95)


@pytest.mark.parametrize(
    "schedule",
    [make(0.1, 0.9, begin=3, end=20) for make in RAMPS] + [schedules.constant(0.8), schedules.one_shot(0.8, at=5)],
)
def test_traced_and_host_values_agree(schedule) -> None:
    steps = jnp.arange(25)
    traced = jax.jit(jax.vmap(schedule))(steps)
    np.testing.assert_allclose(traced, [schedule(int(t)) for t in steps], atol=2e-7)


def test_formulas_at_an_inner_point() -> None:
    # p = 1/4
    assert schedules.cubic(0.2, 0.8, begin=0, end=8)(2) == pytest.approx(0.8 - 0.6 * 0.75**3)
    assert schedules.linear(0.2, 0.8, begin=0, end=8)(2) == pytest.approx(0.35)
    assert schedules.cosine(0.2, 0.8, begin=0, end=8)(2) == pytest.approx(0.8 - 0.3 * (1 + np.sqrt(0.5)))
    assert schedules.one_shot(0.8, at=3)(2) == 0.0
    assert schedules.one_shot(0.8, at=3)(3) == 0.8


@pytest.mark.parametrize("delta", [1, 2, 3, 7, 10, 11, 50])
def test_updates_are_at_both_ends_for_every_period(delta: int) -> None:
    gate = Cadence(delta, 5, 15)
    fired = [t for t in range(30) if gate(t)]
    assert fired == list(gate.steps())
    assert (fired[0], fired[-1]) == (5, 15)
    assert [int(gate.index(t)) for t in fired] == list(range(len(fired)))
    np.testing.assert_array_equal(jax.jit(gate)(jnp.arange(30)), [t in fired for t in range(30)])
    ahead = [min(f for f in fired if f >= t) - t for t in range(16)]
    assert jax.vmap(gate.until_next)(jnp.arange(16)).tolist() == ahead


def test_without_a_stop_updates_go_on() -> None:
    forever = Cadence(3, 2, None)
    assert [t for t in range(12) if forever(t)] == [2, 5, 8, 11]
    assert [int(forever.until_next(t)) for t in range(6)] == [2, 1, 0, 2, 1, 0]


def test_a_cadence_of_one_step() -> None:
    assert Cadence(1, 4, 4).steps() == (4,)


def test_counts_are_exact_where_float32_is_not() -> None:
    n = 50_000_003
    assert global_count(0.9, [n]) == 5_000_000
    assert global_count(np.float32(0.9), [n]) == 5_000_000
    assert global_count(jnp.float32(0.9), [n]) == 5_000_000
    assert uniform(0.98, [72, 1152, 8192, 1280]) == [1, 23, 164, 26]


def test_counts_round_half_to_even_and_keep_at_least_one() -> None:
    assert uniform(0.5, [1, 3, 5, 7]) == [1, 1, 3, 3]
    assert uniform(0.0, [4]) == [4]
    assert uniform(0.99, [2]) == [1]


def test_schedules_written_with_jnp_are_read_while_tracing() -> None:
    decay = optax.polynomial_schedule(0.0, 0.9, power=3, transition_steps=10)
    seen = []

    @jax.jit
    def traced(x: jax.Array) -> jax.Array:
        seen.append(sparsity_at("magnitude", decay, 10))
        return x

    traced(jnp.ones(()))
    assert float(seen[0]) == 0.9


@pytest.mark.parametrize("bad", [-0.1, 1.0, 1.5, float("nan"), "0.9", None, [0.5], True])
def test_a_sparsity_out_of_range_is_refused(bad) -> None:
    with pytest.raises(ValueError, match=r"constant: sparsity has value .*; expected .*\[0, 1\)"):
        schedules.constant(bad)
    with pytest.raises(ValueError, match=r"uniform: sparsity has"):
        uniform(bad, [10])


@pytest.mark.parametrize("make", RAMPS)
def test_bad_ramps_are_refused(make) -> None:
    with pytest.raises(ValueError, match="final has value 1"):
        make(0.0, 1.0, begin=0, end=10)
    with pytest.raises(ValueError, match="begin and end has values 10 and 10; expected 0 <= begin < end"):
        make(0.0, 0.5, begin=10, end=10)


def test_other_bad_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="polynomial: power has value 0"):
        schedules.polynomial(0.0, 0.5, begin=0, end=1, power=0)
    with pytest.raises(ValueError, match="one_shot: at has value -1"):
        schedules.one_shot(0.5, at=-1)
    ramp = schedules.cubic(0.0, 0.5, begin=0, end=5)
    for cadence, operand in (
        ({"update_every": 0, "stop": 5}, "update_every"),
        ({"update_every": 1, "start": -1, "stop": 5}, "start"),
        ({"update_every": 1, "start": 6, "stop": 5}, "stop"),
        ({"update_every": 2.5, "stop": 5}, "update_every"),
    ):
        with pytest.raises(ValueError, match=f"magnitude: {operand} has value"):
            magnitude(ramp, **cadence)  # type: ignore[arg-type]


def test_a_last_update_before_the_end_of_the_schedule_is_refused() -> None:
    schedule = schedules.cubic(0.0, 0.8, begin=0, end=40)
    with pytest.raises(
        ValueError, match="magnitude: stop has value 36; expected the end of the schedule, 40, or a later"
    ):
        magnitude(schedule, update_every=4, stop=36)


def test_magnitude_refuses_other_arguments() -> None:
    with pytest.raises(TypeError, match="magnitude: schedule has type float"):
        magnitude(0.9, update_every=1, stop=0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="magnitude: scope has value 'local'; expected 'global'"):
        magnitude(schedules.constant(0.9), update_every=1, stop=0, scope="local")  # type: ignore[arg-type]
