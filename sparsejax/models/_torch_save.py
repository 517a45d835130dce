"""Write a model for PyTorch, dense or with its masks, under the names that it came in with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias

import numpy as np
from flax import nnx

from sparsejax._checks import fail, message
from sparsejax._files import PathLike, write_atomically
from sparsejax.models._layers import check_choice
from sparsejax.models._torch_load import LoadReport
from sparsejax.models._torch_match import Entry
from sparsejax.models._torch_names import may_be_transposed
from sparsejax.models._torch_slots import Slot, slots_of
from sparsejax.nn import densify, pattern_masks

SaveForm: TypeAlias = Literal["dense", "prune", "coo"]
_FUNCTION = "save_torch_state_dict"
_FORMS = ("dense", "prune", "coo")


def save_torch_state_dict(
    model: nnx.Module,
    path: PathLike,
    form: SaveForm = "dense",
    *,
    like: LoadReport | None = None,
    masks: Mapping[str, Any] | None = None,
) -> None:
    """Write the parameters and batch statistics of a model as a PyTorch state dict.

    The mask of a kernel is what a sparse layer stores, else the one in ``masks``, else where the kernel is not zero.
    Forms:

    - "dense": ``L.weight`` with zeros.
    - "prune": ``L.weight_orig`` and ``L.weight_mask`` (1 keeps), as ``torch.nn.utils.prune`` has them, for each kernel
      with a mask that is not all ones. It loads into a module to which ``prune.custom_from_mask`` was applied.
    - "coo": those kernels as sparse COO tensors, whose entries are the mask.

    Args:
      model: an NNX module, dense or sparse. It is not changed.
      path: the file; a name that ends in ".safetensors" is written in that format, every other one by ``torch.save``.
      form: "dense", "prune" or "coo".
      like: the report of `load_torch`: names, prefixes and layouts are then that checkpoint's. Else the names are
        those of `load_torch` for this model, with GPT-2's matrices as (in, out), as Hugging Face has them.
      masks: mask by layer path, bool array of the kernel's shape, for layers that are dense.

    Raises:
      ImportError: torch (or safetensors) is needed for this file and not installed.
      ValueError: an unknown form; "coo" for a safetensors file, which has no sparse tensors; a mask of another shape or
        for a path that is not a layer's; a report of another model.

    >>> import tempfile
    >>> from sparsejax.models import MLP, load_torch
    >>> model, path = MLP(2, 1, hidden=(), rngs=nnx.Rngs(0)), tempfile.mkdtemp() + "/model.safetensors"
    >>> save_torch_state_dict(model, path)
    >>> load_torch(model, path).loaded
    ('fc.bias', 'fc.weight')
    """
    check_choice(_FUNCTION, "form", form, _FORMS)
    path = Path(path)
    is_safetensors = path.suffix == ".safetensors"
    if is_safetensors and form == "coo":
        fail(_FUNCTION, "form", "value 'coo'", "'dense' or 'prune' for a safetensors file", "Use a name such as m.pt.")
    keep: dict[str, Any] = {**(masks or {}), **pattern_masks(model)}
    dense = densify(model)
    slots = slots_of(_FUNCTION, dense)
    _check_masks(keep, slots)
    entries = _model_entries(slots) if like is None else like.entries
    if unknown := [name for entry in entries for name in entry.slots if name not in slots]:
        fail(_FUNCTION, "like", f"the variable {unknown[0]!r}", "the report of loading this model")
    values = _torch_values(dense, slots)
    written = {name for entry in entries for name in entry.slots}
    entries = [*entries, *(entry for entry in _model_entries(slots) if entry.slots[0] not in written)]
    tensors: dict[str, tuple[np.ndarray, np.ndarray | None]] = {}
    for entry in entries:
        value = _joined(values, entry)
        mask = _joined(_torch_masks(keep, slots, values, entry), entry).astype(bool)
        is_pruned = slots[entry.slots[0]].is_kernel and form != "dense" and not mask.all()
        tensors[entry.prefix + entry.name] = (value, mask if is_pruned else None)
        if entry.name.endswith("running_var"):
            counter = entry.prefix + entry.name.removesuffix("running_var") + "num_batches_tracked"
            tensors[counter] = (np.zeros((), np.int64), None)
    write_atomically(path, _safetensors(path, tensors) if is_safetensors else _torch_writer(path, tensors, form))


def _check_masks(masks: Mapping[str, Any], slots: Mapping[str, Slot]) -> None:
    kernels = {slot.layer: slot for slot in slots.values() if slot.is_kernel}
    for layer, mask in masks.items():
        if layer not in kernels:
            fail(_FUNCTION, "masks", f"path {layer!r}", f"paths of layers, such as {next(iter(kernels), 'none')!r}")
        if np.shape(mask) != kernels[layer].shape:
            fail(_FUNCTION, f"mask {layer!r}", f"shape {np.shape(mask)}", f"{kernels[layer].shape}")


def _model_entries(slots: Mapping[str, Slot]) -> list[Entry]:
    return [
        Entry(name, (name,), transposed=slot.form == "matrix" and may_be_transposed(name))
        for name, slot in slots.items()
    ]


def _torch_values(model: nnx.Module, slots: Mapping[str, Slot]) -> dict[str, np.ndarray]:
    state = dict(nnx.to_flat_state(nnx.state(model, (nnx.Param, nnx.BatchStat))))
    return {name: slot.to_torch(np.asarray(state[slot.path].get_value())) for name, slot in slots.items()}


def _torch_masks(
    masks: Mapping[str, Any], slots: Mapping[str, Slot], values: Mapping[str, np.ndarray], entry: Entry
) -> dict[str, np.ndarray]:
    return {
        name: slots[name].to_torch(np.asarray(masks[slots[name].layer]))
        if slots[name].is_kernel and slots[name].layer in masks
        else values[name] != 0
        for name in entry.slots
    }


def _joined(arrays: Mapping[str, np.ndarray], entry: Entry) -> np.ndarray:
    """Return what the checkpoint holds under one name: variables one after the other, or rows of one."""
    array = arrays[entry.slots[0]] if len(entry.slots) == 1 else np.concatenate([arrays[n] for n in entry.slots])
    array = array if entry.rows is None else array[slice(*entry.rows)]
    return np.ascontiguousarray(array.T if entry.transposed else array[:, :, None, None] if entry.window else array)


def _safetensors(path: Path, tensors: Mapping[str, tuple[np.ndarray, np.ndarray | None]]) -> bytes:
    try:
        from safetensors.numpy import save
    except ImportError as error:
        raise _not_installed(path, "safetensors") from error
    arrays: dict[str, np.ndarray] = {}
    for name, (value, mask) in tensors.items():
        if mask is None:
            arrays[name] = value
        else:
            arrays |= {f"{name}_orig": value, f"{name}_mask": mask.astype(value.dtype)}
    return save(arrays, metadata={"format": "pt"})


def _torch_writer(path: Path, tensors: Mapping[str, tuple[np.ndarray, np.ndarray | None]], form: SaveForm) -> Any:
    try:
        import torch
    except ImportError as error:
        raise _not_installed(path, "torch") from error

    def tensor(array: np.ndarray) -> Any:
        if str(array.dtype) == "bfloat16":  # NumPy has none of its own, so that torch cannot take it
            return torch.from_numpy(array.astype(np.float32)).to(torch.bfloat16)
        return torch.from_numpy(array.copy())

    state: dict[str, Any] = {}
    for name, (value, mask) in tensors.items():
        if mask is None:
            state[name] = tensor(value)
        elif form == "prune":
            state |= {f"{name}_orig": tensor(value), f"{name}_mask": tensor(mask.astype(value.dtype))}
        else:
            where = np.stack(np.nonzero(mask))
            entries = tensor(np.ascontiguousarray(value[mask]))
            state[name] = torch.sparse_coo_tensor(torch.from_numpy(where), entries, value.shape, is_coalesced=True)

    def write(file: BinaryIO) -> None:
        torch.save(state, file)

    return write


def _not_installed(path: Path, package: str) -> ImportError:
    expected = f"{package} to write {path.suffix or 'this'} files"
    hint = "Install it: pip install 'sparsejax[all]'." if package == "safetensors" else "Install it: pip install torch."
    return ImportError(message(_FUNCTION, "the environment", f"no {package}", expected, hint))
