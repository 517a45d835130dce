"""The folder of a run: which configuration it belongs to, and what lies in it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sparsejax._checks import fail, message
from sparsejax._files import write_atomically
from sparsejax.train._config import TrainConfig

_START_OVER = "Name another out directory, or start over with --no-resume (resume=False), which discards that run."


_STORED = "stored_layers.json"


class RunDir:
    """Paths in the folder of a run.

    Attributes:
      root: the folder.
      metrics: CSV file with one row per step.
      checkpoints: folder of checkpoints.
      plot: picture of the curves.
      result: JSON file with the final numbers.
      epochs: CSV file with one row per epoch.
      network: JSON file with what builds the network again.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)
        self.metrics = self.root / "metrics.csv"
        self.checkpoints = self.root / "checkpoints"
        self.plot = self.root / "curves.png"
        self.result = self.root / "result.json"
        self.epochs = self.root / "epochs.csv"
        self.network = self.root / "network.json"
        self._config = self.root / "run.json"

    def check(self, config: TrainConfig) -> None:
        """Refuse to resume in the folder of another run; nothing is written.

        A run that ended before its first checkpoint has nothing to resume, and is in nobody's way.

        Raises:
          ValueError: it has checkpoints of another configuration or of none, or an unreadable configuration.
        """
        has_checkpoints = self.checkpoints.is_dir() and any(self.checkpoints.iterdir())
        if self._config.exists():
            difference = self._difference(config)
            if difference is not None and has_checkpoints:
                name, stored, wanted = difference
                operand, rule = f"the run in {str(self.root)!r}", f"{wanted!r} to resume it"
                fail("train", operand, f"{name} {stored!r}", rule, _START_OVER)
        elif has_checkpoints:
            got, rule = "checkpoints but no run.json", "both, or neither"
            fail("train", f"folder {str(self.root)!r}", got, rule, _START_OVER)

    def belongs_to(self, config: TrainConfig) -> bool:
        """Tell whether the folder is that of a run of this configuration."""
        return self._config.exists() and self._difference(config) is None

    def description(self) -> dict[str, Any] | None:
        """Return what builds the network again; None where it was a module of the caller's, or in runs of 0.1."""
        return json.loads(self.network.read_text()) if self.network.is_file() else None

    def stored_layers(self) -> list[str] | None:
        """Return the layers that an earlier start of the run chose to store compressed; None before."""
        file = self.root / _STORED
        return json.loads(file.read_text()) if file.is_file() else None

    def keep_stored_layers(self, layers: Sequence[str]) -> None:
        """Keep that choice for a resumed run."""
        write_atomically(self.root / _STORED, json.dumps(list(layers)) + "\n")

    def claim(self, config: TrainConfig, *, resume: bool) -> None:
        """Make the folder that of this configuration; the caller holds its lock, which made it.

        Args:
          config: the run.
          resume: keep what an interrupted run of the same configuration left; otherwise remove what any run left.

        Raises:
          ValueError: ``resume`` and the folder has checkpoints of another configuration.
          OSError: the folder cannot be written to.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        if resume:
            self.check(config)
        if not resume or not self.belongs_to(config):
            # Checkpoints go first: whatever a kill leaves in between, none belongs to the new configuration.
            discarded = self.root / "checkpoints.discarded"
            if self.checkpoints.exists():
                shutil.rmtree(discarded, ignore_errors=True)
                self.checkpoints.rename(discarded)
            others = (self.epochs, self.network, self.root / _STORED)
            for path in (self.metrics, self.plot, self.result, *others):
                path.unlink(missing_ok=True)
            write_atomically(self._config, json.dumps(config.to_dict(), indent=2) + "\n")
        shutil.rmtree(self.root / "checkpoints.discarded", ignore_errors=True)

    def _difference(self, config: TrainConfig) -> tuple[str, Any, Any] | None:
        """The first field in which the folder's configuration differs, by name, with both values."""
        try:
            stored: dict[str, Any] = dict(json.loads(self._config.read_text()))
        except (ValueError, TypeError) as error:
            operand = f"the run in {str(self.root)!r}"
            raise ValueError(message("train", operand, "an unreadable run.json", "JSON", _START_OVER)) from error
        wanted = config.to_dict()
        names = (name for name in sorted(stored.keys() | wanted.keys()) if stored.get(name) != wanted.get(name))
        return next(((name, stored.get(name), wanted.get(name)) for name in names), None)
