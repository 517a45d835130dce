"""Where results go: tables on the terminal, JSON in a file or on standard output, progress on standard error."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from . import _machine


@dataclasses.dataclass
class BenchmarkReport:
    """The results of a command.

    Attributes:
      command: its name.
      text: tables for people.
      results: for JSON; beside them stand command, options and machine.
    """

    command: str
    text: str
    results: dict[str, Any]


def progress(text: str) -> None:
    """Print a line about the progress."""
    print(text, file=sys.stderr, flush=True)


def publish(report: BenchmarkReport, options: dict[str, Any], target: str | None) -> None:
    """Print tables, or JSON alone if the target is "-"; write JSON to any other target."""
    machine = _machine.describe()
    document = {"command": report.command, "options": options, "machine": machine, **report.results}
    text = json.dumps(document, indent=1, default=_plain)
    if target == "-":
        print(text)
        return
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items() if version)
    print(
        f"{machine['processor']}, {machine['isa']}, AMX: {machine['amx']}, threads: {machine['threads']}; {versions}\n"
    )
    print(report.text)
    if target is not None:
        Path(target).write_text(text + "\n")


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(f"publish: a result has type {type(value).__name__}; expected what JSON knows")


def milliseconds(seconds: float | None) -> str:
    """A cell of a table."""
    return "-" if seconds is None else f"{1e3 * seconds:.3f}"


def times(ratio: float | None) -> str:
    """A cell of a table: how many times longer than ours."""
    return "-" if ratio is None else f"{ratio:.2f}x"


def percent(fraction: float | None) -> str:
    """A cell of a table."""
    return "-" if fraction is None else f"{100 * fraction:.0f} %"
