"""What a training step costs, dense against sparse, measured so that the ratio can be trusted."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import jax
import optax
from flax import nnx

from sparsejax import nn
from sparsejax._checks import fail
from sparsejax._typing import ArrayLike
from sparsejax.train._steps import StepKind, bind_step, forward_of_kind

_WARM_UP = 2


@dataclass(frozen=True)
class StepCost:
    """Cost of one training step, and what the model occupies.

    Attributes:
      ms: median wall time of a step, milliseconds.
      parameter_bytes: trained values.
      pattern_bytes: index arrays of sparse layers.
      optimizer_bytes: state of the optimizer.
    """

    ms: float
    parameter_bytes: int
    pattern_bytes: int
    optimizer_bytes: int


@dataclass(frozen=True)
class StepComparison:
    """The same training step on a dense and on a sparse model.

    Attributes:
      dense, sparse: cost of each.
      repeats: timed steps of each.
      ratios: time of the dense step divided by that of the sparse one, for each pair of them.
    """

    dense: StepCost
    sparse: StepCost
    repeats: int
    ratios: tuple[float, ...] = ()

    @property
    def speedup(self) -> float:
        """Time of the dense step divided by that of the sparse one: above 1 the sparse model is faster."""
        return self.dense.ms / self.sparse.ms

    def to_dict(self) -> dict[str, Any]:
        """All numbers, for JSON."""
        return asdict(self) | {"ratios": list(self.ratios), "speedup": self.speedup}


def compare_steps(
    dense: nnx.Module,
    sparse: nnx.Module,
    tx: optax.GradientTransformation,
    images: ArrayLike,
    labels: ArrayLike,
    *,
    repeats: int = 9,
) -> StepComparison:
    """Time a training step of a dense and of a sparse model alternately, on the same batch.

    A B A B ... with A the dense and B the sparse step, after two unmeasured ones of each; medians

    Args:
      dense: classifier with dense layers, in training mode; ``densify(sparse)`` is the fair one.
      sparse: the same with sparse layers.
      tx: optimizer of both; its state is made afresh for each.
      images: float[B, H, W, C].
      labels: int[B].
      repeats: timed steps of each model, at least 7. The ratio is good to a few percent on a quiet machine.

    Returns:
      A ``StepComparison``. The models are not changed: copies are trained.

    Raises:
      ValueError: fewer than seven repeats.

    Source: timed alternately, as in every timing of this project: a slow spell of the machine affects both.

    >>> from sparsejax.models import MLP
    >>> import jax.numpy as jnp
    >>> model = MLP(4, 2, hidden=(8,), rngs=nnx.Rngs(0))
    >>> sparse, _ = nn.sparsify(model, min_sparsity=0.0, policy="always")
    >>> cost = compare_steps(model, sparse, optax.sgd(0.1), jnp.ones((2, 4)), jnp.array([0, 1]), repeats=7)
    >>> cost.dense.parameter_bytes, cost.dense.pattern_bytes
    (232, 0)
    """
    if repeats < 7:
        fail("compare_steps", "repeats", f"value {repeats}", "at least 7", "Medians of fewer are not stable.")
    copies = [nnx.clone(model) for model in (dense, sparse)]
    optimizers = [nnx.Optimizer(model, tx, wrt=nnx.Param) for model in copies]
    steps = [bind_step(*pair) for pair in zip(copies, optimizers, strict=True)]
    times: list[list[float]] = [[], []]
    for _ in range(_WARM_UP + repeats):
        for step, log in zip(steps, times, strict=True):
            log.append(_milliseconds(step, images, labels))
    costs = [
        StepCost(statistics.median(log[_WARM_UP:]), **model_bytes(model, optimizer))
        for log, model, optimizer in zip(times, copies, optimizers, strict=True)
    ]
    ratios = tuple(a / b for a, b in zip(*(log[_WARM_UP:] for log in times), strict=True))
    return StepComparison(costs[0], costs[1], repeats, ratios)


def forward_ms(model: nnx.Module, kind: StepKind, images: Any, labels: Any, *, repeats: int = 3) -> float:
    """Return the median time of the forward pass of a training step, milliseconds; the model is not changed."""
    forward = functools.partial(forward_of_kind(kind), *nnx.split(model))
    jax.block_until_ready(forward(images, labels))
    times: list[float] = []
    for _ in range(repeats):
        begin = time.perf_counter()
        jax.block_until_ready(forward(images, labels))
        times.append(1e3 * (time.perf_counter() - begin))
    return statistics.median(times)


def model_bytes(model: nnx.Module, optimizer: nnx.Optimizer[Any]) -> dict[str, int]:
    """Bytes of trained values, of index arrays, and of the optimizer's state."""
    return {
        "parameter_bytes": _bytes(nnx.state(model, nnx.Param)),
        "pattern_bytes": _bytes(nnx.state(model, nn.Pattern)),
        "optimizer_bytes": _bytes(nnx.state(optimizer)),
    }


def _milliseconds(step: Callable[[Any, Any], jax.Array], images: Any, labels: Any) -> float:
    begin = time.perf_counter()
    step(images, labels).block_until_ready()
    return 1e3 * (time.perf_counter() - begin)


def _bytes(tree: Any) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))
