"""The demonstration: real digits, a small network, 90 % of its weights gone, and what that buys."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flax import nnx

from sparsejax import data, models
from sparsejax.train._compare import StepComparison
from sparsejax.train._config import Method, TrainConfig
from sparsejax.train._loop import Run, TrainResult
from sparsejax.train._metrics import read_metrics
from sparsejax.train._plot import plot_metrics
from sparsejax.train._progress import Quiet, Reporter
from sparsejax.train._report import comparison_table
from sparsejax.train._run_dir import RunDir

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


def demo(
    out: str | os.PathLike[str], *, seed: int = 0, epochs: int = 12, report: Reporter | None = None
) -> DemoResult:
    """Train a small convolutional network on real digits, dense and 90 % sparse, and compare the two.

    Args:
      out: folder for both runs and the picture ``demo.png``; what an earlier demonstration left there is replaced.
      seed: of the split, the initial weights and the order of the data.
      epochs: passes over the 1,438 training digits, for each network.
      report: where progress goes; nowhere if None.

    Returns:
      A ``DemoResult``; ``str`` of it is the table.

    Raises:
      ValueError: too few epochs for the phases, or a negative seed.
      ImportError: scikit-learn, orbax or matplotlib is missing.

    Source: gradual magnitude pruning, Zhu & Gupta 2017; digits as in `sparsejax.data.digits`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as out:
    ...     result = demo(out, epochs=1)
    >>> round(result.sparse.sparsity, 2), result.comparison.sparse.ms > 0
    (0.9, True)
    """
    begin, out, report = time.perf_counter(), Path(out), report or Quiet()
    dataset = data.digits(seed=seed)
    results = {method: _run(method, dataset, seed, epochs, out, report) for method in ("dense", "magnitude")}
    picture = out / "demo.png"
    plot_metrics(
        {name: read_metrics(RunDir(result.out).metrics) for name, result in results.items()}, picture
    )
    dense, sparse = results["dense"], results["magnitude"]
    assert sparse.comparison is not None
    return DemoResult(dense, sparse, sparse.comparison, time.perf_counter() - begin, picture)


def _run(
    method: Method, dataset: data.Dataset, seed: int, epochs: int, out: Path, report: Reporter
) -> TrainResult:
    config = TrainConfig(method=method, sparsity=_SPARSITY, epochs=epochs, seed=seed)
    channels = dataset.image_shape[-1]
    model = models.ConvNet(dataset.num_classes, in_features=channels, widths=_WIDTHS, rngs=nnx.Rngs(seed))
    return Run(config, out / method, dataset=dataset, model=model, resume=False).fit(report)
