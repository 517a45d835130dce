"""What the project promises for speed and memory, row by row, and whether a measurement keeps it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from sparsejax._table import text_table


@dataclasses.dataclass(frozen=True)
class Target:
    """One promise: ``must`` is the condition, ``aim`` the wish; ``unit`` is "x", "%" or "us"."""

    measure: str
    must: float
    aim: float
    unit: str = "x"
    smaller_is_better: bool = False


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A target, what was measured (None: nothing), and over what."""

    measure: str
    must: float
    aim: float
    unit: str
    measured: float | None
    verdict: str
    over: str


TARGETS = {
    "dense 90": Target("forward + both gradients against the fastest dense at 90 %, geometric mean", 3, 7),
    "dense 95": Target("forward + both gradients against the fastest dense at 95 %, geometric mean", 5, 12),
    "alone 90": Target(
        "a layer alone, row-major, speed relative to between sparse layers at 90 %, geometric mean", 0.93, 1.1
    ),
    "alone 95": Target("the same at 95 %", 0.93, 1.1),
    "alone dense 90": Target(
        "a layer alone against the fastest dense at 90 %, forward + both gradients, geometric mean", 4.4, 6
    ),
    "alone dense 95": Target("the same at 95 %", 7.5, 11),
    "alone slowest": Target("the slowest layer alone at 90 % against the fastest dense", 2, 3),
    "sparseprop": Target("forward + both gradients against SparseProp, geometric mean", 2.5, 6),
    "sparseprop worst": Target("the same, slowest layer", 1, 1),
    "mkl": Target("forward against MKL sparse, linear, geometric mean", 1, 2),
    "deepsparse": Target("forward against DeepSparse, geometric mean", 1, 2),
    "conv flops": Target("FLOP rate on the nonzeros, cached convolutions at 90 %, of FMA peak", 35, 55, "%"),
    "linear flops": Target("FLOP rate on the nonzeros, cached linear layers at 90 %, of FMA peak", 25, 45, "%"),
    "untuned xla": Target("untuned shapes, forward + both gradients against XLA dense, slowest layer", 1, 1),
    "untuned xla forward": Target("untuned shapes, forward against XLA dense, slowest layer", 1, 1),
    "untuned sparseprop": Target("untuned shapes, forward + both gradients against SparseProp, slowest layer", 1, 1),
    "bfloat16 forward 90": Target("ours in bfloat16 against ours in float32 at 90 %, forward, geometric mean", 1.5, 2),
    "bfloat16 forward 95": Target("the same at 95 %", 1.5, 2),
    "bfloat16 step 90": Target("the same at 90 %, forward + both gradients", 1.35, 1.8),
    "bfloat16 step 95": Target("the same at 95 %", 1.35, 1.8),
    "bfloat16 dense 90": Target(
        "ours in bfloat16 against PyTorch bfloat16 dense at 90 %, forward + both gradients, geometric mean", 3, 5
    ),
    "bfloat16 dense 95": Target("the same at 95 %", 5, 9),
    "crossover": Target(
        "sparsity at which a layer breaks even with oneDNN dense, geometric mean of densities", 75, 50, "%", True
    ),
    "resnet18 float32 xla 95": Target("ResNet-18 training step at 95 % against JAX dense", 4, 8),
    "resnet18 float32 torch 95": Target("ResNet-18 training step at 95 % against PyTorch dense", 2, 4),
    "resnet18 float32 sparseprop 95": Target("ResNet-18 training step at 95 % against SparseProp", 1.5, 3),
    "resnet18 bfloat16 torch_bfloat16 95": Target(
        "ResNet-18 training step in bfloat16 at 95 % against PyTorch bfloat16 channels-last", 4, 6
    ),
    "vit-small float32 torch 90": Target("vit-small training step at 90 % against PyTorch dense", 3.2, 5),
    "vit-small float32 torch 95": Target("vit-small training step at 95 % against PyTorch dense", 3.8, 7),
    "transformer-768 float32 torch 90": Target("transformer-768 training step at 90 % against PyTorch dense", 3.8, 5.5),
    "transformer-768 float32 torch 95": Target("transformer-768 training step at 95 % against PyTorch dense", 5.5, 8),
    "transformer-768 bfloat16 torch_bfloat16 95": Target(
        "transformer-768 training step in bfloat16 at 95 % against PyTorch bfloat16", 3.5, 6
    ),
    "nothing set": Target("a training step with nothing set, speed relative to the best setting", 0.97, 1),
    "configured": Target("the same after one call of sx.configure()", 0.97, 1),
    "attention": Target("attention, forward + gradients against JAX, slowest shape", 1.5, 2.5),
    "blocks": Target(
        "blocks of 4 outputs against scattered weights, equal weights, forward + both gradients", 1.3, 1.6
    ),
    "small mkl": Target("forward at batch 1 against MKL sparse, 4096 -> 4096 and 768 -> 3072", 1.05, 1.5),
    "small batches": Target("batch 4 against batch 1, smallest ratio of their times", 1, 1),
    "small bandwidth": Target(
        "values and indices read at batch 1, 4096 -> 4096, of the rate of reading as many bytes", 75, 95, "%"
    ),
    "memory": Target("parameters + optimizer state at 95 % against dense", 20, 12, "%", True),
    "scaling": Target("two threads against one, layers above 1 ms, geometric mean", 1.7, 1.9),
    "overhead": Target("overhead of one call of a tiny layer", 30, 10, "us", True),
}


def outcome(key: str, measured: float | None, over: str) -> Outcome:
    """Judge a measurement.

    Args:
      key: of `TARGETS`.
      measured: in the target's unit; None if nothing was measured.
      over: what it was measured over, in words.

    >>> outcome("overhead", 12.0, "2 layers").verdict
    'met'
    """
    target = TARGETS[key]

    def reaches(bound: float) -> bool:
        assert measured is not None
        return measured <= bound if target.smaller_is_better else measured >= bound

    if measured is None:
        verdict = "not measured"
    else:
        verdict = "aim met" if reaches(target.aim) else "met" if reaches(target.must) else "NOT MET"
    if measured is not None and target.aim == target.must and verdict == "aim met":
        verdict = "met"
    return Outcome(target.measure, target.must, target.aim, target.unit, measured, verdict, over)


def outcome_table(outcomes: Sequence[Outcome]) -> str:
    """Aligned text."""
    rows = [
        (
            o.measure,
            f"{o.must:g} {o.unit}",
            f"{o.aim:g} {o.unit}",
            "-" if o.measured is None else f"{o.measured:.3g} {o.unit}",
            o.verdict,
            o.over,
        )
        for o in outcomes
    ]
    return text_table(("measure", "must", "aim", "measured", "", "over"), rows)
