"""The report of ``sparsify``: for every layer what was done and why."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

_COLUMNS = ("path", "kind", "shape", "sparsity", "action", "dense ms", "sparse ms", "reason")
_RIGHT_ALIGNED = {"sparsity", "dense ms", "sparse ms"}


@dataclasses.dataclass(frozen=True)
class LayerReport:
    """One layer.

    Attributes:
      path: attribute names and list positions from the root, joined by "/"; empty for the root.
      kind: class of the layer before.
      shape: of its kernel, or of a batch norm's features.
      sparsity: fraction of the kernel that is not (or would not be) stored; None for a batch norm.
      action: "sparse" (replaced by a sparse layer), "dense" (left as it was), "swapped" (a batch norm of
        ours).
      reason: one line.
      dense_ms, sparse_ms: measured forward + backward, milliseconds; None where nothing was measured.
    """

    path: str
    kind: str
    shape: tuple[int, ...]
    sparsity: float | None
    action: Literal["sparse", "dense", "swapped"]
    reason: str
    dense_ms: float | None = None
    sparse_ms: float | None = None


@dataclasses.dataclass(frozen=True)
class SparsifyReport:
    """What ``sparsify`` did; ``str`` is an aligned table.

    Attributes:
      rows: one `LayerReport` per linear layer, convolution and batch norm, in the order of the model's graph.

    >>> row = LayerReport("fc", "Linear", (8, 4), 0.9, "sparse", "policy 'always'")
    >>> print(SparsifyReport((row,)))
    path  kind    shape  sparsity  action  dense ms  sparse ms  reason
    fc    Linear  8x4       0.900  sparse         -          -  policy 'always'
    """

    rows: tuple[LayerReport, ...]

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return one dictionary per row, for a data frame or JSON."""
        return [dataclasses.asdict(row) for row in self.rows]

    def __str__(self) -> str:
        """Aligned text table, one line per layer."""
        cells = [_COLUMNS, *(_cells(row) for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        return "\n".join(_line(line, widths) for line in cells)


def _cells(row: LayerReport) -> tuple[str, ...]:
    shape = "x".join(map(str, row.shape))
    numbers = [
        _number(row.sparsity),
        row.action,
        _number(row.dense_ms),
        _number(row.sparse_ms),
    ]
    return (row.path or "(root)", row.kind, shape, *numbers, row.reason)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    aligned = [
        cell.rjust(width) if name in _RIGHT_ALIGNED else cell.ljust(width)
        for name, cell, width in zip(_COLUMNS, cells, widths, strict=True)
    ]
    return "  ".join(aligned).rstrip()
