"""The methods of a training run, in one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from sparsejax._checks import fail
from sparsejax.train._config import MethodName, TrainConfig
from sparsejax.train.plans._alternating import alternating
from sparsejax.train.plans._dynamic import evolving, static
from sparsejax.train.plans._gradual import gradual
from sparsejax.train.plans._plan import Plan, TrainPhase

_Masks = Mapping[str, np.ndarray]


def _dense(config: TrainConfig, steps_per_epoch: int, masks: _Masks) -> Plan:
    return Plan(steps_per_epoch, (TrainPhase("dense", 0, steps_per_epoch * config.epochs),))


def _fixed(config: TrainConfig, steps_per_epoch: int, masks: _Masks) -> Plan:
    return Plan(steps_per_epoch, (TrainPhase("fixed", 0, steps_per_epoch * config.epochs),))


METHODS: dict[MethodName, Callable[[TrainConfig, int, _Masks], Plan]] = {
    "dense": _dense,  #        dense
    "magnitude": gradual,  #   dense, prune, sparse
    "fixed": _fixed,  #        fixed
    "acdc": alternating,  #    dense, (sparse, update, dense) ..., sparse
    "static": static,  #       sparse
    "set": evolving,  #        (sparse, update) ..., sparse
    "rigl": evolving,  #       (sparse, update) ..., sparse
}
"""Plan of each method. Those that keep dense weights all the time (STR, movement, Top-KAST, straight-through, SNFS)
gain nothing here; they are in ``sparsejax.pruning``, for your own training loop."""


def make_plan(config: TrainConfig, examples: int, masks: _Masks | None = None) -> Plan:
    """Plan of a configuration on a number of training examples.

    Args:
      config: the run.
      examples: training examples.
      masks: bool arrays by layer path, of the network that the run starts from; None or empty for a dense one.
        "magnitude" goes on from its sparsity, without bringing back a weight; "rigl", "set" and "static" start from
        the masks, and keep the number of weights of each layer.

    Raises:
      ValueError: a batch does not fit, there are too few steps for the phases, or the network is already as sparse as
        it is to become.

    >>> make_plan(TrainConfig(method="dense", epochs=2, batch_size=10), 100).phases
    (TrainPhase(name='dense', start=0, stop=20),)
    """
    steps = examples // config.batch_size
    if steps == 0:
        fail("train", "batch_size", f"value {config.batch_size}", f"at most {examples}, the training examples")
    return METHODS[config.method](config, steps, masks or {})
