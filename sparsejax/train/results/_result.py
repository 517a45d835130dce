"""How a run ended: accuracy, and what it cost in time, operations and memory."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flax import nnx

from sparsejax.train.log._metrics import PhaseTime
from sparsejax.train.results._step_cost import StepComparison


@dataclass(frozen=True)
class TrainResult:
    """How a run ended.

    Attributes:
      model: the trained module: dense after "dense", with sparse layers after all other methods.
      accuracy: fraction of test examples classified correctly; None without test examples.
      sparsity: fraction of zeros among the prunable weights.
      step: steps done.
      phases: wall time by kind of phase.
      training_flops: operations of training by the rules of the AC/DC authors: three forward passes per example, each
        of the weights that are not zero.
      dense_training_flops: the same for as many steps without zeros.
      bytes: parameters, optimizer state (masks included) and patterns of the model as it is.
      comparison: the training step dense against sparse; None for method "dense".
      out: folder of the run.
      partner: the dense network of the last dense phase, trained dense to the end; method "acdc" only.
    """

    model: nnx.Module
    accuracy: float | None
    sparsity: float
    step: int
    phases: dict[str, PhaseTime]
    training_flops: float
    dense_training_flops: float
    bytes: dict[str, int]
    comparison: StepComparison | None
    out: Path
    partner: TrainResult | None = None

    @property
    def seconds(self) -> float:
        """Wall time of all steps, with changes of storage and compilation; testing and checkpoints do not count."""
        return sum(time.seconds for time in self.phases.values())

    @property
    def steady_seconds(self) -> float:
        """Steps times the median of their phase: the wall time without compilation and without slow spells."""
        return sum(time.steps * time.median_ms for time in self.phases.values()) / 1e3

    def to_dict(self) -> dict[str, Any]:
        """All numbers, for JSON."""
        return {
            "accuracy": self.accuracy,
            "sparsity": self.sparsity,
            "step": self.step,
            "seconds": self.seconds,
            "steady_seconds": self.steady_seconds,
            "phases": {name: asdict(time) for name, time in self.phases.items()},
            "training_flops": self.training_flops,
            "dense_training_flops": self.dense_training_flops,
            "bytes": self.bytes,
            "comparison": None if self.comparison is None else self.comparison.to_dict(),
            "out": str(self.out),
            "partner": None if self.partner is None else self.partner.to_dict(),
        }
