"""A report before training: the leaves that a method prunes, weights kept, memory and operations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import jax
import jax.numpy as jnp

from sparsejax._checks import fail
from sparsejax._table import text_table
from sparsejax._typing import PyTree
from sparsejax.pruning._filters import KERNELS, Predicate, select_leaves
from sparsejax.pruning._method import Method, Rule, View, as_method
from sparsejax.pruning.accounting._flops import Form, LayerShape, forward_flops, storage_bytes
from sparsejax.pruning.allocation._scopes import Capacity
from sparsejax.pruning.allocation._structures import Structure, unstructured

_UNSTRUCTURED = unstructured()


@dataclass(frozen=True)
class PruningReportRow:
    """One leaf.

    Attributes:
      path: of the leaf.
      shape: of the leaf.
      size: its weights, n.
      capacity: room that its kept weights need; None where it is not pruned.
    """

    path: str
    shape: tuple[int, ...]
    size: int
    capacity: Capacity | None

    @property
    def kept(self) -> int:
        """Weights left in sparse phases."""
        return self.size if self.capacity is None else self.capacity.entries


@dataclass(frozen=True)
class PruningReport:
    """The effect that a method will have on a model; print it.

    Attributes:
      rows: a row for every leaf.
      where: the filter that decided.
      moments: arrays per weight that the optimizer keeps.
      dense_flops: operations of a dense forward pass of one example; None without layers.
      sparse_flops: the same in sparse phases.
    """

    rows: tuple[PruningReportRow, ...]
    where: str
    moments: int
    dense_flops: int | None
    sparse_flops: int | None

    @property
    def sparsity(self) -> float:
        """Fraction of zeros among the prunable weights, in sparse phases."""
        return _sparsity([row for row in self.rows if row.capacity is not None])

    @property
    def sparsity_of_all(self) -> float:
        """Fraction of zeros among all parameters, in sparse phases."""
        return _sparsity(self.rows)

    def bytes(self, form: Form) -> int:
        """Parameters, moments and masks or indices of the pruned leaves, stored in a form."""
        pruned = [row for row in self.rows if row.capacity is not None]
        return sum(storage_bytes(row.size, row.kept, moments=self.moments, form=form) for row in pruned)

    def __str__(self) -> str:
        """Return a table and the totals."""
        lines = []
        for row in self.rows:
            kind, why = ("-", f"not in {self.where}") if row.capacity is None else (row.capacity.kind, self.where)
            about = "about " if kind == "scores" else ""
            lines.append((row.path, "x".join(map(str, row.shape)) or "()", f"{about}{row.kept:,}", kind, why))
        text = text_table(("path", "shape", "kept", "capacity", "decided by"), lines)
        text += f"\nsparsity {self.sparsity:.4f} of prunable weights, {self.sparsity_of_all:.4f} of all\n"
        sizes = ", ".join(f"{self.bytes(form) / 1024:,.0f} KiB {form}" for form in get_args(Form))
        text += f"pruned leaves and {self.moments} moments: {sizes}. Masks save no time; stored values do."
        if self.dense_flops is not None and self.sparse_flops is not None:
            ratio = self.sparse_flops / self.dense_flops
            text += f"\nforward pass: {self.dense_flops:,} FLOP dense, {self.sparse_flops:,} sparse ({ratio:.3f})"
        return text


def report(
    params: PyTree,
    method: Method | Sequence[Rule],
    *,
    where: Predicate = KERNELS,
    structure: Structure = _UNSTRUCTURED,
    moments: int = 1,
    layers: Sequence[LayerShape] | None = None,
) -> PruningReport:
    """List what a method will do to a model: which leaves, how many weights each keeps, memory and operations.

    Args:
      params: parameters, or their shapes (``jax.eval_shape``).
      method: as for ``pruned``, or a list of rules.
      where: as for ``pruned``.
      structure: as for ``pruned``.
      moments: arrays per weight that the optimizer keeps: 1 for momentum, 2 for Adam.
      layers: from ``layer_shapes``, for operations.

    Returns:
      ``PruningReport``.

    Raises:
      ValueError: ``where`` selects nothing, or method and structure do not fit the leaves.

    Source: rules of counting as in ``forward_flops``.

    >>> from sparsejax.pruning import static
    >>> plan = report({"kernel": jnp.ones((8, 8)), "bias": jnp.ones(8)}, static(0.75))
    >>> plan.sparsity, plan.rows[1].capacity, plan.bytes("values")
    (0.75, Capacity(kind='fixed', entries=16), 192)
    """
    method, where = as_method(method, where)
    if not isinstance(method, Method):
        fail("report", "method", f"type {type(method).__name__}", "a method such as one_shot(0.9)", error=TypeError)
    leaves = select_leaves("report", where, params)
    shapes = [jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves.prunable]
    for name, leaf in zip(leaves.prunable_names, shapes, strict=True):
        structure.grid(name, leaf.shape)
    view = View(leaves.prunable_names, shapes, [], 0, (), structure, [])  # type: ignore[arg-type]
    plan = iter(method.capacity(view))
    rows = tuple(
        PruningReportRow(name, jnp.shape(leaf), math.prod(jnp.shape(leaf)), next(plan) if picked else None)
        for name, leaf, picked in zip(leaves.names, leaves.values, leaves.chosen, strict=True)
    )
    dense = sparse = None
    if layers is not None:
        dense = forward_flops(layers)
        sparse = forward_flops(layers, {row.path: row.kept for row in rows if row.capacity is not None})
    return PruningReport(rows, str(where), moments, dense, sparse)


def _sparsity(rows: Sequence[PruningReportRow]) -> float:
    return 1 - sum(row.kept for row in rows) / sum(row.size for row in rows)
