"""Training under a fixed mask: sparse kernels where they are faster, the optimizer's mask elsewhere."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax
import numpy as np
import optax
from flax import nnx
from numpy.typing import ArrayLike

from sparsejax import nn, pruning
from sparsejax._checks import fail
from sparsejax._typing import PyTree
from sparsejax.nn import dense_kernels
from sparsejax.nn._policy import Policy

KernelChoice = Literal["sparse", "dense"]


@dataclass(frozen=True)
class FixedMask:
    """A network whose pruned weights stay zero.

    Attributes:
      model: the network; its sparse layers store the kept weights only.
      masks: bool array of the kernel's shape for each layer that has zeros, true keeps, by layer path.
      prunable: paths of the layers whose weights count in `sparsity`.
      report: what ``sparsify`` did and, with policy "measured", the times behind it; None with dense kernels.
    """

    model: nnx.Module
    masks: dict[str, np.ndarray]
    prunable: tuple[str, ...]
    report: nn.SparsifyReport | None = None

    @property
    def stored(self) -> tuple[str, ...]:
        """Paths of the layers that store their kept weights only."""
        return tuple(nn.pattern_masks(self.model))

    def optimizer(self, inner: optax.GradientTransformation) -> nnx.Optimizer[Any]:
        """Return an optimizer that keeps dense layers inside their masks; sparse layers cannot leave theirs."""
        stored = nn.pattern_masks(self.model)
        remaining = {path: mask for path, mask in self.masks.items() if path not in stored}
        if not remaining:
            return nnx.Optimizer(self.model, inner, wrt=nnx.Param)
        tree = {f"{path}/kernel" if path else "kernel": jax.numpy.asarray(mask) for path, mask in remaining.items()}
        method = pruning.fixed(_nested(tree))
        tx = pruning.pruned(inner, method, where=lambda path, leaf: path in tree)
        optimizer = nnx.Optimizer(self.model, tx, wrt=nnx.Param)
        optimizer.tx = _update_of(inner)
        return optimizer

    def sparsity(self) -> float:
        """Fraction of zeros among the weights of the prunable layers."""
        kernels = dense_kernels(self.model)
        size = sum(kernels[path].size for path in self.prunable)
        return 1.0 - sum(int(np.count_nonzero(kernels[path])) for path in self.prunable) / size if size else 0.0

    def check(self, function: str) -> None:
        """Refuse a network with a weight outside its mask, or whose stored pattern is another.

        Raises:
          RuntimeError: the layer, and how many weights.
        """
        kernels, stored = dense_kernels(self.model), nn.pattern_masks(self.model)
        for path, mask in self.masks.items():
            outside = int(np.count_nonzero(kernels[path][~mask]))
            if outside or (path in stored and not np.array_equal(stored[path], mask)):
                got = f"{outside} weights outside its mask" if outside else "another pattern"
                fail(function, f"layer {path!r}", got, "the mask it started with", error=RuntimeError)


def fix_masks(
    model: nnx.Module,
    masks: Mapping[str, ArrayLike] | None = None,
    *,
    kernels: KernelChoice = "sparse",
    min_sparsity: float = 0.8,
    keep_dense: Collection[str] = (),
    policy: Policy = "always",
    sample_input: PyTree = None,
    stored: Collection[str] | None = None,
) -> FixedMask:
    """Prepare a network for training with a fixed mask.

    Args:
      model: NNX module, dense with zeros or already sparse. It is not changed.
      masks: bool array of the kernel's shape by layer path, true keeps the weight. None: the patterns of sparse layers
        and, in dense ones, the weights that are not zero. (A checkpoint without masks has none but its zeros; taking
        all of them for trainable would fill the network again.)
      kernels: "sparse" stores layers of at least ``min_sparsity`` compressed; "dense" multiplies by the zeros.
      min_sparsity: of a layer, from which sparse kernels are used.
      keep_dense: paths of layers without mask, such as a new classifier; they are not counted as prunable.
      policy: which of the layers of at least ``min_sparsity`` are stored compressed: "always" all of them, so that
        the choice depends on the masks alone; "measured" those that are then faster on ``sample_input``; see
        `sparsejax.sparsify`.
      sample_input: an input of the model, for "measured".
      stored: paths of the layers to store compressed, whatever their sparsity; an earlier choice is repeated.

    Returns:
      `FixedMask`.

    Raises:
      ValueError: a mask for no layer, of another shape or dtype, or with weights outside it that are not zero.

    Source: Iofinova et al. 2022, full fine-tuning: w <- mask * w at every step.

    >>> from sparsejax.models import MLP
    >>> model = MLP(4, 2, hidden=(3,), rngs=nnx.Rngs(0))
    >>> model.layers[0].kernel[...] = model.layers[0].kernel[...].at[:2].set(0)
    >>> fix_masks(model, keep_dense=("fc",)).sparsity()
    0.5
    """
    if kernels not in ("sparse", "dense"):
        fail("fix_masks", "kernels", f"value {kernels!r}", "'sparse' or 'dense'")
    patterns = nn.pattern_masks(model)
    dense = nn.densify(model)
    values = {path: kernel for path, kernel in dense_kernels(dense).items() if path not in keep_dense}
    if masks is None:
        kept: dict[str, np.ndarray] = {
            path: patterns[path] if path in patterns else np.asarray(kernel != 0) for path, kernel in values.items()
        }
    else:
        kept = {path: _checked(path, mask, values) for path, mask in masks.items() if path not in keep_dense}
    kept = {path: mask for path, mask in kept.items() if not mask.all()}
    report = None
    if kernels == "sparse" and kept:
        chosen = kept if stored is None else {path: mask for path, mask in kept.items() if path in stored}
        rest = {path for path in dense_kernels(dense) if path not in chosen}
        least = min_sparsity if stored is None else 0.0
        policy = policy if stored is None else "always"
        options: Any = {"min_sparsity": least, "policy": policy, "skip": rest, "sample_input": sample_input}
        dense, report = nn.sparsify(dense, chosen, **options)
    return FixedMask(dense, kept, tuple(values), report)


def _checked(path: str, mask: Any, kernels: Mapping[str, np.ndarray]) -> np.ndarray:
    mask = np.asarray(mask)
    if path not in kernels:
        fail("fix_masks", "masks", f"an entry for {path!r}", f"layers of the model: {', '.join(kernels)}")
    kernel = kernels[path]
    if mask.dtype != np.bool_ or mask.shape != kernel.shape:
        got = f"dtype {mask.dtype} and shape {mask.shape}"
        fail("fix_masks", f"the mask of {path!r}", got, f"bool{list(kernel.shape)}, that of the kernel")
    outside = int(np.count_nonzero(kernel[~mask]))
    if outside:
        fail(
            "fix_masks",
            f"the mask of {path!r}",
            f"{outside} nonzero weights outside it",
            "none",
            "Is it another model's?",
        )
    return mask


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        *parents, last = path.split("/")
        node = tree
        for name in parents:
            node = node.setdefault(name, {})
        node[last] = leaf
    return tree


@functools.lru_cache(maxsize=64)
def _update_of(inner: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """The update of a fixed mask, which reads it from the state: one function, compiled once, for all masks."""
    return pruning.pruned(inner, pruning.fixed({}))
