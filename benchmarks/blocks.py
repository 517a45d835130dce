"""``blocks``: how much faster are patterns with a structure, at an equal number of weights?"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import sparsejax as sx
from sparsejax._table import text_table

from .harness import _timing
from .harness._report import BenchmarkReport, progress
from .harness._targets import outcome, outcome_table

# Batch, inputs and outputs of linear layers.
SHAPES = ((512, 768, 3072), (512, 3072, 768), (1576, 384, 1536))

Step = Callable[[], Any]
Mask = Callable[[np.random.Generator, int, int, float], np.ndarray]


def _blocks(a: int, b: int) -> Mask:
    """Blocks of ``a`` inputs and ``b`` outputs, as in ``pruning.block``."""

    def mask(rng: np.random.Generator, inputs: int, outputs: int, sparsity: float) -> np.ndarray:
        return np.kron(rng.random((inputs // a, outputs // b)) >= sparsity, np.ones((a, b), bool))

    return mask


def _equal_rows(rng: np.random.Generator, inputs: int, outputs: int, sparsity: float) -> np.ndarray:
    """Equally many weights for each output, as in ``pruning.row_balanced``."""
    rank = rng.random((inputs, outputs)).argsort(axis=0).argsort(axis=0)
    return rank < round(inputs * (1 - sparsity))


def _one_of_m(rng: np.random.Generator, inputs: int, outputs: int, sparsity: float) -> np.ndarray:
    """One weight in every ``1 / (1 - sparsity)`` neighbouring inputs, as in ``pruning.n_of_m``."""
    m = round(1 / (1 - sparsity))
    first = np.arange(0, inputs, m)[:, None]
    kept = np.minimum(first + rng.integers(m, size=(len(first), outputs)), inputs - 1)
    mask = np.zeros((inputs, outputs), bool)
    mask[kept, np.arange(outputs)] = True
    return mask


_SCATTERED, _JUDGED = "1 x 1", "1 x 4"
PATTERNS: dict[str, Mask] = {f"{a} x {b}": _blocks(a, b) for a, b in ((1, 1), (1, 2), (1, 4), (4, 1), (2, 2), (4, 4))}
PATTERNS |= {"equal rows": _equal_rows, "1 of m": _one_of_m}


def run(options: argparse.Namespace) -> BenchmarkReport:
    """Time forward, and forward + both gradients, of every pattern against scattered weights."""
    rows = []
    for dtype in ("float32", "bfloat16"):
        for shape in SHAPES:
            for sparsity in options.sparsity:
                rows += _rows(shape, sparsity, dtype, options.rounds)
    judged = [
        row["against"][_JUDGED]["median"] for row in rows if row["measure"] == "step" and row["dtype"] == "float32"
    ]
    mean = float(np.exp(np.mean(np.log(judged))))
    outcomes = [outcome("blocks", mean, f"geometric mean of {len(judged)}")]
    header = ("batch x inputs x outputs", "dtype", "sparsity", "measure", *list(PATTERNS)[1:])
    text = "\n".join([text_table(header, [_cells(row) for row in rows]), "", outcome_table(outcomes)])
    return BenchmarkReport("blocks", text, {"rows": rows, "summary": outcomes})


def _rows(shape: tuple[int, int, int], sparsity: float, dtype: str, rounds: int) -> list[dict[str, Any]]:
    """One row per measure: times of every pattern, and the ratio of scattered weights to each."""
    rows = []
    steps = {name: _steps(shape, sparsity, mask, dtype) for name, mask in PATTERNS.items()}
    for number, measure in enumerate(("forward", "step")):
        times = _timing.interleave({name: _timing.sampler(step[number]) for name, step in steps.items()}, rounds)
        ratios = {name: _timing.ratio(times[_SCATTERED], t) for name, t in times.items()}
        row = {"shape": shape, "dtype": dtype, "sparsity": sparsity, "measure": measure, "rounds": times}
        rows.append(row | {"against": {name: dataclasses.asdict(ratio) for name, ratio in ratios.items()}})
    progress(f"{dtype} {shape} {sparsity:.0%}: {rows[-1]['against'][_JUDGED]['median']:.2f} x")
    return rows


def _steps(shape: tuple[int, int, int], sparsity: float, mask: Mask, dtype: str) -> tuple[Step, Step]:
    """The forward product and the whole step of a layer whose weights are kept at random."""
    batch, inputs, outputs = shape
    rng = np.random.default_rng(0)
    pattern = sx.SparsityPattern.from_mask(mask(rng, inputs, outputs, sparsity))
    data, x, ct = (
        jnp.asarray(rng.standard_normal(size), dtype) for size in ((pattern.nse,), (batch, inputs), (batch, outputs))
    )

    def product(data: Any, x: Any) -> Any:
        return sx.spmm(data, pattern, x)

    def both(data: Any, x: Any, ct: Any) -> Any:
        y, vjp = jax.vjp(product, data, x)
        return y, *vjp(ct)

    forward, step = jax.jit(product), jax.jit(both)
    return (
        lambda: jax.block_until_ready(forward(data, x)),
        lambda: jax.block_until_ready(step(data, x, ct)),
    )


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    ratios = (row["against"][name] for name in list(PATTERNS)[1:])
    return (
        " x ".join(map(str, row["shape"])),
        row["dtype"],
        f"{row['sparsity']:.0%}",
        row["measure"],
        *(f"{r['median']:.2f} ({r['low']:.2f}-{r['high']:.2f})" for r in ratios),
    )
