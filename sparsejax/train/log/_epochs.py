"""A row for each epoch: loss, accuracy, and where the time of a step goes."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sparsejax._checks import fail
from sparsejax._extras import require
from sparsejax._files import PathLike, write_atomically
from sparsejax.train.log._metrics import MetricsRow


class EpochRow(NamedTuple):
    """Metrics of one pass over the training data.

    Attributes:
      epoch: passes done, from 1.
      step: steps done.
      loss: mean of the steps' losses, nats.
      accuracy: fraction of test examples classified correctly; None without test examples.
      sparsity: fraction of zeros among the prunable weights.
      learning_rate: of the last step.
      forward_ms: median time of a forward pass on the last batch of the epoch, milliseconds; None if not measured.
      backward_ms: median time of a step without ``forward_ms``: backward pass and update; None if not measured.
      data_ms: mean time that a step waited for its batch.
      seconds: of all steps, with waiting; tests and checkpoints do not count.
    """

    epoch: int
    step: int
    loss: float
    accuracy: float | None
    sparsity: float
    learning_rate: float
    forward_ms: float | None
    backward_ms: float | None
    data_ms: float
    seconds: float


Callback = Callable[[EpochRow], Any]


def epoch_row(epoch: int, rows: Sequence[MetricsRow], learning_rate: float, forward_ms: float | None) -> EpochRow:
    """Return the row of an epoch from the rows of its steps."""
    last = rows[-1]
    step_ms = statistics.median(row.ms for row in rows)
    return EpochRow(
        epoch,
        last.step,
        statistics.fmean(row.loss for row in rows),
        last.accuracy,
        last.sparsity,
        learning_rate,
        forward_ms,
        None if forward_ms is None else max(0.0, step_ms - forward_ms),
        statistics.fmean(row.data_ms for row in rows),
        sum(row.ms + row.data_ms for row in rows) / 1e3,
    )


class EpochLog:
    """The rows of ``epochs.csv``; the file is whole whenever the process is killed."""

    def __init__(self, path: Path, done: int) -> None:
        """Keep what the file has of the first ``done`` epochs."""
        self._path = path
        lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
        self._lines = [_line(EpochRow._fields), *lines[1 : done + 1]]

    def write(self, row: EpochRow) -> None:
        """Append a row."""
        self._lines.append(_line(row))
        write_atomically(self._path, "".join(self._lines))


def _line(cells: Sequence[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(
        f"{cell:.6g}" if isinstance(cell, float) else "" if cell is None else cell for cell in cells
    )
    return text.getvalue()


class TensorBoardLogger:
    """A callback that writes the numbers of each epoch for TensorBoard.

    >>> TensorBoardLogger("")
    Traceback (most recent call last):
    ...
    ValueError: TensorBoardLogger: folder has value ''; expected the path of a folder.
    """

    def __init__(self, folder: PathLike) -> None:
        """Open the folder, which is made if absent.

        Raises:
          ImportError: tensorboardX is missing (extra ``tensorboard``).
          ValueError: no path.
        """
        if not str(folder):
            fail("TensorBoardLogger", "folder", "value ''", "the path of a folder")
        self._writer: Any = require("tensorboardX", "TensorBoardLogger", "tensorboard").SummaryWriter(str(folder))

    def __call__(self, row: EpochRow) -> None:
        """Write one row."""
        for name, value in row._asdict().items():
            if name not in ("epoch", "step") and value is not None:
                self._writer.add_scalar(name, value, row.step)
        self._writer.flush()

    def close(self) -> None:
        """Wait until all rows are in the file, and close it."""
        self._writer.close()
