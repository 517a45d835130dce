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
from sparsejax.train.log._metrics import MetricsRow, read_metrics
from sparsejax.train.log._plot import plot_metrics
from sparsejax.train.log._progress import Quiet, Reporter
from sparsejax.train.results._ratios import ratio_text
from sparsejax.train.results._result import TrainResult
from sparsejax.train.results._tables import result_table

# Most steps of one run before the other continues: a slow spell of the machine that is longer affects both. Short runs
# change over more often, so that there are rounds to compare.
_SLICE = 10
_ROUNDS = 12


@dataclass(frozen=True)
class AgainstDense:
    """The result of a run, and that of dense training of the same length.

    Attributes:
      dense, sparse: the results.
      step_ratios: time of the dense steps divided by that of the others, for each round of up to ten steps of each.
        Rounds in which a program ran for the first time, or the phase changed, are left out.
      run_ratios: the same with the time that steps waited for data.
    """

    dense: TrainResult
    sparse: TrainResult
    step_ratios: tuple[float, ...] = ()
    run_ratios: tuple[float, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """All numbers, for JSON."""
        ratios = {"step_ratios": list(self.step_ratios), "run_ratios": list(self.run_ratios)}
        return {"dense": self.dense.to_dict(), "sparse": self.sparse.to_dict(), **ratios}

    def __str__(self) -> str:
        """The table of accuracy, time, operations and memory."""
        lines = [result_table(self.sparse, self.dense), ""]
        lines += [f"steps alone: {ratio_text(self.step_ratios)}"]
        lines += [f"with waiting for data: {ratio_text(self.run_ratios)}"]
        return "\n".join(lines)


class DensePair:
    """A run and dense training of the same length; both configurations have been checked."""

    def __init__(self, config: TrainConfig, out: str | os.PathLike[str], **options: Any) -> None:
        """Prepare both.

        Args:
          config: the run; the dense one differs in the method, and has no masks.
          out: its folder; the dense one's is ``dense`` in it.
          **options: as for `TrainRun`.

        Raises:
          ValueError: a bad configuration, or method "dense", which would be compared with itself.
          OSError: data or folders cannot be read or made.
          ImportError: a package is missing.
        """
        if config.method == "dense":
            fail("train", "method", "value 'dense'", "another method to compare with dense training")
        dense = dataclasses.replace(config, method="dense", structure="", include="", exclude="")
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
            size = max(1, min(_SLICE, self.runs[0].plan.total // _ROUNDS))
            going = True
            while going:
                going = False
                for i, walk in enumerate(walks):
                    for state in itertools.islice(walk, size):
                        last[i], going = state, True
            dense, sparse = (run.finish(state) for run, state in zip(self.runs, last, strict=True))
        rows = {run.config.method: read_metrics(run.dir.metrics) for run in self.runs}
        plot_metrics(rows, self.runs[1].dir.plot)
        of_dense, of_sparse = (rows[run.config.method] for run in self.runs)
        ratios = _ratios(of_dense, of_sparse, size)
        return AgainstDense(dense, sparse, *ratios)


def _ratios(
    dense: Sequence[MetricsRow], sparse: Sequence[MetricsRow], size: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Dense over sparse time of each round, of the steps and with waiting for data."""
    steps: list[float] = []
    runs: list[float] = []
    for start in range(0, len(sparse) - size + 1, size):
        pair = dense[start : start + size], sparse[start : start + size]
        if start == 0 or len({row.phase for row in sparse[start - 1 : start + size]}) > 1:
            continue  # compilation, or a change of storage
        ms = [sum(row.ms for row in rows) for rows in pair]
        all_ms = [sum(row.ms + row.data_ms for row in rows) for rows in pair]
        steps.append(ms[0] / ms[1])
        runs.append(all_ms[0] / all_ms[1])
    return tuple(steps), tuple(runs)
