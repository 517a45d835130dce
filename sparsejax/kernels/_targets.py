"""FFI target names, buffer layouts and their registration: the only file that knows the compiled module's targets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax

from sparsejax._native import ffi

TARGETS: tuple[str, ...] = tuple(sorted(ffi.registrations()))


def register() -> None:
    """Hand every handler of the compiled module to XLA; runs once, when ``sparsejax.kernels`` is imported."""
    for name, capsule in ffi.registrations().items():
        jax.ffi.register_ffi_target(name, capsule, platform="cpu")


def batch_minor(rank: int) -> tuple[int, ...]:
    """Return the layout (minor to major) with the batch fastest and the features slowest.

    A logical ``(batch, *spatial, features)`` array lies in memory as ``(features, *spatial, batch)``.
    """
    return (0, *range(rank - 2, 0, -1), rank - 1) if rank > 1 else (0,)


def row_major(rank: int) -> tuple[int, ...]:
    """Return the layout (minor to major) of a C-ordered array."""
    return tuple(range(rank - 1, -1, -1))


def cpu_lowering(
    target: str,
    select: Sequence[int] | None = None,
    attributes: Callable[..., dict[str, Any]] | None = None,
    in_place: Callable[..., dict[int, int]] | None = None,
) -> Callable[..., Any]:
    """Return the lowering rule that calls ``target`` with the operands at the positions ``select``, or with all.

    ``in_place(**params)`` says which operand's memory becomes that of which result; XLA copies an operand first where
    something else may still need it.
    Arrays of rank two or more are activations and are asked for in the batch-minor layout. Empty ones are not: they
    have no layout to speak of, and XLA's CPU compiler (jaxlib 0.10.2) divides by zero when it transposes one.
    """

    def layout(aval: Any) -> tuple[int, ...]:
        return batch_minor(aval.ndim) if aval.size else row_major(aval.ndim)

    def lowering(ctx: Any, *operands: Any, **params: Any) -> Any:
        chosen = range(len(operands)) if select is None else select
        avals = [ctx.avals_in[i] for i in chosen]
        rule = jax.ffi.ffi_lowering(
            target,
            operand_layouts=[layout(a) for a in avals],
            result_layouts=[layout(a) for a in ctx.avals_out],
            operand_output_aliases=in_place(**params) if in_place is not None else None,
        )
        extra = attributes(ctx, **params) if attributes is not None else {}
        return rule(ctx.replace(avals_in=avals), *(operands[i] for i in chosen), **extra)

    return lowering


def export_checks() -> list[jax.export.DisabledSafetyCheck]:
    """Return the ``disabled_checks`` for ``jax.export.export`` of a function that uses sparsejax on CPU.

    The loading process must import sparsejax first. A target's meaning never changes under its name.
    """
    return [jax.export.DisabledSafetyCheck.custom_call(name) for name in TARGETS]
