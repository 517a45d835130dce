"""What a run is: the numbers that decide its result."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from sparsejax._checks import fail
from sparsejax.data._augmentation import Crop

MethodName = Literal["magnitude", "acdc", "rigl", "set", "static", "dense"]
Scope = Literal["layer", "erk", "global"]
# Fields that 0.1.0 did not have: where they have their default they are left out of run.json, so that its runs go on.
_ADDED = ("size", "resize", "crop", "flip", "skip_corrupt")


@dataclass(frozen=True)
class TrainConfig:
    """Configuration of a training run; two runs with equal configurations end with the same bits.

    The optimizer is SGD with momentum and L2 weight decay on all parameters: the recipe of the published pruning
    studies on convolutional networks, and one moment per weight where Adam keeps two.

    Attributes:
      data: data set, as ``sparsejax.data.load_task`` takes it; a label where data are passed.
      model: one of ``sparsejax.models.MODEL_NAMES``; a label where a module is passed.
      method: "magnitude" (gradual magnitude pruning, then training of the stored weights alone), "acdc" (dense and
        sparse phases in alternation), "rigl", "set" or "static" (sparse from the first step), or "dense" (no pruning:
        the baseline).
      sparsity: fraction of zeros in the pruned layers at the end, in (0, 1); ignored by "dense".
      scope: how it is shared among them: "layer" (the same in each), "erk" (more zeros in larger layers), or "global"
        (one threshold for all weights; "magnitude" and "acdc" only).
      epochs: passes over the training examples; a last short batch of an epoch is left out.
      batch_size: examples per step.
      learning_rate: highest learning rate; reached after a short warm-up, then cosine to 0 over the whole run.
      momentum: of SGD, in [0, 1).
      weight_decay: L2 coefficient, added to the gradient.
      seed: of initial weights and of the order of the data, at least 0.
      dense_fraction: "magnitude": part of all steps before the first weight is pruned, in [0, 1).
      prune_fraction: "magnitude": part of all steps over which the sparsity rises, in (0, 1); the rest trains the
        sparse network.
      phase_fraction: "acdc": length of a phase as part of all steps, in (0, 0.5]. Published: 0.05 and 0.1.
      update_every: "rigl" and "set": steps between changes of the mask. Published: 100 and an epoch.
      size: pixels of the square crop of picture files; None takes them as they are, which all must have one size.
      resize: pixels that the shorter side of pictures is resized to first; ``size`` if None.
      crop, flip: random changes of training images, see `sparsejax.data.Augmentation`.
      skip_corrupt: leave out pictures that cannot be read.

    Raises:
      ValueError: a value out of range.

    Source: Zhu & Gupta 2017, "To prune, or not to prune"; Peste et al. 2021, "AC/DC"; Evci et al. 2020, "RigL"; Mocanu
    et al. 2018, "SET". SGD with momentum, L2 decay and a cosine schedule after a short warm-up is the recipe of AC/DC
    on ImageNet; the defaults here suit small images, and are not theirs.

    >>> TrainConfig(epochs=2).to_dict()["epochs"]
    2
    """

    data: str = "digits"
    model: str = "convnet"
    method: MethodName = "magnitude"
    sparsity: float = 0.9
    scope: Scope = "layer"
    epochs: int = 10
    batch_size: int = 64
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    seed: int = 0
    dense_fraction: float = 0.15
    prune_fraction: float = 0.35
    phase_fraction: float = 0.1
    update_every: int = 100
    size: int | None = None
    resize: int | None = None
    crop: Crop = "none"
    flip: bool = False
    skip_corrupt: bool = False

    def __post_init__(self) -> None:
        if self.method not in get_args(MethodName):
            _refuse("method", self.method, f"one of {', '.join(get_args(MethodName))}")
        if self.scope not in get_args(Scope):
            _refuse("scope", self.scope, f"one of {', '.join(get_args(Scope))}")
        for name in ("epochs", "batch_size", "update_every"):
            _require(self, name, getattr(self, name) >= 1, "at least 1")
        _require(self, "seed", self.seed >= 0, "at least 0")
        _require(self, "sparsity", 0 < self.sparsity < 1, "a fraction above 0 and below 1")
        _require(self, "learning_rate", 0 < self.learning_rate < math.inf, "a number above 0")
        _require(self, "momentum", 0 <= self.momentum < 1, "a fraction, 0 or more and below 1")
        _require(self, "weight_decay", 0 <= self.weight_decay < math.inf, "a number, 0 or more")
        _require(self, "dense_fraction", 0 <= self.dense_fraction < 1, "a fraction, 0 or more and below 1")
        _require(self, "prune_fraction", 0 < self.prune_fraction < 1, "a fraction above 0 and below 1")
        _require(self, "phase_fraction", 0 < self.phase_fraction <= 0.5, "a fraction above 0 and at most 0.5")
        if self.crop not in get_args(Crop):
            _refuse("crop", self.crop, f"one of {', '.join(get_args(Crop))}")
        for name in ("size", "resize"):
            _require(self, name, (getattr(self, name) or 1) >= 1, "at least 1 pixel")
        if self.size is None and (self.resize is not None or self.crop == "resized"):
            fail("TrainConfig", "size", "no value", "one, for pictures that are resized")
        if self.dense_fraction + self.prune_fraction >= 1:
            got = f"sum {self.dense_fraction + self.prune_fraction:g}"
            rule = "a sum below 1, so that steps remain for the sparse network"
            fail("TrainConfig", "dense_fraction + prune_fraction", got, rule)

    def to_dict(self) -> dict[str, Any]:
        """The fields and their values; fields that 0.1.0 did not have only where they are not the default."""
        values = asdict(self)
        defaults = {field.name: field.default for field in fields(self) if field.name in _ADDED}
        return {name: value for name, value in values.items() if name not in defaults or value != defaults[name]}


def _require(config: TrainConfig, name: str, holds: bool, rule: str) -> None:
    if not holds:
        _refuse(name, getattr(config, name), rule)


def _refuse(name: str, value: Any, rule: str) -> None:
    fail("TrainConfig", name, f"value {value!r}", rule)
