"""The report of ``sparsify``: for every layer what was done and why."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

_COLUMNS = ("path", "kind", "shape", "sparsity", "action", "dense ms", "sparse ms", "layout", "reason")
_LITTLE = 0.5  # share of the pruned weights below which the report warns
_RIGHT_ALIGNED = {"sparsity", "dense ms", "sparse ms"}


@dataclasses.dataclass(frozen=True)
class LayerReport:
    """One layer.

    Attributes:
      path: attribute names and list positions from the root, joined by "/"; empty for the root.
      kind: class of the layer before.
      shape: of its kernel, or of a batch norm's features.
      sparsity: fraction of the kernel that is not (or would not be) stored; None for a batch norm,
        and without a mask for a kernel inside a trace.
      action: "sparse" (replaced by a sparse layer), "dense" (left as it was), "swapped" (a batch norm of
        ours).
      reason: one line.
      dense_ms, sparse_ms: measured forward + backward, milliseconds; None where nothing was measured.
      layout: of the activations of a sparse layer or a batch norm of ours in memory, and why: "batch-minor: between
        sparse layers", or "row-major to batch-minor: ..." where input and output differ. None for other layers.
    """

    path: str
    kind: str
    shape: tuple[int, ...]
    sparsity: float | None
    action: Literal["sparse", "dense", "swapped"]
    reason: str
    dense_ms: float | None = None
    sparse_ms: float | None = None
    layout: str | None = None


@dataclasses.dataclass(frozen=True)
class SparsifyReport:
    """What ``sparsify`` did; ``str`` is an aligned table.

    Attributes:
      rows: one `LayerReport` per layer that has a sparse form and per batch norm, in the order of the model's graph;
        then one per other parameter that has a mask, or zeros and two or more axes (a ``bias``: only with a mask).
      min_sparsity: what ``sparsify`` was called with: layers of at least this sparsity count as pruned.
      dense_ms, sparse_ms: forward pass and gradients of the whole model before and after, milliseconds, without the
        optimizer's time. Measured on ``sample_input`` by policy "measured"; by "rule" the sum of the predicted times of
        the candidates, ``predicted`` being true; else None.

    >>> row = LayerReport("fc", "Linear", (8, 4), 0.9, "sparse", "policy 'always'")
    >>> print(SparsifyReport((row,)))
    path  kind    shape  sparsity  action  dense ms  sparse ms  layout  reason
    fc    Linear  8x4       0.900  sparse         -          -  -       policy 'always'
    100 % of the weights in pruned layers run sparse; 3 of 32 weights stored; nothing was timed
    """

    rows: tuple[LayerReport, ...]
    min_sparsity: float = 0.8
    dense_ms: float | None = None
    sparse_ms: float | None = None
    predicted: bool = False

    @property
    def speedup(self) -> float | None:
        """Time of the dense model's step over that of the sparse one's; None where neither is known."""
        return self.dense_ms / self.sparse_ms if self.dense_ms and self.sparse_ms else None

    @property
    def sparse_share(self) -> float:
        """Share of the weights in pruned layers and parameters that run sparse, in [0, 1]; 0 if nothing is pruned."""
        pruned = [row for row in self.rows if row.sparsity is not None and row.sparsity >= self.min_sparsity]
        sparse = sum(math.prod(row.shape) for row in pruned if row.action == "sparse")
        return sparse / max(1, sum(math.prod(row.shape) for row in pruned))

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return one dictionary per row, for a data frame or JSON."""
        return [dataclasses.asdict(row) for row in self.rows]

    def __str__(self) -> str:
        """Aligned text table, one line per layer."""
        cells = [_COLUMNS, *(_cells(row) for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        return "\n".join([*(_line(line, widths) for line in cells), self.summary()])

    def summary(self) -> str:
        """Return one line: the share that runs sparse, the weights stored, and the speedup."""
        kernels = [row for row in self.rows if row.action != "swapped"]
        sizes = [math.prod(row.shape) for row in kernels]
        stored = sum(
            round((1 - (row.sparsity or 0)) * size) if row.action == "sparse" else size
            for row, size in zip(kernels, sizes, strict=True)
        )
        text = (
            f"{self.sparse_share:.0%} of the weights in pruned layers run sparse; {stored:,} of {sum(sizes):,} weights"
        )
        text = text.replace("%", " %") + " stored"
        if self.speedup is None:
            text += "; nothing was timed"
        elif self.predicted:
            text += f"; predicted: the layers at or above the sparsity threshold are {_faster(self.speedup)}"
        else:
            text += f"; measured: a step of the whole model is {_faster(self.speedup)}"
        pruned = any((row.sparsity or 0) >= self.min_sparsity for row in kernels)
        if pruned and self.sparse_share < _LITTLE:
            text += ". WARNING: most of what is pruned stays dense; the rows above say why"
        return text


def _cells(row: LayerReport) -> tuple[str, ...]:
    shape = "x".join(map(str, row.shape))
    numbers = [
        _number(row.sparsity),
        row.action,
        _number(row.dense_ms),
        _number(row.sparse_ms),
        row.layout or "-",
    ]
    return (row.path or "(root)", row.kind, shape, *numbers, row.reason)


def _faster(speedup: float) -> str:
    return f"{speedup:.2f}x faster" if speedup >= 1 else f"{1 / speedup:.2f}x slower"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    aligned = [
        cell.rjust(width) if name in _RIGHT_ALIGNED else cell.ljust(width)
        for name, cell, width in zip(_COLUMNS, cells, widths, strict=True)
    ]
    return "  ".join(aligned).rstrip()
