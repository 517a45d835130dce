"""Memory of training: the peak of a step, one process per implementation, and the bytes kept between steps."""

from __future__ import annotations

import dataclasses
import gc
import re
from pathlib import Path
from typing import Any

import jax
import optax
from flax import nnx

from sparsejax._native import ffi
from sparsejax._table import text_table
from sparsejax.nn import Pattern

from ._layer_times import OK
from .cases import _networks
from .cases._network import LEARNING_RATE, MOMENTUM, NetworkCase, NetworkPeer
from .harness import _worker
from .harness._report import BenchmarkReport, progress
from .harness._targets import outcome, outcome_table
from .peers import network_flax, networks

_OPTIMIZERS = {"SGD with momentum": optax.sgd(LEARNING_RATE, MOMENTUM), "Adam": optax.adam(LEARNING_RATE)}
_TARGET = "resnet18", 0.95
_MIB = 2**20


def run(cases: list[NetworkCase], others: list[NetworkPeer], threads: int) -> BenchmarkReport:
    """Measure the peak of every variant of every implementation, and count bytes of parameters and optimizer state."""
    texts, rows, outcomes = [], [], []
    for case in cases:
        peaks, status = _peaks(case, others, threads)
        models = case.model(), network_flax.sparse_model(case)
        kept = {name: kept_bytes(*models, tx) for name, tx in _OPTIMIZERS.items()}
        rows.append({**dataclasses.asdict(case), "peaks": peaks, "kept": kept, "status": status})
        texts.append(_text(case, peaks, status, kept))
        if (case.network, case.sparsity) == _TARGET:
            shares = {name: 100 * k["sparse"] / k["dense"] for name, k in kept.items()}
            indices = {name: 100 * (k["sparse"] + k["pattern"]) / k["dense"] for name, k in kept.items()}
            over = ", ".join(f"{name} {shares[name]:.1f} %, with the pattern {indices[name]:.1f} %" for name in shares)
            outcomes.append(outcome("memory", max(shares.values()), over))
    text = "\n\n".join([*texts, *([outcome_table(outcomes)] if outcomes else [])])
    return BenchmarkReport("model", text, {"rows": rows, "summary": outcomes})


def _peaks(case: NetworkCase, others: list[NetworkPeer], threads: int) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Peak of every variant, and why implementations have none."""
    peaks, status = [], {}
    for peer in others:
        absent = peer.absent()
        reason = f"absent: {absent}" if absent else peer.unsupported(case)
        status[peer.name] = reason or OK
        for variant in peer.variants(case) if reason is None else ():
            child = _worker.start(StepMemory, threads)
            try:
                peak = child.ask("measure", peer=peer.name, variant=variant, case=dataclasses.asdict(case))
                plans = child.ask("plans")
            finally:
                child.close()
            peaks.append({"name": peer.name, "variant": variant, "peak": peak, "plans": plans})
            progress(f"{peer.name}, {variant}: {peak / _MIB:.0f} MiB")
    return peaks, status


class StepMemory:
    """Measures the memory of a training step in a worker process."""

    def measure(self, peer: str, variant: str, case: dict[str, Any]) -> int:
        """Return bytes resident at the peak of a training step beyond those before the network was built.

        Linux's high-water mark of this address space is reset after the first step, which compiles. (What getrusage
        calls ``ru_maxrss`` would begin at the parent's size, and cannot be reset.)
        """
        network = _networks.make(**case)
        build = {p.name: p for p in (networks.OURS, *networks.PEERS.values())}[peer].variants(network)[variant]
        jax.block_until_ready((network.inputs, network.labels, network.masks, jax.numpy.zeros(1)))  # not the step's
        gc.collect()
        before = _status("VmRSS")
        trainer = build()
        trainer.step()
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")
        trainer.step()
        return _status("VmHWM") - before

    def plans(self) -> int:
        """Return bytes that this process keeps of plans of our convolutions."""
        return ffi.plan_bytes()


def _status(name: str) -> int:
    """A size of this process, bytes."""
    match = re.search(rf"^{name}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert match is not None
    return 1024 * int(match.group(1))


def kept_bytes(dense: Any, sparse: Any, tx: optax.GradientTransformation) -> dict[str, int]:
    """Bytes of parameters and optimizer state of two models, and of the sparse one's index arrays."""

    def size(model: Any) -> int:
        optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
        return _bytes(nnx.state(model, nnx.Param)) + _bytes(nnx.state(optimizer.opt_state))

    return {"dense": size(dense), "sparse": size(sparse), "pattern": _bytes(nnx.state(sparse, Pattern))}


def _bytes(tree: Any) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def _text(
    case: NetworkCase, peaks: list[dict[str, Any]], status: dict[str, str], kept: dict[str, dict[str, int]]
) -> str:
    head = f"{case.over}, {case.sparsity:g} zeros"
    rows = [(f"{p['name']}, {p['variant']}", f"{p['peak'] / _MIB:.0f}") for p in peaks]
    lines = [text_table((head, "MiB at the peak of a step"), rows)]
    lines += [f"{name} {reason}" for name, reason in status.items() if reason != OK]
    plans = max((p["plans"] for p in peaks), default=0)
    sizes = [
        (
            name,
            *(f"{size / _MIB:.1f}" for size in (k["dense"], k["sparse"], k["pattern"], plans)),
            f"{100 * k['sparse'] / k['dense']:.1f} %",
            f"{100 * (k['sparse'] + k['pattern']) / k['dense']:.1f} %",
            f"{100 * (k['sparse'] + k['pattern'] + plans) / k['dense']:.1f} %",
        )
        for name, k in kept.items()
    ]
    columns = (
        "parameters + optimizer state, MiB",
        "dense",
        "sparse",
        "pattern",
        "plans",
        "sparse share",
        "with pattern",
        "and plans",
    )
    return "\n".join([*lines, "", text_table(columns, sizes)])
