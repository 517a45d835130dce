"""Gradual magnitude pruning: dense, then under ever sparser masks, then on the sparse kernels to the end."""

from __future__ import annotations

from sparsejax import pruning
from sparsejax._checks import fail
from sparsejax.train._config import TrainConfig
from sparsejax.train.plans._plan import Plan, TrainPhase

# Masks chosen while the sparsity rises, and the fewest steps between two: often enough to be gradual, seldom enough
# that weights recover and that choosing (many passes over all prunable weights) costs little.
_MASK_UPDATES = 25
_SHORTEST_PERIOD = 4


def gradual(config: TrainConfig, steps_per_epoch: int) -> Plan:
    """Plan of method "magnitude": phases "dense", "prune" and "sparse".

    Raises:
      ValueError: there are too few steps for three phases.

    Source: Zhu & Gupta 2017, "To prune, or not to prune".

    >>> plan = gradual(TrainConfig(epochs=2, dense_fraction=0.2, prune_fraction=0.5), 10)
    >>> [(phase.name, phase.start, phase.stop) for phase in plan.phases]
    [('dense', 0, 4), ('prune', 4, 14), ('sparse', 14, 20)]
    """
    total = steps_per_epoch * config.epochs
    begin = round(total * config.dense_fraction)
    end = max(begin + 1, round(total * (config.dense_fraction + config.prune_fraction)))
    if end >= total:
        fail("train", "epochs", f"{total} steps in all", "enough steps for three phases", "Train longer.")
    phases = [TrainPhase("dense", 0, begin)] * (begin > 0) + [
        TrainPhase("prune", begin, end),
        TrainPhase("sparse", end, total),
    ]
    period = max(_SHORTEST_PERIOD, (end - begin) // _MASK_UPDATES)
    method = pruning.magnitude(
        pruning.schedules.cubic(0.0, config.sparsity, begin=begin, end=end),
        update_every=period,
        start=begin,
        stop=end,
        scope=config.scope,
    )
    return Plan(steps_per_epoch, tuple(phases), method, frozenset((begin, end)))
