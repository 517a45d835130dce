"""Curves of one or more runs as a picture."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from sparsejax._files import write_atomically
from sparsejax.train.log._metrics import MetricsRow

# Fill of the time a phase takes, from the run with the most phases.
_SHADES = {"dense": "#f2f2f2", "prune": "#fdebd3", "sparse": "#dcecf7", "update": "#8fb8d8", "fixed": "#dcecf7"}
# A phase shorter than this part of the run has no room for its name.
_NAMED = 0.06


def plot_metrics(runs: Mapping[str, Sequence[MetricsRow]], path: Path) -> bool:
    """Save loss, test accuracy, sparsity and mask change over the steps, with the phases as background.

    The mask change is the share of the previous support that a new mask leaves out.

    Args:
      runs: rows of each run, by its name in the legend.
      path: the file; its suffix decides the format.

    Returns:
      Whether a picture was drawn. Without matplotlib none is, and a warning says so: the numbers are in
      ``metrics.csv``, and a picture is no reason to refuse or to lose a run.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        hint = "Install it for the next run: pip install 'sparsejax[all]'."
        warnings.warn(f"train: picture {str(path)!r} is left out, because matplotlib is missing. {hint}", stacklevel=2)
        return False

    figure = Figure(figsize=(7, 8), layout="constrained")
    axes = figure.subplots(4, 1, sharex=True)
    _shade(axes, max(runs.values(), key=lambda rows: len({row.phase for row in rows})))
    for name, rows in runs.items():
        tested = [row for row in rows if row.accuracy is not None]
        axes[0].plot([row.step for row in rows], [row.loss for row in rows], lw=0.8, label=name)
        axes[1].plot([row.step for row in tested], [row.accuracy for row in tested], "o-", ms=3, label=name)
        axes[2].plot([row.step for row in rows], [row.sparsity for row in rows], label=name)
        changes = [row for row in rows if row.mask_change is not None]
        axes[3].plot([row.step for row in changes], [row.mask_change for row in changes], "o-", ms=3, label=name)
    for axis, label in zip(axes, ("training loss", "test accuracy", "sparsity", "mask change"), strict=True):
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
    axes[0].set_yscale("log")
    axes[0].legend()
    axes[2].set_ylim(-0.02, 1.02)
    axes[3].set_ylim(bottom=0)
    axes[3].set_xlabel("step")
    write_atomically(path, lambda file: figure.savefig(file, format=path.suffix[1:], dpi=120))
    return True


def _shade(axes: Any, rows: Sequence[MetricsRow]) -> None:
    for phase, group in groupby(rows, key=lambda row: row.phase):
        steps = [row.step for row in group]
        for axis in axes:
            axis.axvspan(steps[0] - 0.5, steps[-1] + 0.5, color=_SHADES[phase], zorder=0)
        if len(steps) > _NAMED * len(rows):
            axes[2].text((steps[0] + steps[-1]) / 2, 0.5, phase, ha="center", color="#666666")
