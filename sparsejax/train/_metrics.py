"""The metrics of a run: one CSV row per step, without gaps or repeats after a resume."""

from __future__ import annotations

import csv
import statistics
from pathlib import Path
from typing import NamedTuple, TextIO

from sparsejax.train._run_dir import write_atomically


class Row(NamedTuple):
    """Metrics of one step.

    Attributes:
      step: steps done, from 1.
      epoch: pass over the data that the step belongs to, from 0.
      phase: "dense", "prune" or "sparse".
      loss: mean cross-entropy of the step's batch, nats, before the update.
      accuracy: fraction of test examples classified correctly after the step; None where it was not tested.
      sparsity: fraction of zeros among the prunable weights after the step.
      ms: wall time of the step, milliseconds; in the first step of a phase and after a resume it includes
        compilation.
    """

    step: int
    epoch: int
    phase: str
    loss: float
    accuracy: float | None
    sparsity: float
    ms: float


class MetricsLog:
    """Appends rows to a CSV file; each row is with the operating system before ``write`` returns."""

    def __init__(self, path: Path, done: int) -> None:
        """Open the file, and drop what an interrupted run wrote after its last checkpoint.

        Args:
          path: the file.
          done: steps that the run is resumed from; 0 for a new run.
        """
        kept = [row for row in read_metrics(path) if row.step <= done] if path.exists() else []
        lines = [",".join(Row._fields), *(_line(row) for row in kept)]
        write_atomically(path, "\n".join(lines) + "\n")
        self._file: TextIO = path.open("a")

    def write(self, row: Row) -> None:
        """Append a row."""
        self._file.write(_line(row) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _line(row: Row) -> str:
    accuracy = "" if row.accuracy is None else repr(row.accuracy)
    numbers = (repr(row.loss), accuracy, f"{row.sparsity:.6f}", f"{row.ms:.3f}")
    return ",".join((str(row.step), str(row.epoch), row.phase, *numbers))


def read_metrics(path: Path) -> list[Row]:
    """Rows of a metrics file; a last line cut off by a kill is left out."""
    lines = path.read_text().split("\n")
    # What follows the last line break is empty, or a row that a kill cut off.
    return [
        Row(
            int(row["step"]),
            int(row["epoch"]),
            row["phase"],
            float(row["loss"]),
            float(row["accuracy"]) if row["accuracy"] else None,
            float(row["sparsity"]),
            float(row["ms"]),
        )
        for row in csv.DictReader(lines[:-1])
    ]


def median_ms(rows: list[Row]) -> dict[str, float]:
    """Median time of a step for each phase, milliseconds."""
    phases = dict.fromkeys(row.phase for row in rows)
    return {phase: statistics.median(row.ms for row in rows if row.phase == phase) for phase in phases}
