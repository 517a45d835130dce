"""What changes during a run, and its two forms: dense weights under a mask, or stored weights alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from flax import nnx

from sparsejax import nn, pruning
from sparsejax._checks import fail

Masks = Mapping[str, np.ndarray]

# Where masks follow one threshold for all layers, a layer's room grows by this part of its average share at a time.
_BUCKETS = 16


@dataclass(frozen=True)
class TrainState:
    """Model, optimizer and progress. Steps change the variables of the first two in place.

    Attributes:
      model: the NNX module.
      optimizer: its optimizer, ``pruned(...)`` in both forms.
      step: steps done.
      is_stored: whether the pruned layers store their weights in compressed form.
      support: masks by layer of the sparse network, or of the last one there was; None before the first.
    """

    model: nnx.Module
    optimizer: nnx.Optimizer[Any]
    step: int
    is_stored: bool
    support: Masks | None


class Storage:
    """Moves a run from dense weights under a mask to stored weights alone, and back.

    In both directions weights, momentum, masks, batch statistics and counters go on as they are. Dropped weights are
    not kept anywhere: the wrapper has set them, and what the optimizer keeps for them, to zero.

    Attributes:
      kept_dense: paths of the layers that are not pruned.
      capacity: entries that a layer has room for, by path: constant while masks fit, so that no program is compiled
        again.
    """

    def __init__(self, kept_dense: tuple[str, ...], plan: pruning.PruningReport | None) -> None:
        self.kept_dense = kept_dense
        self._bucket = {}
        for row in () if plan is None else plan.rows:
            if row.capacity is not None:
                varies = row.capacity.kind == "scores"
                self._bucket[_layer(row.path)] = max(1, row.kept // _BUCKETS) if varies else 1
        self.capacity: dict[str, int] = {}

    def to_stored(self, state: TrainState) -> TrainState:
        """Store the weights inside the mask, of parameters and of everything that the optimizer keeps per weight."""
        assert state.support is not None  # no phase "sparse" precedes the first sparse mask
        model = self.sparse_model(state.model, state.support)
        optimizer = nn.carry_optimizer(state.optimizer, state.model, model)
        return replace(state, model=model, optimizer=optimizer, is_stored=True)

    def to_dense(self, state: TrainState) -> TrainState:
        """Lay the stored weights out again, zeros elsewhere; the mask stays in force."""
        model = nn.densify(state.model)
        optimizer = nn.carry_optimizer(state.optimizer, state.model, model)
        return replace(state, model=model, optimizer=optimizer, is_stored=False)

    def sparse_model(self, model: nnx.Module, masks: Masks) -> nnx.Module:
        """The model with every masked layer stored sparse.

        Choices by timing could differ from run to run, and with them the bits of the result: so the policy is
        "always". Every layer is converted, whatever its sparsity, because nothing else would hold its pruned weights
        at zero.
        """
        sparse, report = nn.sparsify(model, masks, min_sparsity=0.0, policy="always", skip=self.kept_dense)
        for row in report.rows:
            if row.action == "dense" and row.path not in self.kept_dense:
                got = f"no sparse form: {row.reason}"
                fail("train", f"layer {row.path!r}", got, "only layers that sparsify converts")
        for path, mask in masks.items():
            bucket = self._bucket[path]
            needed = -(-int(mask.sum()) // bucket) * bucket
            self.capacity[path] = max(needed, self.capacity.get(path, 0))
        for path, layer in nnx.iter_modules(sparse):
            if isinstance(layer, (nn.SparseLinear, nn.SparseConv)):
                layer.reserve(self.capacity["/".join(map(str, path))])
        return sparse


def sparse_masks(optimizer: nnx.Optimizer[Any]) -> dict[str, np.ndarray] | None:
    """Masks by layer path, as an optimizer with dense weights holds them; None where they keep every weight."""
    opt_state = nnx.as_pure(optimizer.opt_state)
    if not isinstance(opt_state, pruning.PrunedState):
        return None
    leaves, _ = jax.tree_util.tree_flatten_with_path(pruning.get_mask(opt_state))
    masks = {_layer(jax.tree_util.keystr(path, simple=True, separator="/")): np.asarray(mask) for path, mask in leaves}
    return None if all(mask.all() for mask in masks.values()) else masks


def with_new_mask(state: TrainState) -> tuple[TrainState, bool, float | None]:
    """After a step: take note of the mask if the step has changed it.

    Returns:
      The state; whether the mask is a new one; and the share of the previous support that it leaves out, None where
      there was no sparse network before, or where it keeps every weight.
    """
    opt_state = nnx.as_pure(state.optimizer.opt_state)
    if state.is_stored or not isinstance(opt_state, pruning.PrunedState) or int(opt_state.change.step) != state.step:
        return state, False, None
    masks = sparse_masks(state.optimizer)
    if masks is None:
        return state, True, None
    lost = None if state.support is None else _lost(state.support, masks)
    return replace(state, support=masks), True, lost


def sparsity(state: TrainState) -> float:
    """Fraction of zeros among the prunable weights; 0 where nothing is pruned."""
    opt_state = nnx.as_pure(state.optimizer.opt_state)
    if not isinstance(opt_state, pruning.PrunedState) or state.support is None:
        return 0.0
    size = sum(math.prod(mask.shape) for mask in state.support.values())
    return 1.0 - sum(int(count) for count in jax.tree.leaves(opt_state.nnz)) / size


def _lost(old: Masks, new: Masks) -> float:
    stayed = sum(int((old[path] & new[path]).sum()) for path in new)
    return 1.0 - stayed / sum(int(mask.sum()) for mask in old.values())


def _layer(kernel: str) -> str:
    """Path of the layer that a kernel belongs to."""
    return kernel.removesuffix("kernel").removesuffix("/")
