"""FFI target names, buffer layouts and their registration: the only file that knows the compiled module's targets."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax._compat import clamp, mlir
from sparsejax._native import ffi
from sparsejax.kernels._layout import BATCH_MINOR, Layout, Layouts

TARGETS: tuple[str, ...] = tuple(sorted(ffi.registrations()))


def register() -> None:
    """Hand every handler of the compiled module to XLA; runs once, when ``sparsejax.kernels`` is imported."""
    for name, capsule in {**ffi.registrations(), **ffi.old_registrations()}.items():
        jax.ffi.register_ffi_target(name, capsule, platform="cpu")


def cpu_lowering(
    target: str,
    select: Sequence[int] | None = None,
    attributes: Callable[..., dict[str, Any]] | None = None,
    in_place: Callable[..., dict[int, int]] | None = None,
    activations: str = "",
    in_a_loop: bool = False,
) -> Callable[..., Any]:
    """Return the lowering rule that calls ``target`` with the operands at the positions ``select``, or with all.

    ``in_place(**params)`` says which operand's memory becomes that of which result; XLA copies an operand first where
    something else may still need it.
    Arrays of rank two or more are activations. ``activations`` says for each of them, operands first, whether it is an
    input "x" or an output "y" of the primitive's parameter ``layouts``, which becomes an attribute. Without it they are
    batch-minor. Empty ones are asked for row-major: they have no layout to speak of, and XLA's CPU compiler (jaxlib
    0.10.2) divides by zero when it transposes one.
    With ``in_a_loop``, XLA computes what follows from batch-minor results at the speed of memory (`_in_a_loop`).
    """

    def lowering(ctx: Any, *operands: Any, layouts: Layouts = BATCH_MINOR, **params: Any) -> Any:
        chosen = range(len(operands)) if select is None else select
        avals = [ctx.avals_in[i] for i in chosen]
        sides = iter(activations)

        def order(aval: Any) -> tuple[int, ...]:
            side = next(sides, "x") if aval.ndim > 1 else "x"
            layout = getattr(layouts, side) if aval.size else Layout.ROW_MAJOR
            return layout.minor_to_major(aval.ndim)

        operand_orders = [order(a) for a in avals]
        result_orders = [order(a) for a in ctx.avals_out]
        rule = jax.ffi.ffi_lowering(
            target,
            operand_layouts=operand_orders,
            result_layouts=result_orders,
            operand_output_aliases=in_place(**params) if in_place is not None else None,
        )
        extra = attributes(ctx, **params) if attributes is not None else {}
        if activations:
            extra["layouts"] = layouts.attribute()
        results = rule(ctx.replace(avals_in=avals), *(_bare(operands[i]) for i in chosen), **extra)
        return [
            _in_a_loop(result, aval) if in_a_loop and aval.ndim > 1 and orders[0] == 0 else result
            for result, aval, orders in zip(results, ctx.avals_out, result_orders, strict=True)
        ]

    return lowering


def _in_a_loop(result: Any, aval: Any) -> Any:
    """Return a batch-minor result such that what XLA computes from it runs at the speed of memory.

    XLA's tiled emitter (jaxlib 0.10) takes operations without constants, and makes scalar code of them unless they are
    row-major: three to seven times slower than the loop that it makes otherwise. Between sparse layers that is the sum
    of the two gradients where a residual block begins. A clamp to infinite limits changes no number. It is computed in
    the same loop as what follows, and keeps that emitter away; whatever is more obvious, XLA simplifies away.
    Operations of ours take what is clamped (`_bare`).
    """
    if not jnp.issubdtype(aval.dtype, jnp.floating):
        return result
    low, high = (mlir.ir_constant(np.array(limit, aval.dtype)) for limit in (-math.inf, math.inf))
    return clamp(low, result, high)


def _bare(operand: Any) -> Any:
    """Return what `_in_a_loop` clamped, if that is what the operand is, else the operand."""
    owner = operand.owner
    if getattr(owner, "name", None) != "stablehlo.clamp":
        return operand
    low, inner, high = owner.operands
    return inner if _constant(low) == -math.inf and _constant(high) == math.inf else operand


def _constant(value: Any) -> float | None:
    """Return the number that an operand is, or None if it is no constant."""
    if getattr(value.owner, "name", None) != "stablehlo.constant":
        return None
    return value.owner.attributes["value"].get_splat_value().value


def export_checks() -> list[jax.export.DisabledSafetyCheck]:
    """Return the ``disabled_checks`` for ``jax.export.export`` of a function that uses sparsejax on CPU.

    The loading process must import sparsejax first. A target's meaning never changes under its name.
    """
    return [jax.export.DisabledSafetyCheck.custom_call(name) for name in (*TARGETS, *ffi.old_registrations())]
