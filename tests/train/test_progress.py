"""Progress as lines, as a bar, and not at all."""

from __future__ import annotations

import io
import sys

import pytest

from sparsejax.train import reporter
from sparsejax.train.log._metrics import MetricsRow
from sparsejax.train.log._progress import Bar, Lines, Quiet

ROWS = [
    MetricsRow(1, 0, "dense", 2.5, None, 0.0, None, None, 10.0),
    MetricsRow(2, 0, "prune", 1.5, 0.75, 0.5, None, 100, 20.0),
]


def play(report):
    report.start("magnitude", 2, 0)
    for row in ROWS:
        report.step(row)
    report.note("a note")
    report.finish()


def test_lines_for_tests_and_notes_only(capsys):
    play(Lines())
    out, err = capsys.readouterr()
    assert out == ""
    line = "magnitude: step 2/2, prune, loss 1.5000, test accuracy 0.7500, sparsity 0.500, 0.020 s/step"
    assert err.splitlines() == [line, "a note"]


def test_nothing_when_quiet(capsys):
    play(reporter(quiet=True))
    assert capsys.readouterr() == ("", "")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_on_a_terminal(monkeypatch):
    pytest.importorskip("rich")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("TERM", "xterm")
    report = reporter()
    assert isinstance(report, Bar)
    play(report)
    text = terminal.getvalue()
    for part in ("magnitude prune", "2/2", "loss 1.500", "acc 0.7500", "sparsity 0.50", "a note"):
        assert part in text


def test_lines_where_two_bars_would_meet(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert isinstance(reporter(lines=True), Lines)


def test_lines_without_a_terminal():
    assert isinstance(reporter(), Lines) and isinstance(reporter(quiet=True), Quiet)
