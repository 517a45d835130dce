"""Settings of linear and full fine-tuning, those of the published study by default."""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
from dataclasses import dataclass
from typing import Any, get_args

import jax
import numpy as np
import optax

from sparsejax._checks import fail
from sparsejax.analysis.transfer.runs._batch_norm import BatchNormMode
from sparsejax.data import DOWNSTREAM_DATASETS

# The study lowers the rate after epochs 0 to 50, and 51 to 100, of 150: 51, 50 and 49 epochs.
_STUDY_EPOCHS, _STUDY_DROPS = 150, (51, 101)


@dataclass(frozen=True)
class SGDConfig:
    """SGD with momentum and L2 decay, and a learning rate that falls in steps.

    v <- momentum v + g + weight_decay w;  w <- w - rate v   (biases and batch norm included; no Nesterov, no warm-up)

    Attributes:
      learning_rate: of the first epochs. The study takes 0.01 for linear fine-tuning.
      momentum: in [0, 1).
      weight_decay: 0 or more.
      batch_size: examples per step; the last, smaller batch of an epoch is kept.
      epochs: passes over the training examples.
      drops: epochs done when the rate falls to ``factor`` of what it was; None: 51 and 101 of 150, in proportion.
      factor: of the rate at a drop.
      batch_norm: "train" (batch statistics, running averages move), "frozen" (running averages, which stay; scale and
        shift are trained), or "recalibrated" (frozen after the averages were estimated again on the training images).
        For features of a frozen network, "train" has no meaning.

    Raises:
      ValueError: a value out of range.

    Source: Iofinova et al. 2022, authors' code.

    >>> [float(f"{SGDConfig().rate(epoch):.4g}") for epoch in (0, 50, 51, 100, 101)]
    [0.01, 0.01, 0.001, 0.001, 0.0001]
    """

    learning_rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch_size: int = 64
    epochs: int = _STUDY_EPOCHS
    drops: tuple[int, ...] | None = None
    factor: float = 0.1
    batch_norm: BatchNormMode = "frozen"

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # numbers of NumPy and JAX as plain ones, which JSON needs
            value = getattr(self, field.name)
            if field.name == "drops" and value is not None:
                object.__setattr__(self, "drops", tuple(map(operator.index, value)))
            elif isinstance(value, (np.generic, jax.Array)):
                object.__setattr__(self, field.name, value.item())
        for name in ("epochs", "batch_size"):
            _require(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        _require("learning_rate", self.learning_rate, 0 < self.learning_rate < math.inf, "a number above 0")
        _require("momentum", self.momentum, 0 <= self.momentum < 1, "a fraction, 0 or more and below 1")
        _require("weight_decay", self.weight_decay, 0 <= self.weight_decay < math.inf, "a number, 0 or more")
        _require("factor", self.factor, 0 < self.factor <= 1, "a fraction above 0")
        _require("batch_norm", self.batch_norm, self.batch_norm in get_args(BatchNormMode), f"one of {_MODES}")

    @classmethod
    def linear(cls, **changes: Any) -> SGDConfig:
        """Return the study's settings of linear fine-tuning: rate 0.01, batch norm frozen.

        >>> SGDConfig.linear(epochs=15).drop_epochs
        (5, 10)
        """
        return cls(**changes)

    @classmethod
    def full(cls, dataset: str | None = None, **changes: Any) -> SGDConfig:
        """Return the study's settings of full fine-tuning: batch norm trains; rate 0.001, or 0.01 for two data sets.

        >>> SGDConfig.full("cars").learning_rate, SGDConfig.full().batch_norm
        (0.01, 'train')
        """
        rate = DOWNSTREAM_DATASETS[dataset].learning_rate if dataset in DOWNSTREAM_DATASETS else 0.001
        settings: dict[str, Any] = {"learning_rate": rate, "batch_norm": "train"} | changes
        return cls(**settings)

    @property
    def drop_epochs(self) -> tuple[int, ...]:
        """Epochs done at each drop of the rate."""
        if self.drops is not None:
            return self.drops
        return tuple(round(self.epochs * drop / _STUDY_EPOCHS) for drop in _STUDY_DROPS)

    def rate(self, epoch: int) -> float:
        """Return the learning rate of an epoch, counted from 0."""
        drops = sum(epoch >= drop for drop in self.drop_epochs)
        return self.learning_rate * self.factor**drops if drops else self.learning_rate

    def steps_per_epoch(self, examples: int) -> int:
        """Return the optimizer steps in an epoch."""
        return -(-examples // self.batch_size)

    def optimizer(self, examples: int) -> optax.GradientTransformation:
        """Return the Optax optimizer for a training set of this size; the same object for the same settings."""
        return _optimizer(self, self.steps_per_epoch(examples))


@functools.lru_cache(maxsize=64)
def _optimizer(config: SGDConfig, steps_per_epoch: int) -> optax.GradientTransformation:
    boundaries: dict[int, float] = {}
    for drop in config.drop_epochs:
        boundaries[drop * steps_per_epoch] = boundaries.get(drop * steps_per_epoch, 1.0) * config.factor
    rate = optax.piecewise_constant_schedule(config.learning_rate, boundaries)
    return optax.chain(optax.add_decayed_weights(config.weight_decay), optax.sgd(rate, momentum=config.momentum))


_MODES = ", ".join(map(repr, get_args(BatchNormMode)))


def _require(name: str, value: Any, holds: bool, rule: str) -> None:
    if not holds:
        fail("SGDConfig", name, f"value {value!r}", rule)
