"""What a network does and costs: accuracy, sparsity and operations of each layer, latency dense and sparse."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import jax
import numpy as np
from flax import nnx

from sparsejax import data, nn, pruning
from sparsejax._checks import fail
from sparsejax._table import text_table
from sparsejax.train._fixed_mask import fix_masks
from sparsejax.train._source import masks_of
from sparsejax.train._steps import split_accuracy
from sparsejax.train.results._flops import FlopCounter
from sparsejax.train.results._ratios import ratio_text
from sparsejax.train.results._tables import percent

_ROUNDS = 15
_WARM_UP = 2
_THREADS = 2


@dataclass(frozen=True)
class LayerCost:
    """One layer: its path, the shape of its kernel, the fraction of zeros, and operations for one example.

    ``flops`` counts two for each multiplication with a weight that is not zero; ``dense_flops`` counts all weights.
    """

    path: str
    shape: tuple[int, ...]
    sparsity: float
    flops: int
    dense_flops: int
    is_stored: bool


@dataclass(frozen=True)
class Latency:
    """Time of a forward pass, dense and sparse in alternation: medians, milliseconds, and the ratio of each round."""

    batch_size: int
    dense_ms: float
    sparse_ms: float
    ratios: tuple[float, ...]


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found.

    Attributes:
      accuracy: fraction of test examples classified correctly.
      layers: one for each layer with a kernel.
      latencies: one for each batch size; empty where no layer is faster sparse.
      flops, dense_flops: of a forward pass of one example, with ReLU, pooling and batch norm.
      report: the layers that ``sparsify`` stores compressed, and why; "" for a network without zeros.
    """

    accuracy: float
    layers: tuple[LayerCost, ...]
    latencies: tuple[Latency, ...]
    flops: int
    dense_flops: int
    report: str

    @property
    def sparsity(self) -> float:
        """Fraction of zeros in all kernels together."""
        sizes = [int(np.prod(layer.shape)) for layer in self.layers]
        return sum(layer.sparsity * size for layer, size in zip(self.layers, sizes, strict=True)) / max(1, sum(sizes))

    def to_dict(self) -> dict[str, Any]:
        """All numbers, for JSON."""
        return asdict(self) | {"sparsity": self.sparsity}

    def __str__(self) -> str:
        """The tables of layers and latencies."""
        rows = [_cells(layer) for layer in self.layers]
        times = [
            (str(each.batch_size), f"{each.dense_ms:.2f}", f"{each.sparse_ms:.2f}", ratio_text(each.ratios))
            for each in self.latencies
        ]
        parts = [text_table(("layer", "kernel", "sparsity", "stored", "FLOP", "FLOP dense"), rows)]
        parts += [text_table(("batch", "dense, ms", "sparse, ms", ""), times)] if times else []
        parts.append(
            f"test accuracy {percent(self.accuracy)} at sparsity {self.sparsity:.4f}; "
            f"{self.flops:,} FLOP for one example, {self.flops / self.dense_flops:.3f} of dense"
        )
        return "\n\n".join(parts)


def _cells(layer: LayerCost) -> tuple[str, ...]:
    shape, stored = "x".join(map(str, layer.shape)), "sparse" if layer.is_stored else "dense"
    return layer.path, shape, f"{layer.sparsity:.4f}", stored, f"{layer.flops:,}", f"{layer.dense_flops:,}"


def evaluate(
    model: nnx.Module,
    task: data.ImageTask,
    *,
    batch_sizes: Sequence[int] = (1, 64),
    rounds: int = _ROUNDS,
) -> Evaluation:
    """Measure a network on the test examples of a task.

    Accuracy is that of inference mode. For the latencies those pruned layers are stored compressed that are then
    measured faster at the largest batch size; forward passes of the dense and the sparse form alternate (A B A B ...),
    after two unmeasured ones of each.

    Args:
      model: NNX classifier, dense with zeros or with sparse layers. It is not changed.
      task: the data.
      batch_sizes: of the latencies.
      rounds: timed forward passes of each form and batch size, at least 7.

    Raises:
      ValueError: fewer than 7 rounds, or a batch size below 1.

    Source: operations as the AC/DC authors count them (`sparsejax.pruning.accounting`).

    >>> from sparsejax.models import MLP
    >>> from sparsejax.data import load_task
    >>> found = evaluate(MLP(64, 10, hidden=(4,), rngs=nnx.Rngs(0)), load_task("digits"), batch_sizes=(1,), rounds=7)
    >>> [(layer.path, layer.dense_flops) for layer in found.layers]
    [('layers/0', 516), ('fc', 90)]
    """
    if rounds < 7:
        fail("evaluate", "rounds", f"value {rounds}", "at least 7", "Medians of fewer are not stable.")
    if not batch_sizes or min(batch_sizes) < 1:
        fail("evaluate", "batch_sizes", f"value {tuple(batch_sizes)}", "numbers of at least 1")
    dense = nn.densify(model)
    masks = masks_of(dense, nn.pattern_masks(model))
    shape = task.test.images([0]).shape[1:]
    sample = jax.ShapeDtypeStruct((max(batch_sizes), *shape), np.float32)
    fixed = fix_masks(dense, masks, policy="measured", sample_input=sample) if masks else None
    sparse = dense if fixed is None else fixed.model
    counter = FlopCounter(dense, shape)
    stored = () if fixed is None else fixed.stored
    latencies = tuple(_latency(dense, sparse, size, shape, rounds) for size in batch_sizes) if stored else ()
    threads = 0 if isinstance(task.test, data.ArrayImageSplit | data.ByteImageSplit) else _THREADS
    return Evaluation(
        split_accuracy(sparse, task.test, threads=threads),
        tuple(_layers(counter, dense, masks, stored)),
        latencies,
        counter.forward(sparse),
        counter.dense,
        "" if fixed is None or fixed.report is None else str(fixed.report),
    )


def _layers(counter: FlopCounter, dense: nnx.Module, masks: Any, stored: Sequence[str]) -> list[LayerCost]:
    kernels = nn.dense_kernels(dense)
    rows: list[LayerCost] = []
    for layer in counter.layers:
        path = layer.path.removesuffix("/kernel")
        if path in kernels:
            size = kernels[path].size
            kept = int(masks[path].sum()) if path in masks else size
            one = pruning.accounting.forward_flops([layer])
            flops = pruning.accounting.forward_flops([layer], {layer.path: kept})
            rows.append(LayerCost(path, kernels[path].shape, 1 - kept / size, flops, one, path in stored))
    return rows


@nnx.jit
def _forward(model: Any, images: jax.Array) -> jax.Array:
    return model(images)


def _latency(dense: nnx.Module, sparse: nnx.Module, size: int, shape: tuple[int, ...], rounds: int) -> Latency:
    images = jax.random.normal(jax.random.key(0), (size, *shape))
    calls: list[Callable[[Any], jax.Array]] = []
    for model in (dense, sparse):
        copy: Any = nnx.clone(model)
        copy.eval()
        calls.append(nnx.cached_partial(_forward, copy))
    times: list[list[float]] = [[], []]
    for _ in range(_WARM_UP + rounds):
        for call, log in zip(calls, times, strict=True):
            begin = time.perf_counter()
            jax.block_until_ready(call(images))
            log.append(1e3 * (time.perf_counter() - begin))
    kept = [log[_WARM_UP:] for log in times]
    ratios = tuple(a / b for a, b in zip(*kept, strict=True))
    return Latency(size, statistics.median(kept[0]), statistics.median(kept[1]), ratios)
