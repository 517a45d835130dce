"""The columns of the training log: one CSV row per step, without gaps or repeats after a resume."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from sparsejax._checks import fail
from sparsejax._files import write_atomically


class MetricsRow(NamedTuple):
    """Metrics of one step.

    Attributes:
      step: steps done, from 1.
      epoch: pass over the data that the step belongs to, from 0.
      phase: "dense", "prune", "sparse", "update" or "fixed", see `TrainPhase`.
      loss: mean cross-entropy of the step's batch, nats, before the update.
      accuracy: fraction of test examples classified correctly after the step; None where it was not tested.
      sparsity: fraction of zeros among the prunable weights after the step.
      mask_change: share of the previous support that is not in the new one, where the step chose another sparse mask;
        None elsewhere.
      forward_flops: operations of a forward pass of one example just before the step, which stand for all steps since
        the last such row; None elsewhere.
      ms: wall time of the step, milliseconds. The first step of a phase includes the change of storage, and, where
        a program runs for the first time in this process, its compilation.
      data_ms: time that the step waited for its batch, milliseconds.
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
    data_ms: float = 0.0


class MetricsLog:
    """Appends rows to a CSV file; each row reaches the operating system before ``write`` returns.

    Attributes:
      was_damaged: whether the file lacked a row of the checkpoint, or had another one, and was rebuilt.
    """

    def __init__(self, path: Path, checkpointed: str = "") -> None:
        """Write the rows of the checkpoint, and open the file; what follows them in it is dropped.

        Args:
          path: the file.
          checkpointed: text of the log in the checkpoint that the run is resumed from; "" for a new run.
        """
        self._rows = checkpointed.splitlines(keepends=True) or [_line(MetricsRow._fields)]
        text = "".join(self._rows)
        self.was_damaged = bool(checkpointed) and not _starts_with(path, text)
        write_atomically(path, text)
        self._file = path.open("a", newline="")

    def write(self, row: MetricsRow) -> None:
        """Append a row."""
        self._rows.append(_line(_cells(row)))
        self._file.write(self._rows[-1])
        self._file.flush()

    def text(self) -> str:
        """Return all rows so far, as the file has them."""
        return "".join(self._rows)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _line(cells: Sequence[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _starts_with(path: Path, text: str) -> bool:
    return path.is_file() and path.read_bytes().startswith(text.encode())


def _cells(row: MetricsRow) -> tuple[Any, ...]:
    """What the file stores: ``csv`` writes None as an empty cell and floats so that they are read back exactly."""
    return (*row[:5], f"{row.sparsity:.6f}", row.mask_change, row.forward_flops, f"{row.ms:.3f}", f"{row.data_ms:.3f}")


def first_rows(path: Path, steps: int) -> str:
    """Return the rows of so many steps as the file has them, with the header."""
    return "".join(path.read_text().splitlines(keepends=True)[: steps + 1]) if path.is_file() else ""


def read_metrics(path: Path) -> list[MetricsRow]:
    """Read the rows of a metrics file; a last line cut off by a kill is left out.

    Raises:
      ValueError: a cell cannot be read.
    """
    try:
        return rows_in(path.read_text())
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        fail("train", f"file {str(path)!r}", f"a row that cannot be read ({error})", "the rows that a run wrote")


def rows_in(text: str) -> list[MetricsRow]:
    """Return the rows of a log; what follows the last line break is empty, or a row that a kill cut off."""
    return [_row(cells) for cells in csv.DictReader(text.split("\n")[:-1])]


def _row(row: dict[str, str]) -> MetricsRow:
    return MetricsRow(
        int(row["step"]),
        int(row["epoch"]),
        row["phase"],
        float(row["loss"]),
        float(row["accuracy"]) if row["accuracy"] else None,
        float(row["sparsity"]),
        float(row["mask_change"]) if row["mask_change"] else None,
        int(row["forward_flops"]) if row["forward_flops"] else None,
        float(row["ms"]),
        float(row.get("data_ms") or 0.0),
    )


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
