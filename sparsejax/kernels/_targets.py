"""FFI target names, buffer layouts and their registration: the only file that knows the compiled module's targets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax

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
) -> Callable[..., Any]:
    """Return the lowering rule that calls ``target`` with the operands at the positions ``select``, or with all.

    ``in_place(**params)`` says which operand's memory becomes that of which result; XLA copies an operand first where
    something else may still need it.
    Arrays of rank two or more are activations. ``activations`` says for each of them, operands first, whether it is an
    input "x" or an output "y" of the primitive's parameter ``layouts``, which becomes an attribute. Without it they are
    batch-minor. Empty ones are asked for row-major: they have no layout to speak of, and XLA's CPU compiler (jaxlib
    0.10.2) divides by zero when it transposes one.
    """

    def lowering(ctx: Any, *operands: Any, layouts: Layouts = BATCH_MINOR, **params: Any) -> Any:
        chosen = range(len(operands)) if select is None else select
        avals = [ctx.avals_in[i] for i in chosen]
        sides = iter(activations)

        def order(aval: Any) -> tuple[int, ...]:
            side = next(sides, "x") if aval.ndim > 1 else "x"
            layout = getattr(layouts, side) if aval.size else Layout.ROW_MAJOR
            return layout.minor_to_major(aval.ndim)

        rule = jax.ffi.ffi_lowering(
            target,
            operand_layouts=[order(a) for a in avals],
            result_layouts=[order(a) for a in ctx.avals_out],
            operand_output_aliases=in_place(**params) if in_place is not None else None,
        )
        extra = attributes(ctx, **params) if attributes is not None else {}
        if activations:
            extra["layouts"] = layouts.attribute()
        return rule(ctx.replace(avals_in=avals), *(operands[i] for i in chosen), **extra)

    return lowering


def export_checks() -> list[jax.export.DisabledSafetyCheck]:
    """Return the ``disabled_checks`` for ``jax.export.export`` of a function that uses sparsejax on CPU.

    The loading process must import sparsejax first. A target's meaning never changes under its name.
    """
    return [jax.export.DisabledSafetyCheck.custom_call(name) for name in (*TARGETS, *ffi.old_registrations())]
