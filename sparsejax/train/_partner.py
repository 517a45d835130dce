"""The dense partner of AC/DC: the network of the last dense phase, trained dense to the end of the run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optax
from flax import nnx

from sparsejax import pruning
from sparsejax._files import write_atomically
from sparsejax.train._config import TrainConfig
from sparsejax.train._folder import RunDir
from sparsejax.train._state import TrainState
from sparsejax.train.checkpoints._arrays import collect
from sparsejax.train.checkpoints._checkpoint import Checkpoints

_FOLDER = "dense_partner"


def partner_options(config: TrainConfig, root: Path, total: int) -> tuple[TrainConfig, Path]:
    """Return configuration and folder of the partner of a run of so many steps."""
    changes = {"structure": "", "include": "", "exclude": "", "source": "", "weight_decay": config.decay(total)}
    return dataclasses.replace(config, method="dense", **changes), root / _FOLDER


def fork_partner(
    config: TrainConfig,
    root: Path,
    inner: optax.GradientTransformation,
    state: TrainState,
    log: str,
    total: int,
    described: Mapping[str, Any] | None,
) -> None:
    """Write the state of a dense phase as the checkpoint of a dense run, which that run then resumes from.

    Weights, moments, counters and the learning rate's schedule go on as they are; only the masks are left behind.

    Args:
      config: of the run with method "acdc".
      root: its folder.
      inner: its optimizer without pruning.
      state: in the last dense phase.
      log: rows of the log so far.
      total: steps of the run.
      described: what builds the network again; None for a module of the caller's.

    Source: Peste et al. 2021, "AC/DC", section 5 (co-trained sparse-dense pairs); `sparsejax.pruning.dense_partner`.
    """
    dense, out = partner_options(config, root, total)
    pruning.dense_partner(nnx.as_pure(state.optimizer.opt_state))  # refuses a mask in force
    optimizer: nnx.Optimizer[Any] = nnx.Optimizer(state.model, inner, wrt=nnx.Param)
    optimizer.step[...] = state.optimizer.step[...]
    wrapped: Any = state.optimizer.opt_state
    optimizer.opt_state = wrapped.inner
    folder = RunDir(out)
    folder.claim(dense, resume=False)
    write_atomically(folder.metrics, log)
    if described is not None:
        write_atomically(folder.network, json.dumps(described, indent=2) + "\n")
    Checkpoints(folder.checkpoints, dense.to_dict()).save(state.step, collect(state.model, optimizer, None, {}, log))
