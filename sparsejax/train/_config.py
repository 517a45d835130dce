"""What a run is: the numbers that decide its result."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from sparsejax._checks import fail
from sparsejax.data._augmentation import Crop

MethodName = Literal["magnitude", "acdc", "rigl", "set", "static", "fixed", "dense"]
OptimizerName = Literal["sgd", "adamw"]
ScheduleName = Literal["cosine", "step", "constant"]
Precision = Literal["float32", "bfloat16"]
Scope = Literal["layer", "erk", "global"]
# Fields that 0.1.0 did not have: where they have their default they are left out of run.json, so that its runs go on.
_ADDED = (
    *("size", "resize", "crop", "flip", "skip_corrupt", "optimizer", "schedule", "warmup", "label_smoothing"),
    *("precision", "freeze_backbone", "source", "new_head", "structure", "include", "exclude"),
    "sync_batch_norm",
)


@dataclass(frozen=True)
class TrainConfig:
    """Configuration of a training run; two runs with equal configurations end with the same bits.

    The default optimizer is SGD with momentum and L2 weight decay on all parameters: the recipe of the published
    pruning studies on convolutional networks, and one moment per weight where Adam keeps two.

    Attributes:
      data: data set, as ``sparsejax.data.load_task`` takes it; a label where data are passed.
      model: one of ``sparsejax.models.MODEL_NAMES``; a label where a module is passed. Where
        ``source`` is the folder of a run, its network is trained, whatever the name here.
      method: "magnitude" (gradual magnitude pruning, then training of the stored weights alone), "acdc" (dense and
        sparse phases in alternation), "rigl", "set" or "static" (sparse from the first step), "fixed" (fine-tuning: the
        mask of the network that is trained stays), or "dense" (no pruning: the baseline).
      sparsity: fraction of zeros in the pruned layers at the end, in (0, 1); ignored by "fixed" and "dense", and with a
        structure N:M.
      scope: how it is shared among them: "layer" (the same in each), "erk" (more zeros in larger layers), or "global"
        (one threshold for all weights; "magnitude" and "acdc" only).
      epochs: passes over the training examples; a last short batch of an epoch is left out.
      batch_size: examples per step.
      learning_rate: highest learning rate; reached after the warm-up.
      momentum: of SGD, in [0, 1).
      weight_decay: L2 coefficient, added to the gradient; with "adamw" decoupled from it. None is 1e-4; with "acdc" it
        is chosen by the steps of a phase, so that weights are forgotten within a phase, see `decay`.
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
      optimizer: "sgd" or "adamw".
      schedule: of the learning rate after the warm-up: "cosine" to 0, "step" (a tenth after each third of the run), or
        "constant".
      warmup: part of all steps over which the learning rate rises, in [0, 1).
      label_smoothing: part of the target that is spread over all classes, in [0, 1).
      precision: of forward and backward passes; weights, optimizer state and batch statistics are float32 in any case.
      freeze_backbone: train the classifier alone, on the network in inference mode; "fixed" and "dense" only.
      source: what the network is loaded from, a PyTorch file or the folder of a run; "" starts from random weights. A
        label where a module is passed.
      new_head: replace a classifier whose classes are not those of the data.
      structure: "" (single weights), "N:M" such as "2:4" (N of M neighbouring inputs; its sparsity is 1 - N/M), or
        "block:ROWSxCOLUMNS" such as "block:4x1" (inputs x outputs). Methods that choose masks only.
      include, exclude: globs of layer paths, separated by commas, such as "layer4/*": which layers are pruned.
        Without ``include`` all but those that read images or write logits.
      sync_batch_norm: on several processes, use batch statistics of the whole batch; otherwise each device uses those
        of its rows, and running statistics are the means over devices.

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
    weight_decay: float | None = None
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
    optimizer: OptimizerName = "sgd"
    schedule: ScheduleName = "cosine"
    warmup: float = 0.05
    label_smoothing: float = 0.0
    precision: Precision = "float32"
    freeze_backbone: bool = False
    source: str = ""
    new_head: bool = False
    structure: str = ""
    include: str = ""
    exclude: str = ""
    sync_batch_norm: bool = False

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            _require(self, name, getattr(self, name) in get_args(choices), f"one of {', '.join(get_args(choices))}")
        for name in ("epochs", "batch_size", "update_every"):
            _require(self, name, getattr(self, name) >= 1, "at least 1")
        _require(self, "seed", self.seed >= 0, "at least 0")
        _require(self, "sparsity", 0 < self.sparsity < 1, "a fraction above 0 and below 1")
        _require(self, "learning_rate", 0 < self.learning_rate < math.inf, "a number above 0")
        _require(self, "weight_decay", 0 <= (self.weight_decay or 0) < math.inf, "a number, 0 or more")
        for name in ("momentum", "dense_fraction", "warmup", "label_smoothing"):
            _require(self, name, 0 <= getattr(self, name) < 1, "a fraction, 0 or more and below 1")
        _require(self, "prune_fraction", 0 < self.prune_fraction < 1, "a fraction above 0 and below 1")
        _require(self, "phase_fraction", 0 < self.phase_fraction <= 0.5, "a fraction above 0 and at most 0.5")
        for name in ("size", "resize"):
            _require(self, name, (getattr(self, name) or 1) >= 1, "at least 1 pixel")
        rule = "'', 'N:M' with N below M, or 'block:ROWSxCOLUMNS'"
        is_known = not self.structure or (bool(_STRUCTURE.fullmatch(self.structure)) and self.target > 0)
        _require(self, "structure", is_known, rule)
        self._check_together()

    def _check_together(self) -> None:
        """Refuse values that do not go together."""
        if self.size is None and (self.resize is not None or self.crop == "resized"):
            fail("TrainConfig", "size", "no value", "one, for pictures that are resized")
        if self.dense_fraction + self.prune_fraction >= 1:
            got = f"sum {self.dense_fraction + self.prune_fraction:g}"
            rule = "a sum below 1, so that steps remain for the sparse network"
            fail("TrainConfig", "dense_fraction + prune_fraction", got, rule)
        keeps_masks = self.method in ("fixed", "dense")
        if self.freeze_backbone and not keeps_masks:
            _refuse("freeze_backbone", True, f"false with method {self.method!r}, which changes the backbone")
        if self.structure and keeps_masks:
            _refuse("structure", self.structure, f"'' with method {self.method!r}, which chooses no masks")

    @property
    def target(self) -> float:
        """Fraction of zeros at the end: 1 - N/M with a structure N:M, else ``sparsity``.

        >>> TrainConfig(structure="1:4").target
        0.75
        """
        n, _, m = self.structure.partition(":")
        return 1 - int(n) / int(m) if n.isdecimal() else self.sparsity

    def decay(self, total: int) -> float:
        """Return the weight decay of a run of so many steps.

        Where "acdc" has none given: (1 - momentum) / (learning_rate * steps of a phase) * 1, so that a phase lasts the
        time tau = (1 - momentum) / (learning_rate * weight_decay) in which SGD forgets its weights; AdamW, whose decay
        is decoupled, has no momentum in it. With much less decay than that, weights that come back stay too small to be
        kept, and the masks stop moving.

        >>> round(TrainConfig(method="acdc", phase_fraction=0.1).decay(1000), 4), TrainConfig().decay(1000)
        (0.01, 0.0001)
        """
        if self.weight_decay is not None:
            return self.weight_decay
        if self.method != "acdc":
            return _DECAY
        momentum = self.momentum if self.optimizer == "sgd" else 0.0
        return (1 - momentum) / (self.learning_rate * max(1, round(self.phase_fraction * total)))

    def to_dict(self) -> dict[str, Any]:
        """The fields and their values; fields that 0.1.0 did not have only where they are not the default."""
        values = asdict(self)
        if self.weight_decay is None and self.method != "acdc":
            values["weight_decay"] = _DECAY
        defaults = {field.name: field.default for field in fields(self) if field.name in _ADDED}
        return {name: value for name, value in values.items() if name not in defaults or value != defaults[name]}


_CHOICES: dict[str, Any] = {
    "method": MethodName,
    "scope": Scope,
    "crop": Crop,
    "optimizer": OptimizerName,
    "schedule": ScheduleName,
    "precision": Precision,
}
_DECAY = 1e-4
_STRUCTURE = re.compile(r"[1-9][0-9]?:[1-9][0-9]?|block:[1-9][0-9]?x[1-9][0-9]?")


def _require(config: TrainConfig, name: str, holds: bool, rule: str) -> None:
    if not holds:
        _refuse(name, getattr(config, name), rule)


def _refuse(name: str, value: Any, rule: str) -> None:
    fail("TrainConfig", name, f"value {value!r}", rule)
