"""Gradual magnitude pruning: dense, then under ever sparser masks, then on the sparse kernels to the end."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sparsejax import pruning
from sparsejax._checks import fail
from sparsejax.train._config import TrainConfig
from sparsejax.train.plans._plan import Plan, TrainPhase

# Masks chosen while the sparsity rises, and the fewest steps between two: often enough to be gradual, seldom enough
# that weights recover and that choosing (many passes over all prunable weights) costs little.
_MASK_UPDATES = 25
_SHORTEST_PERIOD = 4


def gradual(config: TrainConfig, steps_per_epoch: int, masks: Mapping[str, np.ndarray] | None = None) -> Plan:
    """Plan of method "magnitude": phases "dense", "prune" and "sparse".

    A network that has masks is pruned further: its zeros stay, so there is no phase "dense", and the sparsity rises
    from its own.

    Raises:
      ValueError: there are too few steps for three phases, or the network is as sparse as it is to become.

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
    first = _sparsity(masks) if masks else 0.0
    if first >= config.target:
        rule = f"more than {first:.4f}, that of the network"
        fail("train", "sparsity", f"value {config.target:g}", rule, "Or fine-tune it with method 'fixed'.")
    starts = [TrainPhase("prune", 0, end)] if masks else [TrainPhase("prune", begin, end)]
    dense = [TrainPhase("dense", 0, begin)] * (begin > 0 and not masks)
    phases = [*dense, *starts, TrainPhase("sparse", end, total)]
    if config.structure and not config.structure.startswith("block:"):
        # N of M neighbours leave no sparsity in between: all at once, where the others end.
        method = pruning.one_shot(config.target, at=end, scope=config.scope, keep_zeros=bool(masks))
        return Plan(steps_per_epoch, tuple(phases), method, frozenset((end,)))
    period = max(_SHORTEST_PERIOD, (end - begin) // _MASK_UPDATES)
    method = pruning.magnitude(
        pruning.schedules.cubic(first, config.target, begin=begin, end=end),
        update_every=period,
        start=begin,
        stop=end,
        scope=config.scope,
        keep_zeros=bool(masks),
    )
    return Plan(steps_per_epoch, tuple(phases), method, frozenset((begin, end)))


def _sparsity(masks: Mapping[str, np.ndarray]) -> float:
    """Fraction of zeros in all masks together."""
    return 1 - sum(int(mask.sum()) for mask in masks.values()) / sum(mask.size for mask in masks.values())
