"""Checkpoints: whole or absent whenever the process is killed, and verified when they are loaded."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sparsejax._checks import message
from sparsejax.train.checkpoints._digests import DamagedCheckpointError, array_digests, file_digests, record_of, verify
from sparsejax.train.checkpoints._orbax import empty_arrays, load_arrays, save_arrays

_KEPT = 2
_ARRAYS = "default"
_RECORD = "digests.json"
# Beside the arrays of a checkpoint of version 0.1, which has no digests.
_RECORD_OF_0_1 = "_CHECKPOINT_METADATA"


class Checkpoints:
    """The last checkpoints of a run, each a folder named by its number of steps.

    A checkpoint is a flat dictionary of arrays: every variable of the model (parameters, batch statistics, random
    state) and of the optimizer (moments, masks, counters) by its path; by layer the masks of the newest sparse network
    and its room for stored weights; and the rows of the training log. They are in the folder ``default``, written by
    Orbax; ``digests.json`` has the step, the configuration, and the SHA-256 of every file and of every array.
    """

    def __init__(self, folder: Path, configuration: Mapping[str, Any]) -> None:
        """Name the folder; nothing is read or written yet.

        Args:
          folder: of all checkpoints.
          configuration: of the run, as JSON; a checkpoint of another one is refused.
        """
        self.folder = folder.resolve()
        self._configuration = dict(configuration)

    def steps(self) -> list[int]:
        """Numbers of steps of the checkpoints in the folder, damaged ones included, in ascending order."""
        folders = self.folder.iterdir() if self.folder.is_dir() else ()
        return sorted(int(path.name) for path in folders if path.name.isdecimal() and path.is_dir())

    def newest(self) -> tuple[int, dict[str, np.ndarray], list[str]] | None:
        """Load the newest checkpoint that is not damaged.

        Returns:
          Its step, its arrays, and remarks: a line for each newer one that is damaged, and one if it was written by
          version 0.1, without digests. None if the folder has no checkpoint.

        Raises:
          ValueError: there are checkpoints, and all are damaged. Nothing is deleted.
        """
        remarks: list[str] = []
        for step in reversed(self.steps()):
            try:
                arrays = self.load(step)
            except DamagedCheckpointError as error:
                remarks.append(str(error))
            else:
                remarks = [f"{remark} Resuming from step {step}." for remark in remarks]
                if self._is_unverified(step):
                    remarks.append(f"Checkpoint {str(self.folder / str(step))!r} has no digests: not verified.")
                return step, arrays, remarks
        if not remarks:
            return None
        hint = "Nothing was deleted. Restore the folder from a copy, or start over with --no-resume (resume=False)."
        got = f"no checkpoint that can be loaded: {' '.join(remarks)}"
        raise ValueError(message("train", f"folder {str(self.folder)!r}", got, "at least one", hint))

    def load(self, step: int) -> dict[str, np.ndarray]:
        """Return the arrays of a checkpoint.

        Raises:
          DamagedCheckpointError: a file is missing, unreadable or not what was written.
        """
        folder = self.folder / str(step)
        try:
            if self._is_unverified(step):
                return load_arrays(folder / _ARRAYS, {})
            record = record_of(folder, _RECORD)
            verify(folder, "the step", step, record.get("step"))
            verify(folder, "the configuration", self._configuration, record.get("configuration"))
            verify(folder, "file", file_digests(folder, _RECORD), record.get("files"))
            arrays = load_arrays(folder / _ARRAYS, record.get("empty", {}))
        except OSError as error:
            raise DamagedCheckpointError(f"Checkpoint {str(folder)!r} cannot be read: {error}.") from error
        verify(folder, "array", array_digests(arrays), record.get("arrays"))
        return arrays

    def _is_unverified(self, step: int) -> bool:
        """Whether version 0.1 wrote the checkpoint."""
        folder = self.folder / str(step)
        return (folder / _RECORD_OF_0_1).is_file() and not (folder / _RECORD).exists()

    def set_aside(self, after: int) -> None:
        """Rename the damaged checkpoints after a step, so that the run can write its own; remove unfinished ones."""
        for step in (step for step in self.steps() if step > after):
            names = (self.folder / f"damaged-{step}{'' if i == 0 else f'.{i}'}" for i in range(1000))
            (self.folder / str(step)).rename(next(path for path in names if not path.exists()))
        for draft in self.folder.glob(".*.partial") if self.folder.is_dir() else ():
            shutil.rmtree(draft, ignore_errors=True)

    def save(self, step: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Write a checkpoint, and remove the oldest.

        Raises:
          OSError: it cannot be written; those before it are untouched.
        """
        draft, final = self.folder / f".{step}.{os.getpid()}.partial", self.folder / str(step)
        try:
            draft.mkdir(parents=True)
            save_arrays(draft / _ARRAYS, arrays)
            record = {"step": step, "configuration": self._configuration, "arrays": array_digests(arrays)}
            record |= {"files": file_digests(draft, _RECORD), "empty": empty_arrays(arrays)}
            (draft / _RECORD).write_text(json.dumps(record, separators=(",", ":")))
            draft.rename(final)  # from here on the checkpoint exists
            for old in self.steps()[:-_KEPT]:
                shutil.rmtree(self.folder / str(old))
        except OSError as error:
            shutil.rmtree(draft, ignore_errors=True)
            raise OSError(f"train: checkpoint {str(final)!r} cannot be written: {error}") from error
