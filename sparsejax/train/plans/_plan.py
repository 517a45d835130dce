"""The phases of a run, and how each keeps its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from sparsejax import pruning


class TrainPhase(NamedTuple):
    """Steps ``start`` to ``stop - 1`` of a run, all of one kind.

    Attributes:
      name: "dense", no mask is in force; "prune", dense weights under masks that grow sparser; "sparse", the sparse
        kernels train the stored weights alone, parameters and optimizer state hold nothing else; "update", a single
        step with dense weights under the mask in force, after which the mask is another one; "fixed", a mask that
        never changes, each layer in the form that was chosen before the run.
      start, stop: steps.
    """

    name: Literal["dense", "prune", "sparse", "update", "fixed"]
    start: int
    stop: int


@dataclass(frozen=True)
class Plan:
    """The steps of a run; the phase depends on the step alone, so a resumed run finds it again.

    Attributes:
      steps_per_epoch: full batches in the training examples.
      phases: in order, without gaps.
      method: what chooses the masks; None for a dense run.
      tests: numbers of steps done after which the network is tested, in addition to the end of every epoch.
      remark: what else a user should know before the run, or "".
      fork: number of steps done after which the dense partner goes its own way; None without one.
    """

    steps_per_epoch: int
    phases: tuple[TrainPhase, ...]
    method: pruning.Method | None = None
    tests: frozenset[int] = frozenset()
    remark: str = ""
    fork: int | None = None

    @property
    def total(self) -> int:
        """Steps of the run."""
        return self.phases[-1].stop

    def phase(self, step: int) -> TrainPhase:
        """TrainPhase of the step with this index, from 0.

        >>> Plan(4, (TrainPhase("dense", 0, 4), TrainPhase("sparse", 4, 8))).phase(4).name
        'sparse'
        """
        return next(phase for phase in self.phases if step < phase.stop)

    def is_stored(self, step: int) -> bool:
        """Whether the step with this index runs on stored weights."""
        return self.phase(step).name == "sparse"

    def tests_after(self, done: int) -> bool:
        """Whether the network is tested, and its operations are counted, when ``done`` steps are done."""
        return done % self.steps_per_epoch == 0 or done in self.tests
