"""The columns of the training log: one CSV row per step, without gaps or repeats after a resume."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from sparsejax._files import write_atomically


class MetricsRow(NamedTuple):
    """Metrics of one step.

    Attributes:
      step: steps done, from 1.
      epoch: pass over the data that the step belongs to, from 0.
      phase: "dense", "prune", "sparse" or "update", see `TrainPhase`.
      loss: mean cross-entropy of the step's batch, nats, before the update.
      accuracy: fraction of test examples classified correctly after the step; None where it was not tested.
      sparsity: fraction of zeros among the prunable weights after the step.
      mask_change: share of the previous support that is not in the new one, where the step chose another sparse mask;
        None elsewhere.
      forward_flops: operations of a forward pass of one example just before the step, which stand for all steps since
        the last such row; None elsewhere.
      ms: wall time of the step, milliseconds. The first step of a phase includes the change of storage, and, where
        a program runs for the first time in this process, its compilation.
    """

    step: int
    epoch: int
    phase: str
    loss: float
    accuracy: float | None
    sparsity: float
    mask_change: float | None
    forward_flops: int | None
    ms: float


class MetricsLog:
    """Appends rows to a CSV file; each row reaches the operating system before ``write`` returns."""

    def __init__(self, path: Path, done: int) -> None:
        """Open the file, and drop what an interrupted run wrote after its last checkpoint.

        Args:
          path: the file.
          done: steps that the run is resumed from; 0 for a new run.
        """
        kept = [row for row in read_metrics(path) if row.step <= done] if path.exists() else []
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([MetricsRow._fields, *map(_cells, kept)])
        write_atomically(path, text.getvalue())
        self._file = path.open("a", newline="")
        self._writer = csv.writer(self._file, lineterminator="\n")

    def write(self, row: MetricsRow) -> None:
        """Append a row."""
        self._writer.writerow(_cells(row))
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _cells(row: MetricsRow) -> tuple[Any, ...]:
    """What the file stores: ``csv`` writes None as an empty cell and floats so that they are read back exactly."""
    return (*row[:5], f"{row.sparsity:.6f}", row.mask_change, row.forward_flops, f"{row.ms:.3f}")


def read_metrics(path: Path) -> list[MetricsRow]:
    """Rows of a metrics file; a last line cut off by a kill is left out."""
    lines = path.read_text().split("\n")
    # What follows the last line break is empty, or a row that a kill cut off.
    return [
        MetricsRow(
            int(row["step"]),
            int(row["epoch"]),
            row["phase"],
            float(row["loss"]),
            float(row["accuracy"]) if row["accuracy"] else None,
            float(row["sparsity"]),
            float(row["mask_change"]) if row["mask_change"] else None,
            int(row["forward_flops"]) if row["forward_flops"] else None,
            float(row["ms"]),
        )
        for row in csv.DictReader(lines[:-1])
    ]


@dataclass(frozen=True)
class PhaseTime:
    """Wall time of all steps of one kind.

    Attributes:
      steps: their number.
      seconds: all of it, with changes of storage and compilation.
      median_ms: of a step.
    """

    steps: int
    seconds: float
    median_ms: float


def phase_times(rows: Sequence[MetricsRow]) -> dict[str, PhaseTime]:
    """Wall time by kind of phase."""
    times: dict[str, list[float]] = {}
    for row in rows:
        times.setdefault(row.phase, []).append(row.ms)
    return {phase: PhaseTime(len(ms), sum(ms) / 1e3, statistics.median(ms)) for phase, ms in times.items()}
