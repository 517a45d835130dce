"""Which phase a step belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sparsejax import pruning
from sparsejax._checks import fail
from sparsejax.train._config import TrainConfig

Phase = Literal["dense", "prune", "sparse"]

# Masks chosen while the sparsity rises, and the fewest steps between two: often enough to be gradual, seldom enough
# that weights recover and that choosing (many passes over all prunable weights) costs little.
_MASK_UPDATES = 25
_SHORTEST_PERIOD = 4


@dataclass(frozen=True)
class Plan:
    """The steps of a run; the phase depends on the step alone, so a resumed run finds it again.

    Attributes:
      steps_per_epoch: full batches in the training examples.
      total: steps of the run.
      prune_from: first step of phase "prune"; ``total`` for a dense run.
      sparse_from: first step of phase "sparse"; ``total`` for a dense run.
    """

    steps_per_epoch: int
    total: int
    prune_from: int
    sparse_from: int

    @classmethod
    def of(cls, config: TrainConfig, examples: int) -> Plan:
        """Plan of a configuration on a number of training examples.

        Raises:
          ValueError: a batch does not fit, or there are too few steps for three phases.

        >>> Plan.of(TrainConfig(epochs=2, batch_size=10, dense_fraction=0.2, prune_fraction=0.5), 100)
        Plan(steps_per_epoch=10, total=20, prune_from=4, sparse_from=14)
        """
        steps = examples // config.batch_size
        if steps == 0:
            fail(
                "train",
                "batch_size",
                f"value {config.batch_size}",
                f"at most {examples}, the training examples",
            )
        total = steps * config.epochs
        if config.method == "dense":
            return cls(steps, total, total, total)
        prune_from = round(total * config.dense_fraction)
        sparse_from = max(prune_from + 1, round(total * (config.dense_fraction + config.prune_fraction)))
        if sparse_from >= total:
            fail("train", "epochs", f"{total} steps in all", "enough steps for three phases", "Train longer.")
        return cls(steps, total, prune_from, sparse_from)

    @property
    def prunes(self) -> bool:
        """Whether the run has phases "prune" and "sparse"."""
        return self.sparse_from < self.total

    def phase(self, step: int) -> Phase:
        """Phase of the step with this index, from 0."""
        if step < self.prune_from:
            return "dense"
        return "prune" if step < self.sparse_from else "sparse"

    def evaluates_after(self, done: int) -> bool:
        """Whether the network is tested when ``done`` steps are done: after each epoch and each phase."""
        return done % self.steps_per_epoch == 0 or done in (self.prune_from, self.sparse_from, self.total)

    def method(self, sparsity: float) -> pruning.Method:
        """Gradual magnitude pruning over phase "prune", the same sparsity in each layer."""
        schedule = pruning.schedules.cubic(0.0, sparsity, begin=self.prune_from, end=self.sparse_from)
        period = max(_SHORTEST_PERIOD, (self.sparse_from - self.prune_from) // _MASK_UPDATES)
        gate = pruning.every(period, self.prune_from, self.sparse_from)
        return pruning.magnitude(schedule, refresh=gate, scope="layer")
