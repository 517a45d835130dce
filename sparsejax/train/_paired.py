"""Two runs of the same length, one of them dense: to compare their wall times, or for the demonstration."""

from __future__ import annotations

import dataclasses
import itertools
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flax import nnx

from sparsejax import data, models
from sparsejax._checks import fail
from sparsejax.train._config import MethodName, TrainConfig
from sparsejax.train._loop import TrainRun
from sparsejax.train.log._metrics import read_metrics
from sparsejax.train.log._plot import plot_metrics
from sparsejax.train.log._progress import Quiet, Reporter
from sparsejax.train.results._result import TrainResult
from sparsejax.train.results._step_cost import StepComparison
from sparsejax.train.results._tables import comparison_table, result_table

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
        walks = [run.states(report) for run, report in zip(self.runs, reports or (Quiet(), Quiet()), strict=True)]
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


# Wide enough that convolutions, not overheads, take the time; small enough for two minutes on two cores.
_WIDTHS = (64, 128, 256)
_SPARSITY = 0.9


@dataclass(frozen=True)
class DemoResult:
    """The two runs of the demonstration.

    Attributes:
      dense: the dense network, trained for as many steps as the sparse one.
      sparse: the pruned network.
      comparison: the training step dense against sparse.
      seconds: wall time of it all.
      picture: the curves.
    """

    dense: TrainResult
    sparse: TrainResult
    comparison: StepComparison
    seconds: float
    picture: Path

    def to_dict(self) -> dict[str, Any]:
        """All numbers, for JSON."""
        return {
            "dense": self.dense.to_dict(),
            "sparse": self.sparse.to_dict(),
            "seconds": self.seconds,
            "picture": str(self.picture),
        }

    def __str__(self) -> str:
        """The table of accuracy, time and memory."""
        return comparison_table(self.comparison, (self.dense.accuracy, self.sparse.accuracy))


class Demo:
    """The demonstration: real digits, a small network, 90 % of its weights pruned."""

    def __init__(self, out: str | os.PathLike[str], *, seed: int = 0, epochs: int = 12) -> None:
        """Prepare both runs.

        Args:
          out: folder for both runs and the picture ``demo.png``; what an earlier demonstration left is replaced.
          seed: of the split, the initial weights and the order of the data.
          epochs: passes over the 1,438 training digits, for each network.

        Raises:
          ValueError: too few epochs for the phases, or a negative seed.
          OSError: the folder cannot be made.
          ImportError: scikit-learn, orbax or matplotlib is missing.
        """
        dataset = data.digits(seed=seed)
        self._out = Path(out)
        self._dense, self._sparse = (
            _prepare(method, dataset, seed, epochs, self._out) for method in ("dense", "magnitude")
        )

    def run(self, report: Reporter | None = None) -> DemoResult:
        """Train both networks and compare them.

        Args:
          report: where progress goes; nowhere if None.

        Returns:
          A ``DemoResult``; ``str`` of it is the table.

        Source: gradual magnitude pruning, Zhu & Gupta 2017; digits as in `sparsejax.data.digits`.
        """
        begin = time.perf_counter()
        dense, sparse = self._dense.fit(report), self._sparse.fit(report)
        assert sparse.comparison is not None
        rows = {name: read_metrics(run.dir.metrics) for name, run in (("dense", self._dense), ("sparse", self._sparse))}
        picture = self._out / "demo.png"
        plot_metrics(rows, picture)
        return DemoResult(dense, sparse, sparse.comparison, time.perf_counter() - begin, picture)


def _prepare(method: MethodName, dataset: data.Dataset, seed: int, epochs: int, out: Path) -> TrainRun:
    config = TrainConfig(method=method, sparsity=_SPARSITY, epochs=epochs, seed=seed)
    channels = dataset.image_shape[-1]
    model = models.ConvNet(dataset.num_classes, in_features=channels, widths=_WIDTHS, rngs=nnx.Rngs(seed))
    return TrainRun(config, out / method, dataset=dataset, model=model, resume=False)
