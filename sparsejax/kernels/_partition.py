"""How a product is divided over the devices of a ``jit`` whose batch is sharded: no activation is gathered.

XLA does not know what a custom call computes, so by default it gathers every operand on every device. A sharding rule
says what may stay apart: the batch, which is the first axis of every activation. Values, channel vectors and patterns
are needed whole on each device. A result without a batch axis is a sum over the batch: the devices add their parts.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sparsejax._compat import custom_partitioning, is_partitioned, lower_with_devices, mlir

Rule = Callable[..., Any]
Avals = tuple[tuple[int, ...], ...]  # shapes


def over_devices(primitive: Any, one_device: Rule, whole_batch: Rule | None) -> Rule:
    """Return the lowering rule that calls ``one_device`` on each device's share of the batch.

    A program for one device gets ``one_device`` itself, and so does the inside of ``jax.shard_map``.

    Args:
      primitive: its operands and results of rank two or more have the batch as their first axis; its other results are
        sums over the batch.
      one_device: lowering rule of the primitive for one device.
      whole_batch: lowering rule for several devices of a primitive whose results are no such sums, in operations that
        XLA partitions itself; None for the others.
    """

    def lowering(ctx: Any, *operands: Any, **params: Any) -> Any:
        if not is_partitioned(ctx):
            return one_device(ctx, *operands, **params)
        if whole_batch is not None:
            return whole_batch(ctx, *operands, **params)
        inputs, outputs = (tuple(a.shape for a in avals) for avals in (ctx.avals_in, ctx.avals_out))
        rule = _partitioned(primitive, tuple(sorted(params.items())), inputs, outputs)
        return mlir.lower_fun(rule, multiple_results=primitive.multiple_results)(ctx, *operands)

    lower_with_devices(primitive)
    return lowering


@functools.lru_cache(maxsize=4096)
def _partitioned(primitive: Any, params: tuple[tuple[str, Any], ...], inputs: Avals, outputs: Avals) -> Rule:
    """The primitive with its sharding rule, for operands and results of these shapes."""
    call = custom_partitioning(functools.partial(primitive.bind, **dict(params)))
    text, whole = _rule(inputs, outputs)

    def partition(mesh: Mesh, args: Sequence[Any], results: Any) -> Any:
        axes = _batch_axes(mesh, args)

        def placed(shapes: Avals) -> list[NamedSharding]:
            return [NamedSharding(mesh, PartitionSpec(axes) if len(s) > 1 else PartitionSpec()) for s in shapes]

        def share(*operands: Any) -> Any:
            out = primitive.bind(*operands, **dict(params))
            return jax.tree.map(lambda r: jax.lax.psum(r, axes) if r.ndim < 2 and axes else r, out)

        out = placed(outputs)
        return mesh, share, out if primitive.multiple_results else out[0], tuple(placed(inputs))

    call.def_partition(partition=partition, sharding_rule=text, need_replication_factors=whole)
    return call


def _rule(inputs: Avals, outputs: Avals) -> tuple[str, tuple[str, ...]]:
    """The sharding rule, as in ``"b f0 f1, f2 -> b f3"``, and the factors that may not be sharded."""
    whole: list[str] = []

    def name() -> str:
        whole.append(f"f{len(whole)}")
        return whole[-1]

    def axes(shape: tuple[int, ...]) -> str:
        return " ".join("b" if i == 0 and len(shape) > 1 else name() for i in range(len(shape)))

    return f"{', '.join(map(axes, inputs))} -> {', '.join(map(axes, outputs))}", tuple(whole)


def _batch_axes(mesh: Mesh, args: Sequence[Any]) -> tuple[str, ...]:
    """The mesh axes over which the batch is sharded: those of the first activation, where they divide it evenly."""
    first = next(a for a in args if len(a.shape) > 1)
    entry = first.sharding.spec[0] if len(first.sharding.spec) else None
    axes = entry if isinstance(entry, tuple) else () if entry is None else (entry,)
    return axes if first.shape[0] % math.prod(mesh.shape[a] for a in axes) == 0 else ()
