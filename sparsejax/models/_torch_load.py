"""Load a PyTorch checkpoint, dense or sparse, into a model."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sparsejax._checks import fail
from sparsejax._files import PathLike, naming
from sparsejax.models._head import find_head
from sparsejax.models._resnet import TORCHVISION_POOL_PADDING, PoolPadding, ResNet
from sparsejax.models._torch_checkpoint import Checkpoint, read_checkpoint
from sparsejax.models._torch_match import Entry, Match, Names, match, nearest
from sparsejax.models._torch_slots import Slot, slots_of
from sparsejax.models._vit import ViT

# In half precision this share of zeros or less may be small weights that became 0.
_MOST_ROUNDED = 0.05
# RigL's TensorFlow code pools with "SAME" padding, which for even sizes pads below and on the right only.
_RIGL_STEM = "initial_conv."
# Hugging Face's ViT adds less to the variance than timm's.
_HUGGING_FACE_VIT, _HUGGING_FACE_EPSILON = "names of Hugging Face ViT", 1e-12
_RIGL_POOL_PADDING: PoolPadding = ((0, 1), (0, 1))

_Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class LoadReport:
    """What `load_torch` loaded and adapted.

    Attributes:
      loaded: torch names of the variables that were written, in the model's order.
      masks: for each layer with pruned weights, its path in the model joined by "/" ("layer1/0/conv1") and
        the boolean mask of its kernel in Flax layout; True keeps the weight.
      epoch: epoch stored in the checkpoint, or None.
      config: the checkpoint's ``model_config`` ("arch", "dataset"), or an empty dict.
      notes: one sentence for each adaptation.
      missing: torch names of the variables that the checkpoint does not have; they keep their values.
      unused: names of the checkpoint's tensors that the model has no place for.
      entries: which tensor holds which variables; `save_torch_state_dict` writes a model as it came in by it.
    """

    loaded: tuple[str, ...]
    masks: dict[str, np.ndarray]
    epoch: int | None
    config: dict[str, Any]
    notes: tuple[str, ...]
    missing: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    entries: tuple[Entry, ...] = ()

    def __str__(self) -> str:
        """Return what was loaded, what is left on both sides, and the notes, a line each."""
        pruned = sum(mask.size - int(mask.sum()) for mask in self.masks.values())
        lines = [f"{len(self.loaded)} tensors loaded, {len(self.masks)} of them with a mask ({pruned} weights pruned)"]
        lines += [f"not in the checkpoint: {', '.join(self.missing)}"] if self.missing else []
        lines += [f"not in the model: {', '.join(self.unused)}"] if self.unused else []
        return "\n".join([*lines, *self.notes])


def load_torch(
    model: nnx.Module, source: PathLike | Mapping[str, Any], names: Names | None = None, *, replace_head: bool = False
) -> LoadReport:
    """Load what fits of a PyTorch checkpoint into a dense model of any classes, in place.

    A tensor goes where its name and its shape lead. The torch name of a variable is its path in the model:
    ``layer1[0].conv1.kernel`` is ``layer1.0.conv1.weight``; a norm's ``scale, bias, mean, var`` are ``weight, bias,
    running_mean, running_var``; ``embedding`` is ``weight``. Kernels go from (out, in, h, w) to (h, w, in, out), those
    of ``nnx.LinearGeneral`` to their several axes. Names of torchvision, timm and Hugging Face for ResNet, ViT, BERT
    and GPT-2 are known. Query, key and value may be one tensor in the file (``qkv``, ``in_proj``, ``c_attn``) and three
    in the model, or the other way round. What is adapted is in the report's notes:

    - envelopes: ``model_state_dict``, ``state_dict``, ``model``, ``params``, ``ema``, with ``epoch`` and
      ``model_config`` beside them;
    - prefixes of wrappers: ``module.``, ``model.``, ``net.``, ``_orig_mod.``, ``backbone.``, and Hugging Face's
      ``transformer.``, ``bert.``, ``vit.``, ``resnet.``;
    - masks (1 keeps): ``L.weight_orig`` with ``L.weight_mask`` (torch.nn.utils.prune),
      ``L.parametrizations.weight.original`` with ``L.parametrizations.weight.0.mask`` (torch.nn.utils.parametrize),
      ``L._layer.weight`` with ``L._weight_mask``, the same for biases, and the stored entries of sparse COO, CSR and
      CSC tensors;
    - Hugging Face's epsilon of the norms, 1e-12, in a `ViT` whose checkpoint has its names;
    - the RigL stem ``initial_conv`` (a ResNet's pooling is then padded as RigL's), and a classifier stored as a 1x1
      convolution, with or without bias (STR);
    - an output layer that repeats the model's embedding.

    Masks come from the file. Where it has none for a kernel, or one of all ones, the zeros of the kernel are its mask,
    with one exception: in a float16 or float8 kernel they are a mask only if they are more than 5 % of it, because
    small weights round to 0 there. bfloat16 has the exponents of float32, so that no weight rounds to 0. Masked
    weights become exact zeros. NaN and infinite values are loaded, with a note.

    Only tensors, numbers, strings and their containers are unpickled. A file with other objects is refused: load it
    with torch where you trust it, and save ``model.state_dict()``.

    Args:
      model: an NNX module without sparse layers; load before `sparsejax.sparsify`. An abstract one
        (`nnx.eval_shape`) becomes concrete, which saves the initialisation; it must find all its tensors. Values are
        cast to the model's dtypes. `MLP` flattens images channels-last, torch channels-first: with several channels its
        first kernel must be permuted by the caller.
      source: path of a file (``.safetensors`` is read without torch, everything else by torch), or the dict.
      names: the model's torch names for the file's names, which are meant without prefixes: a dict by the whole name or
        by its first parts ("encoder.layer": "blocks"), or a function. None in place of a name leaves the tensor out.
        Names that are not in the dict stay. Without it the known families are tried.
      replace_head: keep the model's own classifier (see `find_head`) where the checkpoint's has another shape.

    Returns:
      A `LoadReport` with ``missing`` and ``unused``, what is left on both sides; its ``masks`` are in Flax layout.

    Raises:
      FileNotFoundError: no such file.
      ImportError: torch (or safetensors) is needed for this file and not installed.
      TypeError: ``names`` gives something else than a name.
      ValueError: no tensor fits; a tensor has another shape than its variable; sparse layers in the model; malformed
        masks; quantized tensors; a damaged file, or one with pickled objects. The model is unchanged then. The
        message names the file.

    >>> model = nnx.Sequential(nnx.Linear(2, 1, rngs=nnx.Rngs(0)), nnx.LayerNorm(1, rngs=nnx.Rngs(0)))
    >>> state = {"fc.weight": np.array([[3.0, 0.0]]), "fc.bias": np.array([1.0]), "extra": np.ones(2)}
    >>> print(load_torch(model, state, {"fc": "layers.0"}))
    2 tensors loaded, 1 of them with a mask (1 weights pruned)
    not in the checkpoint: layers.1.bias, layers.1.weight
    not in the model: extra
    """
    return _load("load_torch", model, source, names, replace_head=replace_head, complete=False)


def load_torch_state_dict(model: nnx.Module, source: PathLike | Mapping[str, Any]) -> LoadReport:
    """Load a PyTorch checkpoint that has exactly the tensors of a dense model, in place.

    As `load_torch`, which says what forms are read; but nothing may be left, in the model or in the checkpoint.

    Args:
      model: as for `load_torch`.
      source: as for `load_torch`.

    Returns:
      A `LoadReport`, whose ``masks`` are in Flax layout.

    Raises:
      FileNotFoundError: no such file.
      ImportError: torch (or safetensors) is needed for this file and not installed.
      ValueError: missing or left-over entries or wrong shapes, all of them named; and as `load_torch`. The model is
        unchanged then.

    >>> from sparsejax.models import MLP
    >>> model = MLP(2, 1, hidden=(), rngs=nnx.Rngs(0))
    >>> state = {"fc.weight": np.array([[3.0, 0.0]]), "fc.bias": np.array([1.0])}
    >>> report = load_torch_state_dict(model, state)
    >>> report.loaded, report.masks["fc"].tolist()
    (('fc.bias', 'fc.weight'), [[True], [False]])
    >>> model(jnp.array([[2.0, 5.0]])).tolist()
    [[7.0]]
    """
    return _load("load_torch_state_dict", model, source, None, replace_head=False, complete=True)


def _load(
    function: str,
    model: nnx.Module,
    source: PathLike | Mapping[str, Any],
    names: Names | None,
    *,
    replace_head: bool,
    complete: bool,
) -> LoadReport:
    slots = slots_of(function, model)
    with contextlib.nullcontext() if isinstance(source, Mapping) else naming(source):
        checkpoint = read_checkpoint(source, {str(slot.path[0]) for slot in slots.values()})
        shapes = {name: value.shape for name, value in checkpoint.values.items()}
        matched = match(function, shapes, slots, names)
        matched.unused += [f"{name}_mask" for name in checkpoint.masks if name not in checkpoint.values]
        _check_masks(matched, checkpoint)
        checkpoint.notes.extend(matched.notes)
        if replace_head:
            _leave_head(model, slots, matched, checkpoint.notes)
        values, masks = _assembled(matched, slots, checkpoint)
        if complete:
            _check_complete(function, matched, len(slots))
        else:
            _check_fit(function, model, slots, matched)
        return _write(model, slots, matched, checkpoint, values, masks)


def _check_masks(matched: Match, checkpoint: Checkpoint) -> None:
    """Note masks whose shape is not that of their tensor."""
    for name, mask in checkpoint.masks.items():
        value = checkpoint.values.get(name)
        if value is not None and value.shape != mask.shape:
            matched.wrong[f"{name}_mask"] = f"{name}_mask {mask.shape} instead of {value.shape}"


def _leave_head(model: nnx.Module, slots: Mapping[str, Slot], matched: Match, notes: list[str]) -> None:
    """Take the classifier out of what is to be loaded where its shape differs."""
    head = find_head(model).replace("/", ".")
    names = [name for name in slots if name.startswith(f"{head}.")]
    differing = [matched.wrong.pop(name) for name in names if name in matched.wrong]
    if differing:
        notes.append(f"the model's own {head} kept: {', '.join(differing)}")
        matched.unused += [entry.name for entry in matched.entries if entry.slots[0] in names]
        matched.entries = [entry for entry in matched.entries if entry.slots[0] not in names]
        matched.missing = [name for name in slots if name in matched.missing or name in names]


def _assembled(matched: Match, slots: Mapping[str, Slot], checkpoint: Checkpoint) -> tuple[_Arrays, _Arrays]:
    """Return values and masks by variable, in torch's layout."""
    values: _Arrays = {}
    masks: _Arrays = {}
    for index, entry in enumerate(matched.entries):
        matched.entries[index] = dataclasses.replace(entry, prefix=checkpoint.prefixes.get(entry.name, ""))
        value = _oriented(checkpoint.values[entry.name], entry)
        mask = checkpoint.masks.get(entry.name)
        keep = None if mask is None else _oriented(mask, entry)
        if keep is not None and keep.shape != value.shape:
            continue  # among the wrong shapes
        if keep is not None:
            value = np.where(keep, value, 0)
        if keep is None or keep.all():
            keep = _nonzero(entry.name, value, checkpoint) if slots[entry.slots[0]].is_kernel else keep
        start = 0
        for name in entry.slots:
            slot = slots[name]
            rows = slot.torch_shape[0] if slot.torch_shape and len(entry.slots) > 1 else len(value) if value.ndim else 0
            part = (slice(start, start + rows),) if value.ndim else ()
            into = () if entry.rows is None else (slice(*entry.rows),)
            values.setdefault(name, np.zeros(slot.torch_shape, value.dtype))[into] = value[part]
            if keep is not None:
                masks.setdefault(name, np.ones(slot.torch_shape, bool))[into] = keep[part]
            start += rows
    _add_notes(matched, slots, values, checkpoint)
    return values, masks


def _oriented(array: np.ndarray, entry: Entry) -> np.ndarray:
    return array.T if entry.transposed else array[:, :, 0, 0] if entry.window and array.ndim == 4 else array


def _add_notes(matched: Match, slots: Mapping[str, Slot], values: _Arrays, checkpoint: Checkpoint) -> None:
    """Note what was fused, split or reshaped; add biases that STR leaves out, and tied output layers."""
    notes = checkpoint.notes
    apart = sum(len(entry.slots) > 1 for entry in matched.entries)
    fused = sum(entry.rows is not None for entry in matched.entries)
    notes.extend([f"fused projections split: {apart}"] if apart else [])
    notes.extend([f"projections fused: {fused}"] if fused else [])
    if turned := sum(entry.transposed for entry in matched.entries):
        notes.append(f"matrices stored as (in, out): {turned}")
    for entry in matched.entries:
        bias = entry.slots[0].removesuffix("weight") + "bias"
        if entry.window:
            notes.append(f"{entry.name}: 1x1 convolution loaded as a linear layer")
            if bias in matched.missing:
                values[bias] = np.zeros(slots[bias].torch_shape)
                matched.missing.remove(bias)
                notes.append(f"{bias}: absent, set to zero")
    embeddings = [slot.name for slot in slots.values() if slot.is_embedding and slot.name in values]
    for name in [name for name in matched.unused if name in checkpoint.values]:
        value = checkpoint.values[name]
        tied = next((slot for slot in embeddings if np.array_equal(values[slot], value)), None)
        if tied is not None:
            matched.unused.remove(name)
            matched.entries.append(Entry(name, (tied,), prefix=checkpoint.prefixes.get(name, "")))
            notes.append(f"{name}: the same numbers as {tied}")


def _check_complete(function: str, matched: Match, count: int) -> None:
    titles = ("missing entries", "left-over entries", "wrong shapes")
    lists = (matched.missing, matched.unused, list(matched.wrong.values()))
    problems = [f"{title} {', '.join(names)}" for title, names in zip(titles, lists, strict=True) if names]
    if problems:
        hint = "Is it the same architecture, number of classes and stem? load_torch loads what fits."
        near = nearest(matched.missing, matched.unused)
        expected = f"exactly the {count} tensors of the model"
        fail(function, "checkpoint", "; ".join(problems), expected, f"{near} {hint}".strip())


def _check_fit(function: str, model: nnx.Module, slots: Mapping[str, Slot], matched: Match) -> None:
    """Refuse checkpoints of which nothing fits, or of wrong shapes, and abstract models that would stay so in part."""
    if matched.wrong:
        hint = "replace_head=True keeps the model's own classifier." if _is_head(model, matched.wrong) else ""
        fail(function, "checkpoint", f"wrong shapes {', '.join(matched.wrong.values())}", "the model's shapes", hint)
    if not matched.entries:
        got = f"no tensor that fits (it has {', '.join(matched.unused[:6]) or 'none'})"
        hint = f"{nearest(matched.missing, matched.unused)} Pass names=...".strip()
        fail(function, "checkpoint", got, f"names such as {', '.join(list(slots)[:6])}", hint)
    state = dict(nnx.to_flat_state(nnx.state(model, (nnx.Param, nnx.BatchStat))))
    abstract = [
        name for name in matched.missing if isinstance(state[slots[name].path].get_value(), jax.ShapeDtypeStruct)
    ]
    if abstract:
        hint = nearest(abstract, matched.unused) or "Initialise the model to load what fits."
        fail(function, "checkpoint", f"missing entries {', '.join(abstract)}", "all of an abstract model's", hint)


def _is_head(model: nnx.Module, wrong: Mapping[str, str]) -> bool:
    try:
        head = find_head(model).replace("/", ".")
    except ValueError:
        return False
    return all(name.startswith(f"{head}.") for name in wrong)


def _write(
    model: nnx.Module,
    slots: Mapping[str, Slot],
    matched: Match,
    checkpoint: Checkpoint,
    values: _Arrays,
    masks: _Arrays,
) -> LoadReport:
    """Put the values into the model and return the report."""
    notes = checkpoint.notes
    variables = dict(nnx.to_flat_state(nnx.state(model, (nnx.Param, nnx.BatchStat))))
    state: list[tuple[Any, Any]] = []
    kernel_masks: dict[str, np.ndarray] = {}
    loaded = [slot for slot in slots.values() if slot.name in values]
    for slot in loaded:
        mask = masks.get(slot.name)
        if mask is not None and slot.is_kernel and not mask.all():
            kernel_masks[slot.layer] = np.ascontiguousarray(slot.to_flax(mask))
        with np.errstate(over="ignore"):
            array = jnp.asarray(slot.to_flax(values[slot.name]), slot.dtype)
        if bad := array.size - int(np.isfinite(np.asarray(array)).sum()):
            notes.append(f"{slot.name}: {bad} of {array.size} values are NaN or infinite in {array.dtype}")
        state.append((slot.path, variables[slot.path].replace(array)))
    padding = TORCHVISION_POOL_PADDING
    if isinstance(model, ResNet):
        if any(entry.name.startswith(_RIGL_STEM) for entry in matched.entries):
            padding = _RIGL_POOL_PADDING
            notes.append(f"{_RIGL_STEM}weight is RigL's stem: pool_padding {padding}")
        model.pool_padding = padding
    if isinstance(model, ViT) and any(note.startswith(_HUGGING_FACE_VIT) for note in matched.notes):
        model.epsilon = _HUGGING_FACE_EPSILON
        notes.append(f"epsilon of the norms {_HUGGING_FACE_EPSILON:g}, as Hugging Face has it")
    nnx.update(model, nnx.from_flat_state(state))
    return LoadReport(
        tuple(slot.name for slot in loaded),
        kernel_masks,
        checkpoint.epoch,
        checkpoint.config,
        tuple(notes),
        tuple(matched.missing),
        tuple(matched.unused),
        tuple(matched.entries),
    )


def _nonzero(name: str, value: np.ndarray, checkpoint: Checkpoint) -> np.ndarray:
    """Return the mask that the zeros of a kernel mean, all True where rounding to 16 bits explains them."""
    keep = value != 0
    zeros = keep.size - int(keep.sum())
    if name in checkpoint.half and 0 < zeros <= _MOST_ROUNDED * keep.size:
        checkpoint.notes.append(f"{name}: {zeros} of {keep.size} zeros may be rounded weights and are no mask")
        return np.ones_like(keep)
    return keep
