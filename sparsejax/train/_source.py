"""The network that a run starts from: a PyTorch file, or the folder of another run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from sparsejax import models, nn
from sparsejax._checks import fail
from sparsejax.models._torch_checkpoint import read_checkpoint
from sparsejax.train._config import TrainConfig
from sparsejax.train._rebuild import load_model, model_of_run

_IMAGENET = (224, 224)


@dataclass(frozen=True)
class Network:
    """A network with the masks of its pruned weights.

    Attributes:
      model: with dense layers, in training mode; weights outside their masks are 0.
      masks: bool arrays of the kernels' shapes by layer path, true keeps; layers without zeros have none.
      name: one of `sparsejax.models.MODEL_NAMES`.
      notes: one sentence for each adaptation.
    """

    model: nnx.Module
    masks: dict[str, np.ndarray]
    name: str
    notes: tuple[str, ...] = ()


def load_network(
    source: str | Path,
    model: str | None = None,
    *,
    num_classes: int | None = None,
    image_shape: tuple[int, ...] | None = None,
    new_head: bool = False,
    seed: int = 0,
) -> Network:
    """Load a network from the folder of a run or from a PyTorch file.

    Args:
      source: folder of `sparsejax.train.train`, or a file as `sparsejax.models.load_torch` reads it.
      model: one of `sparsejax.models.MODEL_NAMES`; needed for a file; for a folder, that of the run or None.
      num_classes: of the data; None takes the file's.
      image_shape: (height, width, channels) of the data; the stem of a ResNet follows the file, not this.
      new_head: replace a classifier with another number of classes by a new one.
      seed: of the new classifier.

    Raises:
      FileNotFoundError: no such file or folder.
      ImportError: torch is needed for the file and not installed.
      ValueError: a damaged file, one that does not fit the model, a model that is not that of the run, or a classifier
        with another number of classes.
    """
    path, model = Path(source), model_name(source, model)
    if path.is_dir():
        network = _from_run(path)
    elif model is None:
        fail("load_network", "model", "no value", "the name of a network for a PyTorch file (--model)")
    else:
        network = _from_file(path, model, image_shape or (*_IMAGENET, 3))
    head = models.find_head(network.model)
    classes = _outputs(network.model, head)
    if num_classes is None or classes == num_classes:
        return network
    if not new_head:
        hint = "Replace the classifier with new_head=True (--new-head)."
        operand = f"the network in {str(source)!r}"
        fail("load_network", operand, f"{classes} classes", f"{num_classes}, those of the data", hint)
    changed = models.with_new_head(network.model, num_classes, head=head, rngs=nnx.Rngs(seed))
    masks = {name: mask for name, mask in network.masks.items() if name != head}
    note = f"new classifier {head!r} with {num_classes} classes instead of {classes}"
    return Network(changed, masks, network.name, (*network.notes, note))


def model_name(source: str | Path, model: str | None) -> str | None:
    """Return the name of the network: that of a run; for a file the one that the caller names.

    Args:
      source: folder of a run, or a PyTorch file.
      model: what the caller names, or None.

    Raises:
      FileNotFoundError: a folder without a run.
      ValueError: a name that is not that of the run.
    """
    if not Path(source).is_dir():
        return model
    name = model_of_run(source)
    if model not in (None, name):
        rule = f"{name!r}, that of the run in {str(source)!r}"
        fail("load_network", "model", f"value {model!r}", rule, "Leave the model (--model) out: a run has its own.")
    return name


def with_model_of_run(config: TrainConfig) -> TrainConfig:
    """Return the configuration with the network of the run that it starts from, if it starts from one."""
    if not config.source:
        return config
    return dataclasses.replace(config, model=model_name(config.source, None) or config.model)


def _from_run(path: Path) -> Network:
    model = load_model(path)
    stored = nn.pattern_masks(model)
    dense = nn.densify(model)
    return Network(dense, masks_of(dense, stored), model_of_run(path))


def masks_of(dense: nnx.Module, stored: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the masks by layer path of a dense network: patterns that it had, and the zeros of other layers."""
    kernels = nn.dense_kernels(dense)
    zeros = {path: np.asarray(kernel != 0) for path, kernel in kernels.items()}
    masks = zeros | {path: np.asarray(mask) for path, mask in stored.items()}
    return {path: mask for path, mask in masks.items() if not mask.all()}


def _from_file(path: Path, name: str, image_shape: tuple[int, ...]) -> Network:
    if not path.is_file():
        rule = "an existing PyTorch file, or the folder of a run"
        fail("load_network", "source", f"value {str(path)!r}", rule, error=FileNotFoundError)
    values: Mapping[str, np.ndarray] = read_checkpoint(path).values
    classes = _classes(path, values)
    height, width, channels = image_shape
    stem = models.stem_of_torch(path)
    model: Any = models.build(name, classes, channels, (height, width), nnx.Rngs(0), stem=stem)
    report = models.load_torch_state_dict(model, path)
    return Network(model, dict(report.masks), name, report.notes)


def incoming_names(source: str | Path, model: nnx.Module) -> models.LoadReport | None:
    """Return the names of the PyTorch file that a network came in by, as `models.save_torch_state_dict` takes them.

    Args:
      source: the file, or the folder of a run that started from it, at any remove; "" for a network that is new.
      model: the network; its classifier may have another number of classes than the file's.

    Returns:
      A report of loading the file; None where there is no such file any more.
    """
    path = Path(source)
    while path.is_dir():
        started = json.loads((path / "run.json").read_text()).get("source") if (path / "run.json").is_file() else ""
        if not started:
            return None
        path = Path(started)
    if not path.is_file():
        return None
    dense, head = nn.densify(model), models.find_head(model)
    classes = _classes(path, read_checkpoint(path).values)
    if classes != _outputs(dense, head):
        dense = models.with_new_head(dense, classes, head=head, rngs=nnx.Rngs(0))
    return models.load_torch_state_dict(dense, path)


def _classes(path: Path, values: Mapping[str, np.ndarray]) -> int:
    """Number of outputs of the classifier in a file."""
    for name in ("fc", "head", "classifier", "heads.head", "classifier.1"):
        weight = next((v for key, v in values.items() if key.endswith(f"{name}.weight") and v.ndim in (2, 4)), None)
        if weight is not None:
            return int(weight.shape[0])
    got = f"no classifier among {len(values)} tensors"
    fail("load_network", f"file {str(path)!r}", got, "a tensor fc.weight, head.weight or classifier.weight")


def _outputs(model: nnx.Module, head: str) -> int:
    node: Any = model
    for part in head.split("/"):
        node = node[int(part)] if part.isdigit() else getattr(node, part)
    return int(node.out_features)
