"""Load a PyTorch checkpoint, dense or sparse, into one of our models."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from sparsejax._checks import fail
from sparsejax._files import PathLike, naming
from sparsejax.models._resnet import TORCHVISION_POOL_PADDING, PoolPadding, ResNet
from sparsejax.models._torch_checkpoint import Checkpoint, read_checkpoint

_FUNCTION = "load_torch_state_dict"
_TORCH_NAMES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
# RigL's TensorFlow code pools with "SAME" padding, which for even sizes pads below and on the right only.
# In half precision this share of zeros or less may be small weights that became 0.
_MOST_ROUNDED = 0.05
_RIGL_STEM = "initial_conv."
_RIGL_POOL_PADDING: PoolPadding = ((0, 1), (0, 1))

_Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class LoadReport:
    """What `load_torch_state_dict` loaded and adapted.

    Attributes:
      loaded: torch names of the tensors written into the model, in the model's order.
      masks: for each layer with pruned weights, its path in the model joined by "/" ("layer1/0/conv1") and
        the boolean mask of its kernel in Flax layout; True keeps the weight.
      epoch: epoch stored in the checkpoint, or None.
      config: the checkpoint's ``model_config`` ("arch", "dataset"), or an empty dict.
      notes: one sentence for each adaptation.
    """

    loaded: tuple[str, ...]
    masks: dict[str, np.ndarray]
    epoch: int | None
    config: dict[str, Any]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Slot:
    """A variable of the model and its name in torch."""

    path: tuple[Any, ...]
    variable: nnx.Variable[Any]

    @property
    def name(self) -> str:
        return ".".join((*map(str, self.path[:-1]), _TORCH_NAMES[self.path[-1]]))

    @property
    def layer(self) -> str:
        return "/".join(map(str, self.path[:-1]))

    @property
    def is_kernel(self) -> bool:
        return self.path[-1] == "kernel"

    @property
    def torch_shape(self) -> tuple[int, ...]:
        shape = tuple(self.variable.shape)
        return (shape[-1], shape[-2], *shape[:-2]) if self.is_kernel else shape

    def to_flax(self, array: np.ndarray) -> np.ndarray:
        """Move (out, in, *window) to (*window, in, out)."""
        return array.transpose(*range(2, array.ndim), 1, 0) if self.is_kernel else array


def load_torch_state_dict(model: nnx.Module, source: PathLike | Mapping[str, Any]) -> LoadReport:
    """Load weights, batch statistics and masks of a PyTorch checkpoint into a dense model, in place.

    The torch name of a variable is its path in the model: ``layer1[0].conv1.kernel`` is
    ``layer1.0.conv1.weight``, a batch norm's ``scale, bias, mean, var`` are ``weight, bias, running_mean,
    running_var``. So `resnet18` and `resnet50` load torchvision's files; the names of the other models are in
    their docstrings. Kernels go from (out, in, h, w) to (h, w, in, out).

    Other forms that are read, with a note in the report where names or shapes had to be adapted:

    - envelopes: ``model_state_dict``, ``state_dict``, ``model``, ``params``, ``ema``, with ``epoch`` and
      ``model_config`` beside them;
    - prefixes of wrappers: ``module.``, ``model.``, ``net.``, ``_orig_mod.``, ``backbone.``;
    - masks (1 keeps): ``L.weight_orig`` with ``L.weight_mask`` (torch.nn.utils.prune),
      ``L.parametrizations.weight.original`` with ``L.parametrizations.weight.0.mask`` (torch.nn.utils.parametrize),
      ``L._layer.weight`` with ``L._weight_mask``, the same for biases, and the stored entries of sparse COO, CSR and
      CSC tensors;
    - the RigL stem ``initial_conv`` (a ResNet's pooling is then padded as RigL's), and a classifier stored as a 1x1
      convolution, with or without bias (STR).

    Where no mask is stored, or one of all ones, the zeros of a kernel are its mask; in a float16 or float8 kernel only
    if more than 5 % of it is zero, since small weights round to 0 there. Masked weights become exact zeros. NaN and
    infinite values are loaded, with a note.

    Args:
      model: a model of `nnx.Conv`, `nnx.Linear` and batch norm layers; load before `sparsejax.sparsify`.
        An abstract one (`nnx.eval_shape`) becomes concrete, which saves the initialisation.
        Values are cast to the model's dtypes. `MLP` flattens images channels-last, torch channels-first: with
        several channels its first kernel must be permuted by the caller.
      source: path of a file (``.safetensors`` is read without torch, everything else by torch), or the dict.

    Returns:
      A `LoadReport`, whose ``masks`` are in Flax layout.

    Raises:
      FileNotFoundError: no such file.
      ImportError: torch (or safetensors) is needed for this file and not installed.
      ValueError: missing or left-over entries or wrong shapes, all of them named; malformed masks; quantized tensors;
        a damaged file, or one with pickled objects. The model is unchanged then. The message names the file.

    >>> from sparsejax.models import MLP
    >>> model = MLP(2, 1, hidden=(), rngs=nnx.Rngs(0))
    >>> state = {"fc.weight": np.array([[3.0, 0.0]]), "fc.bias": np.array([1.0])}
    >>> report = load_torch_state_dict(model, state)
    >>> report.loaded, report.masks["fc"].tolist()
    (('fc.bias', 'fc.weight'), [[True], [False]])
    >>> model(jnp.array([[2.0, 5.0]])).tolist()
    [[7.0]]
    """
    slots = _slots(model)
    with contextlib.nullcontext() if isinstance(source, Mapping) else naming(source):
        checkpoint = read_checkpoint(source, {str(slot.path[0]) for slot in slots.values()})
        return _load(model, slots, checkpoint)


def _load(model: nnx.Module, slots: dict[str, _Slot], checkpoint: Checkpoint) -> LoadReport:
    values, masks, notes = checkpoint.values, checkpoint.masks, checkpoint.notes
    pool_padding = _adapt_rigl_stem(model, values, masks, notes)
    _adapt_conv_classifier(slots, values, masks, notes)
    _check(slots, values, masks)

    state = []
    kernel_masks: dict[str, np.ndarray] = {}
    for name, slot in slots.items():
        value, mask = values[name], masks.get(name)
        if mask is not None:
            value = np.where(mask, value, 0)
        if slot.is_kernel:
            keep = mask if mask is not None and not mask.all() else _nonzero(name, value, checkpoint)
            if not keep.all():
                kernel_masks[slot.layer] = np.ascontiguousarray(slot.to_flax(keep))
        with np.errstate(over="ignore"):
            array = jnp.asarray(slot.to_flax(value), slot.variable.dtype)
        if bad := array.size - int(np.isfinite(np.asarray(array)).sum()):
            notes.append(f"{name}: {bad} of {array.size} values are NaN or infinite in {array.dtype}")
        state.append((slot.path, slot.variable.replace(array)))
    nnx.update(model, nnx.from_flat_state(state))
    if isinstance(model, ResNet):
        model.pool_padding = pool_padding
    return LoadReport(tuple(slots), kernel_masks, checkpoint.epoch, checkpoint.config, tuple(notes))


def _nonzero(name: str, value: np.ndarray, checkpoint: Checkpoint) -> np.ndarray:
    """Return the mask that the zeros of a kernel mean, all True where rounding to 16 bits explains them."""
    keep = value != 0
    zeros = keep.size - int(keep.sum())
    if name in checkpoint.half and 0 < zeros <= _MOST_ROUNDED * keep.size:
        checkpoint.notes.append(f"{name}: {zeros} of {keep.size} zeros may be rounded weights and are no mask")
        return np.ones_like(keep)
    return keep


def _slots(model: nnx.Module) -> dict[str, _Slot]:
    """Return every parameter and batch statistic of a dense model by its torch name."""
    slots: dict[str, _Slot] = {}
    for path, variable in nnx.to_flat_state(nnx.state(model, (nnx.Param, nnx.BatchStat))):
        if path[-1] not in _TORCH_NAMES:
            fail(
                _FUNCTION,
                "model",
                f"a variable {'/'.join(map(str, path))!r}",
                "only dense convolution, linear and batch norm layers",
                "Load first, then sparsify.",
            )
        slot = _Slot(path, variable)
        slots[slot.name] = slot
    return slots


def _adapt_rigl_stem(model: nnx.Module, values: _Arrays, masks: _Arrays, notes: list[str]) -> PoolPadding:
    """Rename RigL's stem in place and return the pooling padding that goes with the checkpoint."""
    if not any(name.startswith(_RIGL_STEM) for name in values) or not isinstance(model, ResNet):
        return TORCHVISION_POOL_PADDING
    for arrays in (values, masks):
        for name in [name for name in arrays if name.startswith(_RIGL_STEM)]:
            plain = "conv1." + name.removeprefix(_RIGL_STEM)
            if plain in arrays:
                fail(_FUNCTION, "checkpoint", f"both {name!r} and {plain!r}", "one stem")
            arrays[plain] = arrays.pop(name)
    notes.append(f"RigL stem: {_RIGL_STEM}weight loaded as conv1.weight, pool_padding {_RIGL_POOL_PADDING}")
    return _RIGL_POOL_PADDING


def _adapt_conv_classifier(slots: dict[str, _Slot], values: _Arrays, masks: _Arrays, notes: list[str]) -> None:
    """Reshape a classifier stored as a 1x1 convolution into a linear layer, in place; a missing bias is zero."""
    for name, slot in slots.items():
        weight = values.get(name)
        if not slot.is_kernel or len(slot.torch_shape) != 2 or weight is None or weight.shape[2:] != (1, 1):
            continue
        for arrays in (values, masks):
            if name in arrays and arrays[name].shape[2:] == (1, 1):
                arrays[name] = arrays[name][:, :, 0, 0]
        notes.append(f"{name}: 1x1 convolution loaded as a linear layer")
        bias = name.removesuffix("weight") + "bias"
        if bias in slots and bias not in values:
            values[bias] = np.zeros(slots[bias].torch_shape)
            notes.append(f"{bias}: absent, set to zero")


def _check(slots: dict[str, _Slot], values: _Arrays, masks: _Arrays) -> None:
    missing = [name for name in slots if name not in values]
    left_over = [name for name in values if name not in slots]
    left_over += [f"{name}_mask" for name in masks if name not in slots]
    shapes = [
        f"{name}{suffix} {arrays[name].shape} instead of {slot.torch_shape}"
        for arrays, suffix in ((values, ""), (masks, "_mask"))
        for name, slot in slots.items()
        if name in arrays and arrays[name].shape != slot.torch_shape
    ]
    problems = [
        f"{title} {', '.join(names)}"
        for title, names in (
            ("missing entries", missing),
            ("left-over entries", left_over),
            ("wrong shapes", shapes),
        )
        if names
    ]
    if problems:
        fail(
            _FUNCTION,
            "checkpoint",
            "; ".join(problems),
            f"exactly the {len(slots)} tensors of the model",
            "Is it the same architecture, number of classes and stem?",
        )
