"""A run small enough to repeat: three phases on 96 digits; and a reporter that stops it."""

from __future__ import annotations

from typing import Any

import numpy as np
from flax import nnx

from sparsejax.models import ConvNet
from sparsejax.train import TrainConfig, TrainRun
from sparsejax.train.checkpoints._checkpoint import Checkpoints

# 6 steps per epoch: phases start at steps 0, 4 and 11 of 18.
CONFIG = TrainConfig(sparsity=0.8, epochs=3, batch_size=16, dense_fraction=0.2, prune_fraction=0.4)
# 4 steps per epoch: dense from step 0, 6 and 12 of 16, sparse from 3, 9 and 14. Rates so high move the support.
ACDC = TrainConfig(
    method="acdc", sparsity=0.8, epochs=4, batch_size=24, learning_rate=1.0, weight_decay=0.3, phase_fraction=0.2
)
# The mask changes after steps 4, 8 and 12 of 18.
RIGL = TrainConfig(method="rigl", sparsity=0.8, epochs=3, batch_size=16, update_every=4)


class Stopped(Exception):
    """The run was stopped from outside."""


class StopAfter:
    """A reporter that ends the run when ``step`` steps are done, before their checkpoint is written.

    ``done`` is where the run itself started; the dense partner of AC/DC is reported after it.
    """

    def __init__(self, step: int) -> None:
        self.limit = step
        self.rows: list[Any] = []
        self.notes: list[str] = []
        self.finished = False
        self.done: int | None = None

    def start(self, name: str, total: int, done: int) -> None:
        if self.done is None:
            self.name, self.total, self.done = name, total, done

    def step(self, row: Any) -> None:
        self.rows.append(row)
        if row.step == self.limit:
            raise Stopped

    def note(self, text: str) -> None:
        self.notes.append(text)

    def finish(self) -> None:
        self.finished = True


def make_model(seed: int = 0) -> ConvNet:
    return ConvNet(10, in_features=1, widths=(4, 8), rngs=nnx.Rngs(seed))


def final_arrays(run: TrainRun) -> dict[str, np.ndarray]:
    return checkpoint_arrays(run.checkpoints, run.plan.total)


def checkpoint_arrays(checkpoints: Checkpoints, step: int) -> dict[str, np.ndarray]:
    """All arrays of a checkpoint but the log, whose times differ from run to run."""
    return {name: np.asarray(array) for name, array in checkpoints.load(step).items() if name != "log"}


def assert_same_bits(got: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        assert (got[name].dtype, got[name].shape) == (array.dtype, array.shape), name
        assert got[name].tobytes() == array.tobytes(), name
