"""The plans of the methods: which steps are of which phase."""

from __future__ import annotations

import pytest

from sparsejax.train import Plan, TrainConfig, make_plan


def names(plan: Plan) -> list[str]:
    return [plan.phase(step).name for step in range(plan.total)]


def check_gapless(plan: Plan) -> None:
    assert plan.phases[0].start == 0
    for before, after in zip(plan.phases, plan.phases[1:], strict=False):
        assert before.start < before.stop == after.start < after.stop


@pytest.mark.parametrize(
    ("fraction", "epochs", "expected"),
    # The authors' lists for ImageNet (100 epochs) and CIFAR-100 (200 epochs), first epochs of sparse and dense phases.
    [
        (0.05, 100, ([10, 20, 30, 40, 50, 60, 70, 85], [0, 15, 25, 35, 45, 55, 65, 75])),
        (0.1, 200, ([10, 50, 90, 130, 170], [0, 30, 70, 110, 150])),
    ],
)
def test_published_lists_of_acdc(fraction, epochs, expected):
    config = TrainConfig(method="acdc", epochs=epochs, batch_size=10, phase_fraction=fraction)
    plan = make_plan(config, 30)
    starts = [[p.start / 3 for p in plan.phases if p.name == name] for name in ("sparse", "dense")]
    assert tuple(starts) == expected
    check_gapless(plan)


def test_an_update_ends_every_sparse_phase_of_acdc_but_the_last():
    plan = make_plan(TrainConfig(method="acdc", epochs=20, batch_size=10), 100)
    assert plan.method is not None
    for before, after in zip(plan.phases, plan.phases[1:], strict=False):
        if before.name == "sparse":
            assert (after.name, after.stop - after.start) == ("update", 1)
    # The mask changes after the last step with dense weights, never after one on stored weights.
    changes = [step for step in range(plan.total) if bool(plan.method.refresh(step + 1))]
    assert changes and not any(plan.is_stored(step) for step in changes)
    assert plan.is_stored(plan.total - 1)


@pytest.mark.parametrize("method", ["rigl", "set"])
def test_every_change_of_the_mask_is_an_update(method):
    config = TrainConfig(method=method, epochs=10, batch_size=10, update_every=7)
    plan = make_plan(config, 100)
    assert plan.method is not None
    changes = [step for step in range(plan.total) if bool(plan.method.refresh(step + 1))]
    assert changes == [step for step, name in enumerate(names(plan)) if name == "update"] == list(range(6, 75, 7))
    check_gapless(plan)


def test_updates_in_every_step():
    plan = make_plan(TrainConfig(method="set", epochs=2, batch_size=10, update_every=1), 100)
    assert names(plan) == ["update"] * 14 + ["sparse"] * 6
    check_gapless(plan)


def test_phases_against_the_time_in_which_sgd_forgets():
    config = TrainConfig(method="acdc", epochs=20, batch_size=10, learning_rate=0.2, weight_decay=0.02)
    assert "lasts 0.4 of the time" in make_plan(config, 50).remark  # 10 steps of 25
    assert make_plan(config, 100).remark == ""


def test_the_sparsity_is_exact_when_the_sparse_phase_begins():
    for epochs in range(1, 6):
        plan = make_plan(TrainConfig(epochs=epochs, batch_size=10), 130)
        assert plan.method is not None
        assert bool(plan.method.refresh(plan.phases[-1].start))
        assert [phase.name for phase in plan.phases] == ["dense", "prune", "sparse"]


def test_no_dense_warm_up():
    assert names(make_plan(TrainConfig(epochs=2, batch_size=10, dense_fraction=0.0), 100))[0] == "prune"


@pytest.mark.parametrize(
    ("options", "examples", "message"),
    [
        ({}, 63, "train: batch_size has value 64; expected at most 63"),
        ({"epochs": 1}, 64, "train: epochs has 1 steps in all"),
        ({"method": "acdc", "epochs": 10}, 64, "train: epochs has 10 steps in all, 1 in a phase"),
        ({"method": "rigl", "epochs": 100}, 64, "train: update_every has value 100; expected less than 75"),
    ],
)
def test_plans_that_do_not_fit(options, examples, message):
    with pytest.raises(ValueError, match=message):
        make_plan(TrainConfig(**options), examples)
