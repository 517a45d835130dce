"""``attention``: how fast is attention in blocks, against that of JAX and PyTorch?"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax._table import text_table
from sparsejax.kernels import attention

from .harness import _peak, _timing
from .harness._report import BenchmarkReport, progress
from .harness._targets import outcome, outcome_table

# Batch, length, heads, features of a head. The first two are the blocks of the transformers of the model benchmark.
SHAPES = ((8, 197, 6, 64), (8, 128, 12, 64), (2, 512, 6, 64), (1, 1024, 6, 64))
_TOLERANCE = 1e-4
_OURS, _XLA, _TORCH = "sparsejax", "xla", "torch"

Step = Callable[[], Any]


def run(options: argparse.Namespace) -> BenchmarkReport:
    """Time forward + the gradients of q, k and v, and forward alone, without a mask."""
    peak = _peak.measure(options.threads).flops
    rows, unsupported = [], {}
    for shape in SHAPES:
        steps, unsupported = _steps(shape, options.threads)
        for measure in ("forward", "step"):
            samplers = {name: _timing.sampler(step[measure == "step"]) for name, step in steps.items()}
            times = _timing.interleave(samplers, options.rounds)
            flops = (4 if measure == "forward" else 14) * int(np.prod(shape)) * shape[1]
            share = flops / _timing.median(times[_OURS]) / peak
            row: dict[str, Any] = {"shape": shape, "measure": measure, "rounds": times, "of_peak": share}
            ratios = {name: _timing.ratio(t, times[_OURS]) for name, t in times.items() if name != _OURS}
            row["against"] = {name: dataclasses.asdict(ratio) for name, ratio in ratios.items()}
            rows.append(row)
        progress(f"{shape}: {rows[-1]['against'][_XLA]['median']:.2f} x")
    worst = min((row for row in rows if row["measure"] == "step"), key=lambda row: row["against"][_XLA]["median"])
    over = f"slowest of {len(SHAPES)}: {_name(worst['shape'])}"
    outcomes = [outcome("attention", worst["against"][_XLA]["median"], over)]
    lines = [
        text_table(("batch x length x heads x features", "measure", "ms", "FMA peak", *_peers(rows)), _cells(rows))
    ]
    lines += [f"{name}: {reason}" for name, reason in unsupported.items()]
    text = "\n".join([*lines, "", outcome_table(outcomes)])
    return BenchmarkReport("attention", text, {"rows": rows, "summary": outcomes, "absent": unsupported})


def _steps(shape: tuple[int, ...], threads: int) -> tuple[dict[str, tuple[Step, Step]], dict[str, str]]:
    """Forward and the whole step of each implementation, checked against each other; and what is absent, and why."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape, np.float32) for _ in range(4)]
    steps = {_OURS: _jax_steps(attention, arrays), _XLA: _jax_steps(jax.nn.dot_product_attention, arrays)}
    absent = {}
    try:
        steps[_TORCH] = _torch_steps(arrays, threads)
    except ImportError as error:
        absent[_TORCH] = str(error)
    want = [np.asarray(a) for a in steps[_XLA][1]()]
    for name, (_, step) in steps.items():
        error = max(float(np.abs(np.asarray(a) - b).max()) for a, b in zip(step(), want, strict=True))
        if not error <= _TOLERANCE:
            raise RuntimeError(f"attention: {name} has error {error:.1e}; expected at most {_TOLERANCE:g}.")
    return steps, absent


def _jax_steps(function: Callable[..., jax.Array], arrays: list[Any]) -> tuple[Step, Step]:
    q, k, v, ct = map(jnp.asarray, arrays)

    def both(q: Any, k: Any, v: Any, ct: Any) -> Any:
        y, vjp = jax.vjp(function, q, k, v)
        return y, *vjp(ct)

    forward, step = jax.jit(function), jax.jit(both)
    return (
        lambda: jax.block_until_ready(forward(q, k, v)),
        lambda: jax.block_until_ready(step(q, k, v, ct)),
    )


def _torch_steps(arrays: list[Any], threads: int) -> tuple[Step, Step]:
    """PyTorch wants heads before positions; its operands lie so in memory."""
    import torch

    torch.set_num_threads(threads)
    q, k, v, ct = (torch.from_numpy(a).transpose(1, 2).contiguous() for a in arrays)
    product: Any = torch.nn.functional.scaled_dot_product_attention

    def step() -> Any:
        inputs = [x.detach().requires_grad_() for x in (q, k, v)]
        y = product(*inputs)
        found = [y.detach(), *torch.autograd.grad(y, inputs, ct)]
        return [x.transpose(1, 2) for x in found]

    return lambda: product(q, k, v), step


def _peers(rows: list[dict[str, Any]]) -> list[str]:
    return [f"{name} / ours (quartiles)" for name in rows[0]["against"]]


def _name(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _cells(rows: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    def ratios(row: dict[str, Any]) -> list[str]:
        return [f"{r['median']:.2f} ({r['low']:.2f}-{r['high']:.2f})" for r in row["against"].values()]

    return [
        (
            _name(row["shape"]),
            row["measure"],
            f"{1e3 * _timing.median(row['rounds'][_OURS]):.1f}",
            f"{100 * row['of_peak']:.0f} %",
            *ratios(row),
        )
        for row in rows
    ]
