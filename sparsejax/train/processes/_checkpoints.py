"""Checkpoints of a group: process 0 writes them and reads them for all.

Values are replicated, so process 0 has all of them: nothing is gained by writing parts of them elsewhere, and a
checkpoint is the same files whatever the number of processes, verified by the same digests.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sparsejax.train.checkpoints._checkpoint import Checkpoints
from sparsejax.train.processes._group import Group


class GroupCheckpoints(Checkpoints):
    """Checkpoints that all processes call alike; the folders of the others than process 0 are never used."""

    def __init__(self, folder: Path, configuration: Mapping[str, Any], group: Group) -> None:
        """Name the folder, as `Checkpoints`, and the processes."""
        super().__init__(folder, configuration)
        self._group = group

    def newest(self) -> tuple[int, dict[str, np.ndarray], list[str]] | None:
        """Return the newest checkpoint of process 0 that is not damaged, in every process."""
        group, newest, problem = self._group, None, ""
        if group.is_alone:
            return super().newest()
        if group.writes:
            try:
                newest = super().newest()
            except ValueError as error:
                problem = str(error)
        step, remarks, problem = group.of_first(lambda: [newest and newest[0], newest and newest[2], problem])
        if problem:
            raise ValueError(problem)
        return None if step is None else (step, group.broadcast(newest and newest[1]), remarks)

    def set_aside(self, after: int) -> None:
        """Rename what is damaged, in process 0."""
        if self._group.writes:
            super().set_aside(after)

    def save(self, step: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Write a checkpoint in process 0; the others go on with the next step."""
        if self._group.writes:
            super().save(step, arrays)
