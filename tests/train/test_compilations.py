"""A run compiles each kind of step once, for every method of the command, and nothing else twice."""

from __future__ import annotations

import dataclasses

import pytest

from helpers.compilations import compilations
from helpers.small_run import ACDC, CONFIG, RIGL, make_model
from sparsejax.train import TrainRun
from sparsejax.train.plans._methods import METHODS

CONFIGS = {"acdc": ACDC, "rigl": RIGL, "set": RIGL}


@pytest.mark.parametrize("method", METHODS)
def test_a_step_of_a_kind_that_was_there_before_compiles_nothing(method, dataset, tmp_path) -> None:
    config = dataclasses.replace(CONFIGS.get(method, CONFIG), method=method)
    run = TrainRun(config, tmp_path, dataset=dataset, model=make_model(), checkpoint_every=4)
    states = run.states()
    next(states)
    seen, before = set(), "start"
    for step in range(run.plan.total):
        name = run.plan.phase(step).name
        kind = (before, name, run.plan.tests_after(step + 1), (step + 1) % 4 == 0)
        with compilations() as counter:
            next(states)
        assert not counter or kind not in seen, (step, kind, counter)
        seen.add(kind)
        before = name
    states.close()
    assert len(seen) < run.plan.total
