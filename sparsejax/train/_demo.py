"""The command ``sparsejax demo``: real digits, a small network, 90 % of its weights pruned, and what that changes."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flax import nnx

from sparsejax import data, models
from sparsejax._folder_lock import folder_lock
from sparsejax.train._config import MethodName, TrainConfig
from sparsejax.train._loop import TrainRun
from sparsejax.train.log._metrics import read_metrics
from sparsejax.train.log._plot import plot_metrics
from sparsejax.train.log._progress import Reporter, reporter
from sparsejax.train.results._result import TrainResult
from sparsejax.train.results._step_cost import StepComparison
from sparsejax.train.results._tables import comparison_table

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
      picture: the curves; None without matplotlib.
    """

    dense: TrainResult
    sparse: TrainResult
    comparison: StepComparison
    seconds: float
    picture: Path | None

    def to_dict(self) -> dict[str, Any]:
        """All numbers, for JSON."""
        return {
            "dense": self.dense.to_dict(),
            "sparse": self.sparse.to_dict(),
            "seconds": self.seconds,
            "picture": None if self.picture is None else str(self.picture),
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
          ImportError: scikit-learn, orbax-checkpoint or filelock is missing.
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
        with folder_lock(self._out, "demo"):
            dense, sparse = self._dense.fit(report), self._sparse.fit(report)
            assert sparse.comparison is not None
            runs = ("dense", self._dense), ("sparse", self._sparse)
            picture = self._out / "demo.png"
            drawn = plot_metrics({name: read_metrics(run.dir.metrics) for name, run in runs}, picture)
        return DemoResult(dense, sparse, sparse.comparison, time.perf_counter() - begin, picture if drawn else None)


def _prepare(method: MethodName, dataset: data.Dataset, seed: int, epochs: int, out: Path) -> TrainRun:
    config = TrainConfig(method=method, sparsity=_SPARSITY, epochs=epochs, seed=seed)
    channels = dataset.image_shape[-1]
    model = models.ConvNet(dataset.num_classes, in_features=channels, widths=_WIDTHS, rngs=nnx.Rngs(seed))
    return TrainRun(config, out / method, dataset=dataset, model=model, resume=False)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument("--out", type=Path, default=Path("sparsejax-demo"), help="folder for runs and picture")
    parser.add_argument("--seed", type=int, default=0, help="of split, initial weights and order of the data")
    parser.add_argument("--epochs", type=int, default=12, help="passes over the data, for each network")


def run(arguments: argparse.Namespace, refused: Callable[[BaseException], int]) -> int:
    """Run the command; ``refused`` reports an error of the user."""
    try:
        demo = Demo(arguments.out, seed=arguments.seed, epochs=arguments.epochs)
        result = demo.run(reporter(quiet=arguments.json))
    except (ValueError, OSError, ImportError) as error:
        return refused(error)
    if arguments.json:
        print(json.dumps(result.to_dict()))
    else:
        where = f"; curves in {result.picture}" if result.picture else ""
        print(f"{result}\n\n{result.seconds:.0f} s in all{where}")
    return 0
