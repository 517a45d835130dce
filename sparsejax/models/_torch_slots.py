"""The variables of a model under the names and in the layout that PyTorch has for them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from flax import nnx

from sparsejax._checks import fail
from sparsejax.nn import SparseLayer, modules_of

_TORCH_NAMES = {
    "kernel": "weight",
    "scale": "weight",
    "embedding": "weight",
    "mean": "running_mean",
    "var": "running_var",
}
Form: TypeAlias = Literal["matrix", "window", "transposed_window", "flat", "same"]


@dataclass(frozen=True)
class Slot:
    """A parameter or batch statistic of a model, and its name and shape in PyTorch.

    Attributes:
      path: of the variable in the model.
      name: in PyTorch, such as "layer1.0.conv1.weight".
      shape: of the array in Flax.
      torch_shape: of the tensor in PyTorch.
      form: how the two are related: "matrix" (in, out) to (out, in), each side perhaps of several axes in Flax;
        "window" (*window, in, out) to (out, in, *window); "transposed_window" the same for a transposed convolution,
        (in, out, *window) with the window turned round; "flat" is a bias of several axes; "same" everything else.
      dtype: of the array in Flax.
      is_embedding: an ``nnx.Embed`` holds it.
    """

    path: tuple[Any, ...]
    name: str
    shape: tuple[int, ...]
    torch_shape: tuple[int, ...]
    form: Form
    dtype: Any
    is_embedding: bool = False

    @property
    def layer(self) -> str:
        """Path of the layer, joined by "/"."""
        return "/".join(map(str, self.path[:-1]))

    @property
    def is_kernel(self) -> bool:
        """Whether it is the kernel of a layer: what masks of pruning are for."""
        return self.form in ("matrix", "window", "transposed_window")

    def to_flax(self, array: np.ndarray) -> np.ndarray:
        """Move an array of ``torch_shape`` into the layout of Flax."""
        if self.form == "window":
            return array.transpose(*range(2, array.ndim), 1, 0)
        if self.form == "transposed_window":
            return np.flip(array, tuple(range(2, array.ndim))).transpose(*range(2, array.ndim), 0, 1)
        return array.T.reshape(self.shape) if self.form == "matrix" else array.reshape(self.shape)

    def to_torch(self, array: np.ndarray) -> np.ndarray:
        """Move an array of Flax's shape into the layout of PyTorch."""
        axes = range(array.ndim - 2)
        if self.form == "window":
            return array.transpose(-1, -2, *axes)
        if self.form == "transposed_window":
            return np.flip(array.transpose(-2, -1, *axes), tuple(range(2, array.ndim)))
        return array.reshape(self.torch_shape[::-1]).T if self.form == "matrix" else array.reshape(self.torch_shape)


def slots_of(function: str, model: nnx.Module) -> dict[str, Slot]:
    """Return every parameter and batch statistic of a dense model by its PyTorch name.

    Raises:
      ValueError: the model has sparse layers.
    """
    sparse = modules_of(model, SparseLayer)
    if sparse:
        got = f"a sparse layer {next(iter(sparse))!r}"
        fail(function, "model", got, "only dense layers", "Load first, then sparsify.")
    holders = modules_of(model, nnx.Module)
    slots: dict[str, Slot] = {}
    for path, variable in nnx.to_flat_state(nnx.state(model, (nnx.Param, nnx.BatchStat))):
        slot = _slot(path, variable, holders.get("/".join(map(str, path[:-1]))))
        slots[slot.name] = slot
    return slots


def _slot(path: tuple[Any, ...], variable: Any, holder: nnx.Module | None) -> Slot:
    name = ".".join((*map(str, path[:-1]), _TORCH_NAMES.get(path[-1], str(path[-1]))))
    shape = tuple(variable.shape)
    form, torch_shape = _form(path[-1], shape, holder)
    return Slot(path, name, shape, torch_shape, form, variable.dtype, isinstance(holder, nnx.Embed))


def _form(attribute: Any, shape: tuple[int, ...], holder: Any) -> tuple[Form, tuple[int, ...]]:
    if attribute == "kernel":
        if isinstance(holder, nnx.Conv):
            return "window", (shape[-1], shape[-2], *shape[:-2])
        if isinstance(holder, nnx.ConvTranspose) and not holder.transpose_kernel:
            return "transposed_window", (shape[-2], shape[-1], *shape[:-2])
        if isinstance(holder, nnx.Linear) and len(shape) == 2:
            return "matrix", (shape[1], shape[0])
        if isinstance(holder, nnx.LinearGeneral) and not holder.batch_axis:
            inputs = len(holder.in_features)
            return "matrix", (math.prod(shape[inputs:]), math.prod(shape[:inputs]))
    if attribute == "bias" and isinstance(holder, nnx.LinearGeneral) and not holder.batch_axis:
        return "flat", (math.prod(shape),)
    return "same", shape
