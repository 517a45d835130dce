"""Operations of a network, counted by the rules of the AC/DC authors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from sparsejax import nn, pruning
from sparsejax._compat import jaxprs_in_params
from sparsejax.nn import record_inputs
from sparsejax.train.log._metrics import MetricsRow

_LAYERS = (nnx.Linear, nnx.Conv, nn.SparseLinear, nn.SparseConv)


class FlopCounter:
    """Counts the operations of a forward pass of one example, now, by the weights that are not zero."""

    def __init__(self, model: nnx.Module, image_shape: tuple[int, ...]) -> None:
        """Trace the model, without computing anything.

        Args:
          model: with dense layers.
          image_shape: (height, width, channels).
        """
        image = np.zeros((1, *image_shape), np.float32)
        evaluated = nnx.clone(model)
        evaluated.eval()
        graphdef, params, rest = nnx.split(evaluated, nnx.Param, ...)

        def forward(params: Any) -> Any:
            return nnx.merge(graphdef, params, rest)(image)

        pure = nnx.as_pure(params)
        self._layers = pruning.accounting.layer_shapes(forward, pure)
        equations = _equations(jax.make_jaxpr(forward)(pure).jaxpr)
        calls = record_inputs(model, image)
        norms = ["/".join(map(str, path)) for path, module in nnx.iter_modules(model) if type(module) is nnx.BatchNorm]
        normed = [math.prod(call.shape) for path in norms for call in calls[path]]
        relu, pooling = (sum(kind) for kind in zip((0, 0), *map(_cost, equations), strict=True))
        self._other = pruning.accounting.OtherOps(sum(normed), relu, pooling)

    @property
    def layers(self) -> Sequence[pruning.accounting.LayerShape]:
        """The layers whose products are counted."""
        return self._layers

    @property
    def dense(self) -> int:
        """Operations of the network without zeros."""
        return pruning.accounting.forward_flops(self._layers, other=self._other)

    def planned(self, report: pruning.PruningReport) -> int:
        """Operations of the sparse network that a method will make."""
        kept = {row.path: row.kept for row in report.rows if row.capacity is not None}
        return pruning.accounting.forward_flops(self._layers, kept, self._other)

    def forward(self, model: nnx.Module) -> int:
        """Operations of the network as it is, in either form."""
        kernels = {path: module.kernel for path, module in nnx.iter_modules(model) if isinstance(module, _LAYERS)}
        nonzero = {f"{'/'.join(map(str, path))}/kernel": int(np.count_nonzero(k[...])) for path, k in kernels.items()}
        return pruning.accounting.forward_flops(self._layers, nonzero, self._other)


def total_training_flops(rows: Sequence[MetricsRow], batch_size: int) -> float:
    """Operations of training, from the rows of a run.

    Rows that hold the operations of a forward pass close a stretch of steps; the count stands for all of it.
    """
    stretches, begin = [], 0
    for row in rows:
        if row.forward_flops is not None:
            stretches.append((float(row.forward_flops), (row.step - begin) * batch_size))
            begin = row.step
    return pruning.accounting.training_flops(stretches)


def _equations(jaxpr: Any) -> Iterator[Any]:
    for equation in jaxpr.eqns:
        yield equation
        for inner in jaxprs_in_params(equation.params):
            yield from _equations(inner)


def _cost(equation: Any) -> tuple[int, int]:
    """Operations of one equation as a ReLU and as a pooling."""
    name, size = equation.primitive.name, math.prod(equation.outvars[0].aval.shape)
    if name == "max" and any(getattr(operand, "val", None) == 0 for operand in equation.invars):
        return size, 0
    if name in ("sparsejax_max_pool", "sparsejax_sum_pool"):
        return 0, size * math.prod(equation.params["geometry"].window)
    return 0, 0
