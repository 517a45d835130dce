"""The network of a run's checkpoint, built again without data or optimizer."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flax import nnx

from sparsejax import models, nn
from sparsejax._checks import fail, message
from sparsejax.train._config import TrainConfig
from sparsejax.train._folder import RunDir
from sparsejax.train._inputs import load_configured_task
from sparsejax.train.checkpoints._arrays import assign, capacity_in, masks_in
from sparsejax.train.checkpoints._checkpoint import Checkpoints

_NOTHING: Any = nnx.Dict()  # in place of an optimizer
_LARGE, _SMALL = 224, 32


def models_shape(model: nnx.Module, image_shape: tuple[int, ...]) -> list[int]:
    """Return the (height, width, channels) with which `sparsejax.models.build` builds a network of this form.

    A stem loaded from a file need not be that of the image size.
    """
    first: Any = getattr(model, "conv1", None)
    window = getattr(first, "kernel_size", None)
    if window is None or not isinstance(model, models.ResNet):
        return list(image_shape)
    side = _LARGE if window[0] == 7 else _SMALL
    return [side, side, image_shape[-1]]


def kept_options(model: nnx.Module) -> dict[str, Any]:
    """Return what a checkpoint of another library changed in a network beside its variables."""
    if isinstance(model, models.ViT):
        return {"epsilon": model.epsilon}
    return {"pool_padding": model.pool_padding} if isinstance(model, models.ResNet) else {}


def _set_options(model: nnx.Module, options: Mapping[str, Any]) -> None:
    if isinstance(model, models.ViT) and "epsilon" in options:
        model.epsilon = options["epsilon"]
    if isinstance(model, models.ResNet) and "pool_padding" in options:
        (top, bottom), (left, right) = options["pool_padding"]
        model.pool_padding = ((top, bottom), (left, right))


def rebuilt(description: Mapping[str, Any], checkpoints: Checkpoints) -> nnx.Module:
    """Return the network of the newest checkpoint that can be loaded.

    Args:
      description: name, classes and shape, as the folder of the run has them.
      checkpoints: of the run.

    Raises:
      FileNotFoundError: the run has no checkpoint.
      ValueError: all are damaged, or they are of another network.
    """
    restored = checkpoints.newest()
    if restored is None:
        operand = f"the run in {str(checkpoints.folder.parent)!r}"
        fail("train", operand, "no checkpoint", "at least one", error=FileNotFoundError)
    _, arrays, remarks = restored
    for remark in remarks:
        warnings.warn(remark, UserWarning, stacklevel=3)
    height, width, channels = description["image_shape"]
    model: nnx.Module = models.build(
        description["model"], description["num_classes"], channels, (height, width), nnx.Rngs(0)
    )
    _set_options(model, description)
    dense = nn.dense_kernels(model)
    ranks = {path: arrays[f"model/{path}/kernel/value"].ndim for path in dense}
    stored = {path: mask for path, mask in masks_in(arrays).items() if ranks[path] < dense[path].ndim}
    if stored:
        rest = [path for path in dense if path not in stored]
        model, _ = nn.sparsify(model, stored, min_sparsity=0.0, policy="always", skip=rest)
        capacity = capacity_in(arrays)
        for path, layer in nn.modules_of(model, nn.SparseLayer).items():
            if path in capacity:
                layer.reserve(capacity[path])
    assign({name: array for name, array in arrays.items() if not name.startswith("optimizer/")}, model, _NOTHING)
    return model


def load_model(out: str | os.PathLike[str]) -> nnx.Module:
    """Return the network of the last checkpoint of a training run, with sparse layers if it was trained that far.

    Args:
      out: folder of `train` or `finetune`, with a network that ``config.model`` names. The data of a run of version
        0.1 must still be where they were.

    Raises:
      FileNotFoundError: no run, or one without a checkpoint.
      ValueError: a configuration that cannot be read.
    """
    values, config, described = _read(out)
    if described is None:  # of version 0.1
        task = load_configured_task(config)
        shape = list(task.train.images([0]).shape[1:])
        described = {"model": config.model, "num_classes": task.num_classes, "image_shape": shape}
    return rebuilt(described, Checkpoints(RunDir(out).checkpoints, values))


def model_of_run(out: str | os.PathLike[str]) -> str:
    """Return the name of the network of a training run; raises as `load_model`."""
    _, config, described = _read(out)
    return config.model if described is None else str(described["model"])


def _read(out: str | os.PathLike[str]) -> tuple[dict[str, Any], TrainConfig, dict[str, Any] | None]:
    """Configuration, as it is in the file and checked, and description of a run."""
    file = Path(out) / "run.json"
    if not file.is_file():
        rule = "the folder of a training run, with run.json"
        fail("load_model", "out", f"value {str(out)!r}", rule, error=FileNotFoundError)
    try:
        values = json.loads(file.read_text())
        return values, TrainConfig(**values), RunDir(out).description()
    except (TypeError, json.JSONDecodeError) as error:
        text = message("load_model", f"file {str(file)!r}", f"another form ({error})", "the configuration of a run")
        raise ValueError(text) from error
