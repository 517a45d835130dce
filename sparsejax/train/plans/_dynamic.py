"""RigL, SET and static masks: on the sparse kernels from the first step to the last."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sparsejax import pruning
from sparsejax._checks import fail
from sparsejax.train._config import TrainConfig
from sparsejax.train.plans._plan import Plan, TrainPhase

_Masks = Mapping[str, np.ndarray]

# Part of the run after which the mask stays as it is.
_EXPLORED = 0.75


def static(config: TrainConfig, steps_per_epoch: int, masks: _Masks | None = None) -> Plan:
    """Plan of method "static": one phase "sparse", in a random mask, or in that of the network.

    >>> static(TrainConfig(epochs=2), 10).phases
    (TrainPhase(name='sparse', start=0, stop=20),)
    """
    phases = (TrainPhase("sparse", 0, steps_per_epoch * config.epochs),)
    scope = _scope(config, masks)
    return Plan(steps_per_epoch, phases, pruning.static(config.target, scope=scope, seed=config.seed))


def evolving(config: TrainConfig, steps_per_epoch: int, masks: _Masks | None = None) -> Plan:
    """Plan of methods "rigl" and "set": phase "sparse", with a step "update" every ``update_every`` steps.

    A network that has masks keeps the number of weights in each layer.

    The update is the only step that forms a dense gradient, for RigL to choose by.

    Raises:
      ValueError: the run is too short for an update.

    Source: Evci et al. 2020, "RigL", section 3: drop fraction 0.3 with a cosine to 0 at three quarters of the run;
    Mocanu et al. 2018, "SET".

    >>> [phase.name for phase in evolving(TrainConfig(method="rigl", epochs=5, update_every=10), 5).phases]
    ['sparse', 'update', 'sparse']
    """
    total = steps_per_epoch * config.epochs
    end, period = round(_EXPLORED * total), config.update_every
    if end <= period:
        rule = f"less than {end}, three quarters of the run"
        fail("train", "update_every", f"value {period}", rule, "Train longer, or change the mask more often.")
    method = _method(config, period, end, masks)
    phases, begin = [], 0
    for done in range(period, end, period):
        phases += [TrainPhase("sparse", begin, done - 1)] * (done - 1 > begin) + [TrainPhase("update", done - 1, done)]
        begin = done
    return Plan(steps_per_epoch, (*phases, TrainPhase("sparse", begin, total)), method)


def _scope(config: TrainConfig, masks: _Masks | None) -> Any:
    if not masks:
        return config.scope
    return pruning.allocation.per_layer({f"{path}/kernel": int(mask.sum()) for path, mask in masks.items()})


def _method(config: TrainConfig, period: int, end: int, masks: _Masks | None) -> pruning.Method:
    stop = (end - 1) // period * period
    if config.method == "rigl":
        drop = pruning.schedules.cosine_drop(0.3, end)
        make = pruning.rigl
    else:
        drop = 0.3
        make = pruning.sparse_evolutionary_training
    return make(config.target, update_every=period, stop=stop, drop=drop, scope=_scope(config, masks), seed=config.seed)
