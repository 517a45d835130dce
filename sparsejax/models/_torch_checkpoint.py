"""Read a PyTorch or safetensors checkpoint into NumPy arrays by their plain names; only tensors are unpickled."""

from __future__ import annotations

import io
import mmap
import re
import warnings
import zipfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from sparsejax._checks import fail, message
from sparsejax._files import PathLike, existing_file, unreadable
from sparsejax._pickles import check_pickles

_FUNCTION = "load_torch"
# In the order in which they are taken when a file has several.
_ENVELOPES = ("model_state_dict", "state_dict", "model", "params", "ema")
_PREFIXES = ("module", "model", "net", "_orig_mod", "backbone", "transformer", "bert", "vit", "resnet")
_MASKS = (
    re.compile(r"(?P<layer>.+?)\.(?:_layer\.)?_?(?P<kind>weight|bias)_mask"),
    re.compile(r"(?P<layer>.+?)\.parametrizations\.(?P<kind>weight|bias)\.\d+\.mask"),
)
_ORIGINALS = (
    re.compile(r"(?P<layer>.+?)\.(?P<kind>weight|bias)_orig"),
    re.compile(r"(?P<layer>.+?)\.parametrizations\.(?P<kind>weight|bias)\.original"),
)
_PARAMETRIZE = "tensors of torch.nn.utils.parametrize"
_SPARSE = "sparse tensors made dense"
_REASONS = ("WeightsUnpickler error", "Trying to load unsupported")
_SAFETENSORS_DTYPES = "BOOL U8 I8 U16 I16 U32 I32 U64 I64 F16 BF16 F32 F64"
# Torch files are not compressed; a tensor of few stored numbers may still mean many, up to these bounds.
_MOST_UNPACKED = 16
_MOST_UNEXPLAINED_ELEMENTS = 1 << 21
_MOST_SPARSITY = 10_000


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a checkpoint.

    Attributes:
      values: arrays by plain name.
      masks: boolean masks (True keeps) by the plain name of the tensor that they mask.
      stored: where the values that were sparse tensors have entries; a mask where the file has no other.
      epoch: stored beside the tensors, or None.
      config: stored beside the tensors as ``model_config``, or empty.
      half: names of the values stored as float16 or float8, where small weights round to 0.
      prefixes: what was removed from the front of a value's name, by plain name.
      notes: one sentence for each adaptation.
    """

    values: dict[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])
    masks: dict[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])
    stored: dict[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])
    epoch: int | None = None
    config: dict[str, Any] = field(default_factory=dict[str, Any])
    half: set[str] = field(default_factory=set[str])
    prefixes: dict[str, str] = field(default_factory=dict[str, str])
    notes: list[str] = field(default_factory=list[str])


def read_checkpoint(source: PathLike | Mapping[str, Any], attributes: Collection[str] = ()) -> Checkpoint:
    """Read a file, or take a dict as ``torch.load`` returns it.

    Forms: the tensors themselves, or in an envelope (``model_state_dict``, ``state_dict``, ``model``, ``params`` or
    ``ema``) with ``epoch`` and ``model_config`` beside it. Prefixes of wrappers (``module.``, ``model.``, ``net.``,
    ``_orig_mod.``, ``backbone.``, and those of Hugging Face: ``transformer.``, ``bert.``, ``vit.``, ``resnet.``)
    disappear unless the model has such an attribute. Masks: ``L._weight_mask`` with
    ``L._layer.weight``; ``L.weight_orig`` with ``L.weight_mask`` (torch.nn.utils.prune);
    ``L.parametrizations.weight.original`` with ``L.parametrizations.weight.0.mask`` (torch.nn.utils.parametrize); the
    stored entries of a sparse COO, CSR or CSC tensor. ``num_batches_tracked`` is ignored.

    Args:
      source: path (``.safetensors`` is read without torch, everything else by torch), or a dict of torch tensors or
        NumPy arrays.
      attributes: names of the model's attributes, which are not prefixes.

    Returns:
      The `Checkpoint`; floating tensors of torch become float64, which represents every narrower type exactly.

    Raises:
      FileNotFoundError: no such file.
      ImportError: the reader for this file type is not installed.
      ValueError: not a checkpoint, or one with pickled objects other than tensors; a tensor that is quantized, or out
        of proportion to its stored numbers; two names of one tensor; a mask with values other than 0 and 1.

    >>> eye = np.eye(2)
    >>> checkpoint = read_checkpoint({"epoch": 3, "state_dict": {"module.fc.weight_orig": eye, "fc.weight_mask": eye}})
    >>> list(checkpoint.values), checkpoint.masks["fc.weight"].tolist(), checkpoint.epoch
    (['fc.weight'], [[True, False], [False, True]], 3)
    """
    content: Any = source
    if not isinstance(source, Mapping):
        path = existing_file(_FUNCTION, source)
        content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    if not isinstance(content, Mapping):
        fail(_FUNCTION, "checkpoint", f"type {type(content).__name__}", "a dict of tensors")
    state, result = _unwrap(content)
    prefixes: dict[str, int] = {}
    forms: dict[str, int] = {}
    for original, tensor in state.items():
        name = _without_prefixes(str(original), attributes, prefixes)
        if not name.endswith("num_batches_tracked"):
            _add(result, str(original), name, tensor, forms)
    result.masks.update((name, stored) for name, stored in result.stored.items() if name not in result.masks)
    result.notes.extend(f"prefix {prefix!r} removed from {count} names" for prefix, count in prefixes.items())
    result.notes.extend(f"{form}: {count}" for form, count in forms.items())
    if forms.get(_PARAMETRIZE) and not any("parametrizations" in str(name) and "mask" in str(name) for name in state):
        result.notes.append("no mask of a parametrization is stored (for torch.ao.pruning call squash_mask() first)")
    return result


def _unwrap(content: Mapping[str, Any]) -> tuple[Mapping[str, Any], Checkpoint]:
    notes: list[str] = []
    state, epoch, config = content, None, None
    present = [key for key in _ENVELOPES if key in content]
    # "model" and the like may also be the name of a tensor or of a module pickled whole.
    present = [key for key in present if key.endswith("state_dict") or isinstance(content[key], Mapping)]
    if present:
        state, epoch, config = content[present[0]], content.get("epoch"), content.get("model_config")
        if not present[0].endswith("state_dict") or len(present) > 1:
            others = f"; {', '.join(present[1:])} not read" if len(present) > 1 else ""
            notes.append(f"tensors read from {present[0]!r}{others}")
    if not isinstance(state, Mapping):
        fail(_FUNCTION, "checkpoint", f"a state of type {type(state).__name__}", "a dict of tensors")
    if config is not None and not isinstance(config, Mapping):
        fail(_FUNCTION, "checkpoint", f"a model_config of type {type(config).__name__}", "a dict")
    if epoch is not None and not isinstance(epoch, int):
        fail(_FUNCTION, "checkpoint", f"an epoch of type {type(epoch).__name__}", "an integer")
    return state, Checkpoint(epoch=epoch, config=dict(config or {}), notes=notes)


def _without_prefixes(name: str, attributes: Collection[str], counts: dict[str, int]) -> str:
    while (first := name.partition(".")[0]) in _PREFIXES and first not in attributes and "." in name:
        counts[f"{first}."] = counts.get(f"{first}.", 0) + 1
        name = name[len(first) + 1 :]
    return name


def _add(result: Checkpoint, original: str, name: str, tensor: Any, forms: dict[str, int]) -> None:
    """Add a tensor to the values or to the masks, under the name that an unwrapped model would have."""
    prefix = original.removesuffix(name)
    array, stored = _to_numpy(original, tensor)
    matched = next(filter(None, (form.fullmatch(name) for form in _MASKS)), None)
    if matched:
        target, name, array = result.masks, f"{matched['layer']}.{matched['kind']}", _as_mask(original, array)
        if "parametrizations" in original and name in target:  # several parametrizations of one tensor
            other = target.pop(name)
            if other.shape != array.shape:
                fail(_FUNCTION, f"mask {original!r}", f"shape {array.shape}", f"{other.shape}, as the one before it")
            array &= other
    else:
        target, name = result.values, name.replace("._layer.", ".")
        matched = next(filter(None, (form.fullmatch(name) for form in _ORIGINALS)), None)
        if matched:
            name = f"{matched['layer']}.{matched['kind']}"
            form = _PARAMETRIZE if "parametrizations" in original else "tensors of torch.nn.utils.prune"
            forms[form] = forms.get(form, 0) + 1
        if str(getattr(tensor, "dtype", "")).rpartition(".")[2] in ("float16", "float8_e4m3fn", "float8_e5m2"):
            result.half.add(name)
    if name in target:
        fail(_FUNCTION, "checkpoint", f"two entries for {name!r}", "one", f"{original!r} is the second.")
    target[name] = array
    if prefix and target is result.values:
        result.prefixes[name] = prefix
    if stored is not None and target is result.values:
        forms[_SPARSE] = forms.get(_SPARSE, 0) + 1
        result.stored[name] = stored


def _as_mask(name: str, array: np.ndarray) -> np.ndarray:
    if not np.isin(array, (0, 1)).all():
        fail(_FUNCTION, f"mask {name!r}", "values other than 0 and 1", "1 to keep a weight and 0 to prune it")
    return array.astype(bool)


def _to_numpy(name: str, value: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Return a tensor as an array, and where its entries are stored if it is sparse."""
    entry, stored = f"entry {name!r}", None
    if hasattr(value, "detach"):
        if getattr(value, "is_quantized", False):
            fail(_FUNCTION, entry, f"quantized dtype {value.dtype}", "floating point", "Save tensor.dequantize().")
        try:
            value = value.detach().cpu()
            layout = str(value.layout).removeprefix("torch.")
            if layout == "strided":
                _check_size(entry, value.numel(), value.untyped_storage().nbytes() // value.element_size())
                value = _plain(value)
            else:
                value, stored = _densify(entry, value, layout)
        except (RuntimeError, TypeError, NotImplementedError) as error:
            reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            text = message(_FUNCTION, entry, f"a form that NumPy cannot take ({reason})", "a dense or sparse tensor")
            raise ValueError(text) from error
    if not isinstance(value, np.ndarray):
        fail(_FUNCTION, entry, f"type {type(value).__name__}", "a tensor")
    # jnp.issubdtype, unlike NumPy's, counts bfloat16 among the floats.
    if not any(jnp.issubdtype(value.dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_)):
        fail(_FUNCTION, entry, f"dtype {value.dtype}", "a real dtype")
    return value, stored


def _plain(tensor: Any) -> np.ndarray:
    # NumPy has no bfloat16; float64 represents every torch float exactly.
    return (tensor.double() if tensor.is_floating_point() else tensor).numpy()


def _check_size(entry: str, elements: int, stored: int) -> None:
    if elements > max(_MOST_UNEXPLAINED_ELEMENTS, stored):
        fail(_FUNCTION, entry, f"{elements} elements and {stored} stored numbers", "a size that its numbers explain")


def _densify(entry: str, tensor: Any, layout: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a sparse COO, CSR or CSC tensor as a dense array, and where it has entries.

    Indices are checked here, since torch does not check them again before it writes.
    """
    if layout == "sparse_coo":
        indices, values = tensor._indices().numpy(), _plain(tensor._values())
    elif layout in ("sparse_csr", "sparse_csc") and tensor.ndim == 2:
        by_row = layout == "sparse_csr"
        starts = (tensor.crow_indices() if by_row else tensor.ccol_indices()).numpy()
        minor = (tensor.col_indices() if by_row else tensor.row_indices()).numpy()
        values = _plain(tensor.values())
        counts = np.diff(starts)
        if len(starts) != tensor.shape[not by_row] + 1 or (counts < 0).any() or counts.sum() != len(minor):
            fail(_FUNCTION, entry, "malformed index pointers", f"{len(minor)} entries in rising order")
        major = np.repeat(np.arange(len(counts)), counts)
        indices = np.stack([major, minor] if by_row else [minor, major])
    else:
        fail(_FUNCTION, entry, f"layout {layout} of {tensor.ndim} axes", "dense, COO, CSR or CSC")
    shape = tuple(tensor.shape)
    _check_size(entry, tensor.numel(), _MOST_SPARSITY * values.size)
    sides = np.array(shape[: len(indices)]).reshape(-1, 1)
    if indices.shape[1] != len(values) or (indices < 0).any() or (indices >= sides).any():
        fail(_FUNCTION, entry, "indices out of range", f"indices within {shape}")
    dense, stored = np.zeros(shape, values.dtype), np.zeros(shape, bool)
    np.add.at(dense, tuple(indices), values)
    stored[tuple(indices)] = True
    return dense, stored


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        from safetensors import safe_open
    except ImportError as error:
        raise _not_installed(path, "safetensors") from error
    try:
        with safe_open(path, framework="numpy") as file:
            dtypes = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
            unknown = next((name for name, dtype in dtypes.items() if dtype not in _SAFETENSORS_DTYPES.split()), None)
            if unknown is None:
                return {name: file.get_tensor(name) for name in dtypes}
    except Exception as error:
        raise unreadable(_FUNCTION, path, error, "safetensors") from error
    got = f"entry {unknown[:60]!r} of dtype {dtypes[unknown]}"
    fail(_FUNCTION, f"file {str(path)!r}", got, f"dtypes among {_SAFETENSORS_DTYPES}", "Convert it before saving.")


def _read_torch(path: Path) -> Any:
    try:
        import torch
    except ImportError as error:
        raise _not_installed(path, "torch") from error
    try:
        _check_torch_file(path)
        with warnings.catch_warnings(), torch.sparse.check_sparse_tensor_invariants():
            warnings.simplefilter("ignore", UserWarning)  # torch: some layouts are in beta
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, zipfile and pickle raise many kinds for damaged files
        lines = [line.strip() for line in str(error).splitlines()] or [type(error).__name__]
        # torch's own advice is to load unsafely; the reason stands in a later line.
        reason = next((line for line in lines if line.startswith(_REASONS)), lines[0])
        text = message(
            _FUNCTION,
            f"file {str(path)!r}",
            f"content that cannot be loaded safely ({reason.partition(' Please use')[0][:200]})",
            "a torch file of tensors, numbers and strings",
            "Objects of other types are never unpickled; save model.state_dict() alone.",
        )
        raise ValueError(text) from error


def _check_torch_file(path: Path) -> None:
    """Refuse files that unpack to far more than their size, or whose pickles do."""
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":  # the format before torch 1.6: five pickles, then the numbers
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                check_pickles(content, 5)
            return
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if sum(member.file_size for member in members) > _MOST_UNPACKED * path.stat().st_size:
            raise ValueError("it unpacks to far more than its size")
        for member in members:
            if member.filename.endswith(".pkl"):
                check_pickles(io.BytesIO(archive.read(member)))


def _not_installed(path: Path, package: str) -> ImportError:
    expected = f"{package} to read {path.suffix or 'this'} files"
    hint = "Install it: pip install 'sparsejax[all]'."
    return ImportError(message(_FUNCTION, "the environment", f"no {package}", expected, hint))
