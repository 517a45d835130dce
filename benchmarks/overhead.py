"""``overhead``: what does one call cost when there is nothing to compute?"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import sparsejax as sx
from sparsejax._table import text_table

from .cases._case import FORWARD, RESULTS, STEP, TOLERANCE, Case
from .cases._shapes import Shape
from .harness import _timing
from .harness._report import BenchmarkReport, progress
from .harness._targets import outcome, outcome_table
from .peers.ours import layer, with_gradients

TINY = (
    Shape("tiny", "4x4 spmm", "linear", 4, 4, 4),
    Shape("tiny", "4x4x4 conv 3x3", "conv", 4, 4, 4, 4, 4, 3, 3, 1, 1, 1),
)
_SPARSITY = 0.5


def run(options: argparse.Namespace) -> BenchmarkReport:
    """Time tiny layers against an empty function of the same operands and results, both under ``jit``."""
    rows = []
    for shape in TINY:
        case = Case(shape, _SPARSITY)
        for measure, (full, empty) in _pairs(case).items():
            times = _timing.interleave({"full": _timing.sampler(full), "empty": _timing.sampler(empty)}, options.rounds)
            cost = statistics.median(f - e for f, e in zip(times["full"], times["empty"], strict=True))
            seconds = {name: _timing.median(values) for name, values in times.items()}
            rows.append({"layer": shape.name, "measure": measure, "overhead": cost, **seconds, "rounds": times})
        progress(f"{shape.name}: {1e6 * rows[-2]['overhead']:.1f} us forward")
    worst = max((row for row in rows if row["measure"] == FORWARD), key=lambda row: row["overhead"])
    outcomes = [outcome("overhead", 1e6 * worst["overhead"], f"forward, {worst['layer']}, the slower of {len(TINY)}")]
    cells = [(r["layer"], r["measure"], *(f"{1e6 * r[k]:.1f}" for k in ("full", "empty", "overhead"))) for r in rows]
    text = text_table(("layer", "measure", "call us", "empty call us", "difference us"), cells)
    return BenchmarkReport("overhead", f"{text}\n\n{outcome_table(outcomes)}", {"rows": rows, "summary": outcomes})


def _pairs(case: Case) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """The layer's call and an empty one, for forward and for forward + both gradients."""
    pattern = sx.SparsityPattern.from_mask(case.mask)
    data = pattern.gather(jnp.asarray(case.kernel))
    product = layer(case)
    step = with_gradients(product)
    operands = data, pattern, jnp.asarray(case.x), jnp.asarray(case.cotangent)
    error = case.error(dict(zip(RESULTS[STEP], jax.device_get(jax.jit(step)(*operands)), strict=True)))
    if not error <= TOLERANCE:
        raise RuntimeError(f"overhead: {case.shape.name} has error {error:.1e}; expected at most {TOLERANCE:g}.")
    return {FORWARD: _pair(product, operands[:3]), STEP: _pair(step, operands)}


def _pair(function: Callable[..., Any], operands: tuple[Any, ...]) -> tuple[Callable[[], Any], Callable[[], Any]]:
    results = jax.eval_shape(function, *operands)

    def nothing(*_: Any) -> Any:
        return jax.tree.map(lambda result: jnp.zeros(result.shape, result.dtype), results)

    full = jax.jit(function)
    empty = jax.jit(nothing, keep_unused=True)
    return (
        lambda: jax.block_until_ready(full(*operands)),
        lambda: jax.block_until_ready(empty(*operands)),
    )
