"""A run and a dense one of the same length, alternating, so that their wall times can be compared."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsejax._checks import fail
from sparsejax.train._config import TrainConfig
from sparsejax.train._loop import TrainRun
from sparsejax.train.log._metrics import read_metrics
from sparsejax.train.log._plot import plot_metrics
from sparsejax.train.log._progress import Quiet, Reporter
from sparsejax.train.results._result import TrainResult
from sparsejax.train.results._tables import result_table

# Steps of one run before the other continues: a slow spell of the machine that is longer affects both.
_SLICE = 10


@dataclass(frozen=True)
class AgainstDense:
    """The result of a run, and that of dense training of the same length."""

    dense: TrainResult
    sparse: TrainResult

    def to_dict(self) -> dict[str, Any]:
        """All numbers, for JSON."""
        return {"dense": self.dense.to_dict(), "sparse": self.sparse.to_dict()}

    def __str__(self) -> str:
        """The table of accuracy, time, operations and memory."""
        return result_table(self.sparse, self.dense)


class DensePair:
    """A run and dense training of the same length; both configurations have been checked."""

    def __init__(self, config: TrainConfig, out: str | os.PathLike[str], **options: Any) -> None:
        """Prepare both.

        Args:
          config: the run; the dense one differs in the method only.
          out: its folder; the dense one's is ``dense`` in it.
          **options: as for `TrainRun`.

        Raises:
          ValueError: a bad configuration, or method "dense", which would be compared with itself.
          OSError: data or folders cannot be read or made.
          ImportError: a package is missing.
        """
        if config.method == "dense":
            fail("train", "method", "value 'dense'", "another method to compare with dense training")
        dense = dataclasses.replace(config, method="dense")
        self.runs = (TrainRun(dense, Path(out) / "dense", **options), TrainRun(config, out, **options))

    def fit(self, reports: Sequence[Reporter] | None = None) -> AgainstDense:
        """Train both to the end in one process, alternating every ten steps.

        Args:
          reports: where progress goes, for the dense run and the other; nowhere if None.

        Source: timed alternately, as in every timing of this project: a slow spell of the machine affects both.
        """
        with contextlib.ExitStack() as stack:
            for run in self.runs:
                stack.enter_context(run.writing())
            pairs = zip(self.runs, reports or (Quiet(), Quiet()), strict=True)
            walks = [stack.enter_context(contextlib.closing(run.states(report))) for run, report in pairs]
            last = [next(walk) for walk in walks]
            going = True
            while going:
                going = False
                for i, walk in enumerate(walks):
                    for state in itertools.islice(walk, _SLICE):
                        last[i], going = state, True
            dense, sparse = (run.finish(state) for run, state in zip(self.runs, last, strict=True))
        rows = {run.config.method: read_metrics(run.dir.metrics) for run in self.runs}
        plot_metrics(rows, self.runs[1].dir.plot)
        return AgainstDense(dense, sparse)
