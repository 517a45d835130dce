"""A process of a small RigL run on digits: prints its losses and a digest of its masks, as JSON."""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile

import jax
import numpy as np

from sparsejax.data import digits
from sparsejax.train import TrainConfig, TrainRun
from sparsejax.train.log._metrics import read_metrics
from sparsejax.train.processes._group import ALONE, Group
from sparsejax.train.processes._join import join

CONFIG = TrainConfig(model="mlp", method="rigl", update_every=2, epochs=1, batch_size=256)


def trained(group: Group = ALONE) -> dict[str, object]:
    """Train to the end; the losses, and the SHA-256 of the masks."""
    with tempfile.TemporaryDirectory() as out:
        run = TrainRun(CONFIG, out, dataset=digits(), checkpoint_every=1000, group=group)
        *_, last = run.states()
        losses = [row.loss for row in read_metrics(run.dir.metrics)]
    masks = last.support or {}
    parts = [path.encode() + np.packbits(masks[path]).tobytes() for path in sorted(masks)]
    return {"losses": losses, "masks": hashlib.sha256(b"".join(parts)).hexdigest(), "layers": len(masks)}


if __name__ == "__main__":
    jax.config.update("jax_disable_most_optimizations", True)
    group = join(sys.argv[1], int(sys.argv[2]), 2, 60.0)
    print(json.dumps(trained(group)))
    group.leave()
