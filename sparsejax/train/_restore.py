"""The network in the folder of a training run."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from sparsejax._checks import fail, message
from sparsejax.train._config import TrainConfig
from sparsejax.train._loop import Run


def load_model(out: str | os.PathLike[str]) -> Any:
    """Return the network of the last checkpoint of a training run, with sparse layers if it has come to them.

    Args:
      out: folder of `train`. The data it was trained on must still be where it was.

    Raises:
      FileNotFoundError: no run, or one without a checkpoint.
      ValueError: a configuration that cannot be read.
    """
    file = Path(out) / "run.json"
    if not file.is_file():
        rule = "the folder of a training run, with run.json"
        fail("load_model", "out", f"value {str(out)!r}", rule, error=FileNotFoundError)
    try:
        config = TrainConfig(**json.loads(file.read_text()))
    except (TypeError, json.JSONDecodeError) as error:
        text = message("load_model", f"file {str(file)!r}", f"another form ({error})", "the configuration of a run")
        raise ValueError(text) from error
    return Run(config, out).restore()
