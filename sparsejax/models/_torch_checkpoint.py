"""Read a PyTorch or safetensors checkpoint into NumPy arrays under plain names; nothing but tensors is unpickled."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from sparsejax._checks import fail, message
from sparsejax._files import PathLike, existing_file, unreadable

_FUNCTION = "load_torch_state_dict"
_MASK = re.compile(r"(?P<layer>.+?)\.(?:_layer\.)?_?(?P<kind>weight|bias)_mask")
_STATE_KEYS = ("model_state_dict", "state_dict")


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a checkpoint by their original names, and what was stored beside them."""

    tensors: dict[str, np.ndarray]
    epoch: int | None
    config: dict[str, Any]


def read_checkpoint(source: PathLike | Mapping[str, Any]) -> Checkpoint:
    """Read a file, or take a dict as ``torch.load`` returns it, with or without the training envelope.

    Args:
      source: path (``.safetensors`` is read without torch, everything else by torch), or a dict of torch
        tensors or NumPy arrays, bare or under "model_state_dict" or "state_dict" with "epoch" and
        "model_config" beside it.

    Returns:
      The `Checkpoint`; floating tensors of torch come as float64, which represents every narrower type exactly.

    Raises:
      FileNotFoundError: no such file.
      ImportError: the reader for this file type is not installed.
      ValueError: not a checkpoint, or one with pickled objects other than tensors.

    >>> read_checkpoint({"epoch": 3, "model_state_dict": {"fc.bias": np.zeros(2)}}).epoch
    3
    """
    if isinstance(source, Mapping):
        content: Any = source
    else:
        path = existing_file(_FUNCTION, source)
        content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    if not isinstance(content, Mapping):
        fail(_FUNCTION, "checkpoint", f"type {type(content).__name__}", "a dict of tensors")
    return _unwrap(content)


def _unwrap(content: Mapping[str, Any]) -> Checkpoint:
    for key in _STATE_KEYS:
        if key in content:
            state, epoch, config = content[key], content.get("epoch"), content.get("model_config")
            break
    else:
        state, epoch, config = content, None, None
    if not isinstance(state, Mapping):
        fail(_FUNCTION, "checkpoint", f"a state of type {type(state).__name__}", "a dict of tensors")
    if config is not None and not isinstance(config, Mapping):
        fail(_FUNCTION, "checkpoint", f"a model_config of type {type(config).__name__}", "a dict")
    if epoch is not None and not isinstance(epoch, int):
        fail(_FUNCTION, "checkpoint", f"an epoch of type {type(epoch).__name__}", "an integer")
    tensors = {str(name): _to_numpy(str(name), value) for name, value in state.items()}
    return Checkpoint(tensors, epoch, dict(config or {}))


def _to_numpy(name: str, value: Any) -> np.ndarray:
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        # NumPy has no bfloat16; float64 represents every torch float exactly.
        value = (value.double() if value.is_floating_point() else value).numpy()
    if not isinstance(value, np.ndarray):
        fail(_FUNCTION, f"entry {name!r}", f"type {type(value).__name__}", "a tensor")
    # jnp.issubdtype, unlike NumPy's, counts bfloat16 among the floats.
    if not any(jnp.issubdtype(value.dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_)):
        fail(_FUNCTION, f"entry {name!r}", f"dtype {value.dtype}", "a real dtype")
    return value


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
    except ImportError as error:
        raise _not_installed(path, "safetensors") from error
    try:
        return load_file(path)
    except SafetensorError as error:
        raise unreadable(_FUNCTION, path, error, "safetensors") from error


def _read_torch(path: Path) -> Any:
    try:
        import torch
    except ImportError as error:
        raise _not_installed(path, "torch") from error
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        text = message(
            _FUNCTION,
            f"file {str(path)!r}",
            f"content that cannot be loaded safely ({reason})",
            "a torch file of tensors, numbers and strings",
            "Objects of other types are never unpickled; save model.state_dict() alone.",
        )
        raise ValueError(text) from error


def _not_installed(path: Path, package: str) -> ImportError:
    return ImportError(
        message(
            _FUNCTION,
            "the environment",
            f"no {package}",
            f"{package} to read {path.suffix or 'this'} files",
            "Install it: pip install 'sparsejax[all]'.",
        )
    )


def plain_names(tensors: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Separate values from masks, under the names an unwrapped model would have.

    ``module.`` (data-parallel training) and ``._layer`` (the pruning wrapper) disappear,
    ``num_batches_tracked`` is dropped, and ``L._weight_mask``, ``L.weight_mask`` or ``L._layer.weight_mask``
    becomes the mask of ``L.weight``.

    Args:
      tensors: arrays by their names in the checkpoint.

    Returns:
      values by plain name, and boolean masks (True keeps) by the plain name of the tensor that they mask.

    Raises:
      ValueError: two names that mean the same tensor, or a mask with values other than 0 and 1.

    >>> eye = np.eye(2)
    >>> values, masks = plain_names({"module.fc._layer.weight": eye, "module.fc._weight_mask": eye})
    >>> list(values), list(masks), masks["fc.weight"].tolist()
    (['fc.weight'], ['fc.weight'], [[True, False], [False, True]])
    """
    values: dict[str, np.ndarray] = {}
    masks: dict[str, np.ndarray] = {}
    for original, array in tensors.items():
        name = original.removeprefix("module.")
        if name.endswith("num_batches_tracked"):
            continue
        matched = _MASK.fullmatch(name)
        if matched:
            target, name = masks, f"{matched['layer']}.{matched['kind']}"
            array = _as_mask(original, array)
        else:
            target, name = values, name.replace("._layer.", ".")
        if name in target:
            fail(_FUNCTION, "checkpoint", f"two entries for {name!r}", "one", f"{original!r} is the second.")
        target[name] = array
    return values, masks


def _as_mask(name: str, array: np.ndarray) -> np.ndarray:
    if not np.isin(array, (0, 1)).all():
        fail(_FUNCTION, f"mask {name!r}", "values other than 0 and 1", "1 to keep a weight and 0 to prune it")
    return array.astype(bool)
