"""Every use of a JAX name that has changed between releases, so that an upgrade touches this file only."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.core
import numpy as np
from jax._src import dispatch
from jax.experimental.layout import Format, Layout, with_layout_constraint
from jax.extend.core import Primitive, jaxprs_in_params
from jax.interpreters import ad, batching, mlir

__all__ = [
    "Format",
    "Primitive",
    "ad",
    "align_varying",
    "backend_has_started",
    "batch_sharding",
    "batching",
    "clamp",
    "custom_partitioning",
    "instantiate",
    "is_concrete",
    "is_partitioned",
    "is_traced",
    "jaxprs_in_params",
    "lower_with_devices",
    "memory_format",
    "mlir",
    "out_aval",
    "register_in_place",
    "serializable",
    "varies_over",
    "with_layout_constraint",
    "zero_tangent",
]

T = TypeVar("T")


def align_varying(*operands: Any) -> list[Any]:
    """Make all operands vary over the same mesh axes of an enclosing ``shard_map``.

    Without this the gradient of a replicated operand is silently wrong: the cast transposes to the sum over
    devices that the gradient needs.
    """
    varying = [jax.typeof(x).manual_axis_type.varying for x in operands]
    union = frozenset().union(*varying)
    return [
        jax.lax.pcast(x, tuple(sorted(union - v)), to="varying") if union - v else x
        for x, v in zip(operands, varying, strict=True)
    ]


def varies_over(x: Any, axis: str) -> bool:
    """Whether a value inside ``shard_map`` differs between the devices of a mesh axis."""
    return axis in jax.typeof(x).manual_axis_type.varying


def backend_has_started() -> bool:
    """Whether JAX has started a backend, which has read ``XLA_FLAGS``. True where a release of JAX cannot say.

    JAX has no public name for this either; ``dispatch`` knows the module that does.
    """
    bridge: Any = getattr(dispatch, "xla_bridge", None)
    return bool(getattr(bridge, "backends_are_initialized", lambda: True)())


def batch_sharding(aval: Any) -> Any:
    """Return the explicit mesh axes over which the first axis of an activation is sharded: a name, a tuple, or None.

    Args:
      aval: abstract value, as ``jax.typeof`` gives it.
    """
    return aval.sharding.spec[0] if aval.ndim > 1 else None


def out_aval(like: Any, shape: tuple[int, ...], dtype: Any, batch: Any = None) -> Any:
    """Return the abstract value of a result that varies over the same mesh axes as the operand ``like``.

    Over explicit mesh axes, activations keep the sharding of their batch; everything else is whole on each device.

    Args:
      like: operand.
      shape, dtype: of the result.
      batch: sharding of the result's batch, as of ``batch_sharding``; None takes that of ``like``.
    """
    first = (batch or batch_sharding(like)) if len(shape) > 1 else None
    spec = jax.sharding.PartitionSpec(first, *(None,) * (len(shape) - 1)) if shape else jax.sharding.PartitionSpec()
    return like.update(shape=shape, dtype=dtype, weak_type=False, sharding=like.sharding.update(spec=spec))


def memory_format(order: tuple[int, ...], sharding: jax.sharding.Sharding) -> Format:
    """How an operand or result of ``jit`` lies in memory.

    Stated as a format, not as a transposition: XLA's CPU compiler (jaxlib 0.10.2) turns a transposition of a result
    into two copies although none is needed.

    Args:
      order: its axes from the slowest to the fastest.
      sharding: where it lies.
    """
    return Format(Layout(order), sharding)


def zero_tangent(primal: Any) -> Any:
    """The symbolic zero tangent of a value; float0 for integers."""
    return ad.Zero(jax.typeof(primal).to_tangent_aval())


def instantiate(tangent: Any) -> Any:
    """The tangent or cotangent itself, or zeros where it is a symbolic zero."""
    return ad.instantiate_zeros(tangent)


def is_traced(x: Any) -> bool:
    """Whether ``x`` is a tracer: a value that is not known while a transformation runs."""
    return isinstance(x, jax.core.Tracer)


def custom_partitioning(function: Callable[..., Any]) -> Any:
    """Return ``function`` as something that can have a sharding rule; loaded only for programs of several devices."""
    from jax.experimental import custom_partitioning as module

    return module.custom_partitioning(function)


def clamp(low: Any, x: Any, high: Any) -> Any:
    """Emit the operation ``min(max(x, low), high)``; for lowering rules, whose operands are values of MLIR."""
    from jax.extend.mlir.dialects import stablehlo  # loaded by no import of ours

    return stablehlo.clamp(low, x, high)


def register_in_place(primitive: Primitive, rule: Callable[..., Any]) -> None:
    """Register a lowering rule for all platforms that sees which operations its operands come from.

    By default JAX (0.10) lowers a primitive once into a function of its own, whose operands come from nowhere. (Without
    that, its own choice between rules of several platforms fails, so there is one rule.)
    """
    mlir.register_lowering(primitive, rule, cacheable=False)


def lower_with_devices(primitive: Primitive) -> None:
    """Let the lowering rules of ``primitive`` know the devices of the program, as ``custom_partitioning`` needs.

    JAX has no public name for this; its own primitives with sharding rules are in the same set. Where a release of JAX
    has no such set, XLA gathers the batch of a plain ``jit`` over several devices, and computes the same.
    """
    getattr(dispatch, "prim_requires_devices_during_lowering", set()).add(primitive)


def is_partitioned(ctx: Any) -> bool:
    """Return whether a lowering rule runs for a program that XLA divides over several devices.

    Inside ``jax.shard_map`` over all axes of the mesh it does not: the program there is that of one device.

    Args:
      ctx: context of the rule.
    """
    axes = ctx.module_context.axis_context
    if hasattr(axes, "manual_axes"):
        return axes.mesh.size > 1 and set(axes.manual_axes) != set(axes.mesh.axis_names)
    return getattr(axes, "num_devices", 1) > 1 and axes.device_assignment is not None


def is_concrete(tree: Any) -> bool:
    """Whether all leaves are arrays or numbers whose values are known: arguments for a program called at once."""
    known = jax.Array | np.ndarray | np.generic | bool | int | float | complex
    return all(isinstance(leaf, known) and not is_traced(leaf) for leaf in jax.tree.leaves(tree))


def serializable(*fields: str) -> Callable[[type[T]], type[T]]:
    """Let ``flax.serialization`` store the instances of a dataclass by these of its fields.

    The other fields are static: ``from_state_dict`` takes them from its target. A decorator here, so that packages
    which do not know Flax have classes that Flax knows.

    Args:
      fields: names of the fields with arrays.
    """
    from flax import serialization

    def register(cls: type[T]) -> type[T]:
        def to_state(instance: Any) -> dict[str, Any]:
            return {name: serialization.to_state_dict(getattr(instance, name)) for name in fields}

        def from_state(instance: Any, state: dict[str, Any]) -> Any:
            new = {name: serialization.from_state_dict(getattr(instance, name), state[name], name) for name in fields}
            return dataclasses.replace(instance, **new)

        serialization.register_serialization_state(cls, to_state, from_state, override=True)
        return cls

    return register
