"""The trained network written for PyTorch, in each form that is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flax import nnx

from sparsejax import models

_FILES = {
    "dense": ("model-dense.pt", "dense"),
    "prune": ("model-prune.pt", "prune"),
    "coo": ("model-coo.pt", "coo"),
    "safetensors": ("model.safetensors", "dense"),
}
FORMS = tuple(_FILES)
"""Dense weights with zeros, weights and masks as torch.nn.utils.prune names them, sparse COO tensors, safetensors."""


def save_forms(model: nnx.Module, forms: Sequence[str], out: Path) -> list[Path]:
    """Write a network into a folder in each of the forms, and return the files.

    Raises:
      ImportError: torch or safetensors is missing.
    """
    written: list[Path] = []
    for name in dict.fromkeys(forms):
        file, form = _FILES[name]
        how: Any = form
        models.save_torch_state_dict(model, out / file, how)
        written.append(out / file)
    return written
