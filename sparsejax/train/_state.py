"""What changes during a run, and the move from masked dense weights to stored ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import optax
from flax import nnx

from sparsejax import nn, pruning
from sparsejax._checks import fail


@dataclass(frozen=True)
class TrainState:
    """Model, optimizer and progress. Steps change the variables of the first two in place.

    Attributes:
      model: the NNX module.
      optimizer: its optimizer.
      step: steps done.
      is_sparse: whether the pruned layers store their weights in compressed form.
    """

    model: Any
    optimizer: nnx.Optimizer
    step: int
    is_sparse: bool

    def sparsity(self) -> float:
        """Fraction of zeros among the prunable weights; 0 where nothing is pruned."""
        if self.is_sparse:
            patterns = [variable.get_value() for variable in _patterns(self.model)]
            size = sum(pattern.rows * pattern.columns for pattern in patterns)
            return 1.0 - sum(int(pattern.indptr[-1]) for pattern in patterns) / size
        if isinstance(self.optimizer.opt_state, pruning.PrunedState):
            return float(pruning.metrics(self.optimizer.opt_state)["sparsity"])
        return 0.0


def _patterns(model: Any) -> list[nn.Pattern]:
    leaves = [node for _, node in nnx.iter_graph(model, graph=True)]
    return [node for node in leaves if isinstance(node, nn.Pattern)]


def to_sparse(state: TrainState, inner: optax.GradientTransformation, kept_dense: tuple[str, ...]) -> TrainState:
    """Convert at the end of phase "prune": values-only parameters and optimizer state, by the optimizer's masks.

    The momentum of stored weights, the batch statistics and the counters go on as they are.

    Args:
      state: of a masked dense model whose optimizer is ``pruned(inner, ...)``.
      inner: the optimizer without its pruning wrapper; the pattern now does what the mask did.
      kept_dense: paths of the layers that were not pruned.
    """
    model = sparse_model(state.model, pruning.get_mask(state.optimizer.opt_state), kept_dense)
    unwrapped = nnx.Optimizer(state.model, inner, wrt=nnx.Param)
    unwrapped.opt_state = state.optimizer.opt_state.inner
    unwrapped.step = state.optimizer.step
    return TrainState(model, nn.carry_optimizer(unwrapped, state.model, model), state.step, True)


def sparse_model(model: Any, masks: Mapping[str, Any], kept_dense: tuple[str, ...]) -> Any:
    """The model with every masked layer stored sparse.

    Choices by timing could differ from run to run, and with them the bits of the result: so the policy is "always".
    Every layer is converted, whatever its sparsity, because nothing else would hold its pruned weights at zero.
    """
    sparse, report = nn.sparsify(model, masks, min_sparsity=0.0, policy="always", skip=kept_dense)
    for row in report.rows:
        if row.action == "dense" and row.path not in kept_dense:
            fail(
                "train",
                f"layer {row.path!r}",
                f"no sparse form: {row.reason}",
                "only layers that sparsify converts",
            )
    return sparse
