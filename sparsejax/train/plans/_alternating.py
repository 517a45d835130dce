"""AC/DC: dense phases with dense weights, sparse phases on the sparse kernels."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np

from sparsejax import pruning
from sparsejax._checks import fail
from sparsejax.train._config import TrainConfig
from sparsejax.train.plans._plan import Plan, TrainPhase

# The last dense and the final sparse phase as parts of the run: those of all published lists of 100 and 200 epochs.
_LAST_DENSE = 0.10
_FINAL_SPARSE = 0.15


def alternating(config: TrainConfig, steps_per_epoch: int, masks: Mapping[str, np.ndarray] | None = None) -> Plan:
    """Plan of method "acdc": a dense warm-up, then sparse and dense phases of equal length, at the end longer ones.

    With ``phase_fraction`` 0.05 the list is that of the authors for ImageNet (100 epochs: warm-up 10, phases of 5,
    last dense phase 10, final sparse phase 15), with 0.1 theirs for CIFAR-100 (200 epochs: 10, 20, 20, 30). The warm-up
    takes what whole phases leave, at least half a phase.

    The last step of a sparse phase is an "update": all weights are there again, still zero, and the next step may
    train them.

    Masks of the network that the run starts from have no say: the first phase trains all weights.

    Raises:
      ValueError: there are too few steps for the phases.

    Source: Peste et al. 2021, "AC/DC", section 5 and the authors' configurations.

    >>> plan = alternating(TrainConfig(method="acdc", epochs=100, phase_fraction=0.05, weight_decay=5e-4), 2)
    >>> [(phase.name, phase.start, phase.stop) for phase in plan.phases[:4]]
    [('dense', 0, 20), ('sparse', 20, 29), ('update', 29, 30), ('dense', 30, 40)]
    """
    total = steps_per_epoch * config.epochs
    length = max(1, round(config.phase_fraction * total))
    last, final = round(_LAST_DENSE * total), round(_FINAL_SPARSE * total)
    stop = total - last - final
    count = (2 * stop + length) // (4 * length)  # sparse phases before the last dense one
    warmup = stop - (2 * count - 1) * length
    if length < 2 or last < 1 or count < 1:
        got = f"{total} steps in all, {length} in a phase"
        fail("train", "epochs", got, "two steps or more in each phase", "Train longer, or with longer phases.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pruning.ShortPhasesWarning)  # the remark says it
        listed = pruning.acdc_phases(
            total=total,
            warmup=warmup,
            sparse=length,
            dense=length,
            last_dense=last,
            final_sparse=final,
            learning_rate=config.learning_rate,
            momentum=config.momentum if config.optimizer == "sgd" else 0.0,
            weight_decay=config.decay(total),
        )
    phases: list[TrainPhase] = []
    for kind, start, end in listed:
        if kind == "sparse" and end < total:
            phases += [TrainPhase("sparse", start, end - 1), TrainPhase("update", end - 1, end)]
        else:
            phases.append(TrainPhase(kind, start, end))
    # The last step of a dense phase compresses: one step earlier the network is still dense.
    tests = {phase.stop for phase in listed} | {phase.stop - 1 for phase in listed if phase.kind == "dense"}
    method = pruning.acdc(config.target, listed, scope=config.scope)
    fork = listed.last_dense.stop - 1
    return Plan(steps_per_epoch, tuple(phases), method, frozenset(tests), _remark(listed.decay_ratio), fork)


def _remark(ratio: float | None) -> str:
    if ratio is None or ratio >= 0.5:
        return ""
    return (
        f"A phase lasts {ratio:.2g} of the time in which SGD forgets its weights (published runs: 1.6 to 3.9). Weights "
        "that come back may stay too small to be kept: see the mask change; longer runs or more weight decay help."
    )
