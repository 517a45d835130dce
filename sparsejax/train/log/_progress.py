"""How a run reports while it goes: a bar on a terminal, lines elsewhere, or nothing."""

from __future__ import annotations

import importlib.util
import sys
import time
from typing import Any, Protocol

from sparsejax.train.log._metrics import MetricsRow

_SECONDS_BETWEEN_LINES = 10.0


class Reporter(Protocol):
    """What the loop tells while it runs; all of it goes to standard error."""

    def start(self, name: str, total: int, done: int) -> None:
        """Begin a run of ``total`` steps, of which ``done`` are done."""
        ...

    def step(self, row: MetricsRow) -> None:
        """Report one step."""
        ...

    def note(self, text: str) -> None:
        """Report something in words."""
        ...

    def finish(self) -> None:
        """End the run, also after an error."""
        ...


class Quiet:
    """Reports nothing."""

    def start(self, name: str, total: int, done: int) -> None:
        """Do nothing."""

    def step(self, row: MetricsRow) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""

    def finish(self) -> None:
        """Do nothing."""


class Lines:
    """A line for each test of the network, and at least one every ten seconds."""

    def start(self, name: str, total: int, done: int) -> None:
        """Remember the name and the length of the run."""
        self._name, self._total, self._last, self._accuracy = name, total, time.monotonic(), "-"

    def step(self, row: MetricsRow) -> None:
        """Print the row if it holds a test result, or if the last line is long ago."""
        if row.accuracy is not None:
            self._accuracy = f"{row.accuracy:.4f}"
        now = time.monotonic()
        if row.accuracy is None and now - self._last < _SECONDS_BETWEEN_LINES:
            return
        self._last = now
        text = f"{self._name}: step {row.step}/{self._total}, {row.phase}, loss {row.loss:.4f}, "
        text += f"test accuracy {self._accuracy}, sparsity {row.sparsity:.3f}, {row.ms / 1e3:.3f} s/step"
        self.note(text)

    def note(self, text: str) -> None:
        """Print a line."""
        print(text, file=sys.stderr, flush=True)

    def finish(self) -> None:
        """Nothing is open."""


class Bar:
    """One bar with phase, loss, test accuracy, sparsity and seconds per step; needs rich."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True)

    def start(self, name: str, total: int, done: int) -> None:
        """Show the bar."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._accuracy = "-"
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(compact=True),
            console=self._console,
        )
        self._progress.start()
        self._task = self._progress.add_task(name, total=total, completed=done, numbers="compiling")
        self._name = name

    def step(self, row: MetricsRow) -> None:
        """Advance the bar."""
        if row.accuracy is not None:
            self._accuracy = f"{row.accuracy:.4f}"
        numbers = f"loss {row.loss:.3f}  acc {self._accuracy}  sparsity {row.sparsity:.2f}  {row.ms / 1e3:.3f} s/step"
        self._progress.update(
            self._task, completed=row.step, description=f"{self._name} {row.phase:6}", numbers=numbers
        )

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        self._console.print(text, highlight=False)

    def finish(self) -> None:
        """Leave the bar as it is."""
        self._progress.stop()


def reporter(*, quiet: bool = False, lines: bool = False) -> Reporter:
    """The bar where standard error is a terminal and rich is installed, lines elsewhere, or nothing if ``quiet``.

    ``lines`` asks for lines in any case: two runs at once would draw over each other.
    """
    if quiet:
        return Quiet()
    if lines:
        return Lines()
    can_draw: Any = sys.stderr.isatty() and importlib.util.find_spec("rich") is not None
    return Bar() if can_draw else Lines()
