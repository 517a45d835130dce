"""A network written for PyTorch and for deployment, in each form that is asked for, under the names it came in with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from sparsejax import models, nn
from sparsejax._checks import fail
from sparsejax._files import PathLike
from sparsejax.models._layers import check_choice
from sparsejax.nn._export import export
from sparsejax.train._rebuild import load_model
from sparsejax.train._source import incoming_names, load_network

_FILES: dict[str, tuple[str, Any]] = {
    "dense": ("model-dense.pt", "dense"),
    "prune": ("model-prune.pt", "prune"),
    "coo": ("model-coo.pt", "coo"),
    "safetensors": ("model.safetensors", "dense"),
    "export": ("model.bin", ""),
}
FORMS = tuple(_FILES)
"""Weights with zeros; weights and masks as torch.nn.utils.prune names them; COO tensors; safetensors; a program."""


def saved_name(form: str) -> str:
    """Return the name of the file of a form."""
    return _FILES[form][0]


def save_network(
    source: PathLike,
    forms: Sequence[str],
    out: PathLike,
    *,
    model: str | None = None,
    image_shape: tuple[int, int, int] | None = None,
) -> list[Path]:
    """Write the network of a run, or of a PyTorch file, in other forms.

    Tensors have the names of the PyTorch file that the run started from, however many runs lie between, if it is still
    there; else those of `sparsejax.models.load_torch`.

    Args:
      source: folder of a run of ``train`` or ``finetune``, or a PyTorch file.
      forms: of "dense" (``model-dense.pt``, weights with zeros), "prune" (``model-prune.pt``, weights and masks as
        ``torch.nn.utils.prune`` names them), "coo" (``model-coo.pt``, sparse tensors), "safetensors"
        (``model.safetensors``, weights with zeros), "export" (``model.bin``, a program for `sparsejax.load_exported`).
      out: folder of the files; made if absent.
      model: one of `sparsejax.models.MODEL_NAMES`; needed for a file.
      image_shape: (height, width, channels) for "export"; those of the run's data if None.

    Returns:
      The files.

    Raises:
      FileNotFoundError: no such file or folder.
      ImportError: torch or safetensors is missing.
      ValueError: an unknown form; no shape for "export"; a damaged file; and as `load_network`.
    """
    for form in forms:
        check_choice("save_network", "forms", form, FORMS)
    path = Path(source)
    if path.is_dir():
        network: nnx.Module = load_model(path)
        image_shape = image_shape or _image_shape(path)
    else:
        loaded = load_network(path, model, image_shape=image_shape)
        policy: Any = {"policy": "always", "skip": _unpruned(loaded.model, loaded.masks)}
        network, _ = nn.sparsify(loaded.model, loaded.masks, **policy)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    return save_forms(network, forms, folder, source=str(path), image_shape=image_shape)


def save_forms(
    model: nnx.Module, forms: Sequence[str], out: Path, *, source: str, image_shape: tuple[int, ...] | None
) -> list[Path]:
    """Write a network into a folder in each of the forms, and return the files.

    Args:
      model: the network.
      forms: of `FORMS`.
      out: an existing folder.
      source: the run or file whose PyTorch names are used; "" for none.
      image_shape: (height, width, channels) of what the exported program takes.

    Raises:
      ImportError: torch or safetensors is missing.
      ValueError: no shape for "export".
    """
    if "export" in forms and image_shape is None:
        fail("save_network", "image_shape", "no value", "(height, width, channels) for form 'export' (--size)")
    like = incoming_names(source, model) if set(forms) - {"export"} else None
    written: list[Path] = []
    for name in dict.fromkeys(forms):
        file, how = saved_name(name), _FILES[name][1]
        if name == "export":
            copy = nnx.clone(model, graph=True)
            copy.eval()
            export(copy, jax.ShapeDtypeStruct((1, *(image_shape or ())), np.float32), out / file)
        else:
            models.save_torch_state_dict(model, out / file, how, like=like)
        written.append(out / file)
    return written


def _image_shape(run: Path) -> tuple[int, int, int] | None:
    """Height, width and channels of the data of a run; None where its folder does not tell."""
    file = run / "network.json"
    shape = json.loads(file.read_text()).get("input_shape") if file.is_file() else None
    return None if shape is None or len(shape) != 3 else (shape[0], shape[1], shape[2])


def _unpruned(model: nnx.Module, masks: Any) -> list[str]:
    return [path for path in nn.dense_kernels(model) if path not in masks]
