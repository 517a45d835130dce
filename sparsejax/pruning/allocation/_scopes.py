"""Scopes: how one sparsity is shared among the layers, and the choice of masks by it."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax._checks import check_integer, fail
from sparsejax._typing import ArrayLike
from sparsejax.pruning.allocation._distributions import as_fraction, er, erk, kept
from sparsejax.pruning.allocation._selection import select
from sparsejax.pruning.allocation._structures import Grid, Shape, Structure


class Capacity(NamedTuple):
    """The room that a buffer for the kept weights of a leaf needs.

    Attributes:
      kind: "fixed" from the first step on; "sparse phases", once or while weights are pruned; "scores", as "sparse
        phases" but known only when the scores are (a global threshold moves it from one mask to the next); "dense".
      entries: kept weights; for "scores" an average share.
    """

    kind: Literal["fixed", "sparse phases", "scores", "dense"]
    entries: int


Share = float | int | None


class Layers(Protocol):
    """The prunable leaves as far as counts depend on them; a method's ``View`` is one."""

    @property
    def names(self) -> Sequence[str]:
        """Path of each leaf."""
        ...

    @property
    def shapes(self) -> Sequence[Shape]:
        """Shape of each leaf."""
        ...

    @property
    def structure(self) -> Structure:
        """Which shapes the kept weights may take."""
        ...


class Scope(Protocol):
    """The interface of a scope; built by ``across`` and ``per_layer``, or named: "global", "layer", "erk", "er"."""

    def counts(
        self, function: str, structure: Structure, names: Sequence[str], shapes: Sequence[Shape], sparsity: Fraction
    ) -> list[int]:
        """Return the units to keep: in each group of each leaf, or in all leaves together (one number)."""
        ...

    def choose(
        self, structure: Structure, scores: Sequence[jax.Array], counts: jax.Array | np.ndarray
    ) -> list[jax.Array]:
        """Turn scores and counts into masks."""
        ...


ScopeLike = Scope | Literal["global", "layer", "erk", "er"]


@dataclass(frozen=True)
class PerLayer:
    """A count for each layer; built by ``per_layer``."""

    base: str
    shares: tuple[tuple[str, Share], ...] = ()

    def counts(
        self, function: str, structure: Structure, names: Sequence[str], shapes: Sequence[Shape], sparsity: Fraction
    ) -> list[int]:
        """Return the units to keep in each group of each leaf."""
        for glob, _ in self.shares:
            if not any(fnmatch.fnmatchcase(name, glob) for name in names):
                fail("per_layer", f"the glob {glob!r}", "no matching leaf", f"one of {list(names)}")
        grids = [structure.grid(name, shape) for name, shape in zip(names, shapes, strict=True)]
        shares = [self._share(name) for name in names]
        rest = [i for i, share in enumerate(shares) if share is _BASE]
        if structure.fixed is None:
            base = self._base([grids[i] for i in rest], [shapes[i] for i in rest], sparsity)
        else:
            base = [_fixed_count(function, structure.fixed, grids[i], sparsity) for i in rest]
        shared = dict(zip(rest, base, strict=True))
        counts = [shared[i] if i in shared else _count(names[i], grids[i], shares[i]) for i in range(len(shares))]
        for name, grid, count in zip(names, grids, counts, strict=True):
            if structure.fixed is not None and count not in (structure.fixed, grid.units):
                rule = f"{structure.fixed} or all of {grid.units} with this structure"
                fail("per_layer", f"the share of {name!r}", f"{count} units in a group", rule)
        return counts

    def choose(
        self, structure: Structure, scores: Sequence[jax.Array], counts: jax.Array | np.ndarray
    ) -> list[jax.Array]:
        """Keep the largest units of each group."""
        marks = [select_rows(structure.to_units(score), counts[i]) for i, score in enumerate(scores)]
        return [structure.to_mask(mark, score.shape) for mark, score in zip(marks, scores, strict=True)]

    def _share(self, name: str) -> Any:
        return next((share for glob, share in self.shares if fnmatch.fnmatchcase(name, glob)), _BASE)

    def _base(self, grids: Sequence[Grid], shapes: Sequence[Shape], sparsity: Fraction) -> list[int]:
        if self.base == "layer" or not grids:
            return [kept(sparsity, grid.units) for grid in grids]
        weights = (erk if self.base == "erk" else er)(float(sparsity), shapes)
        pairs = zip(weights, grids, strict=True)
        # Exact for single weights; nearest whole unit per group elsewhere.
        return [min(grid.units, max(1, round(Fraction(k, grid.groups * grid.size)))) for k, grid in pairs]


_BASE = object()


def _fixed_count(function: str, fixed: int, grid: Grid, sparsity: Fraction) -> int:
    if sparsity == 0:
        return grid.units
    rule = 1 - Fraction(fixed, grid.units)
    if sparsity != rule:
        hint = f"{fixed} of {grid.units} leave no other choice."
        fail(function, "sparsity", f"value {float(sparsity):g}", f"0 or {float(rule):g} with this structure", hint)
    return fixed


def _count(name: str, grid: Grid, share: Share) -> int:
    if share is None:
        return grid.units
    if isinstance(share, int):
        per_unit = grid.groups * grid.size
        if not per_unit <= share <= per_unit * grid.units or share % per_unit:
            rule = f"a multiple of {per_unit} from {per_unit} to {per_unit * grid.units}"
            fail("per_layer", f"the count for {name!r}", f"value {share}", rule)
        return share // per_unit
    return kept(as_fraction("per_layer", f"the sparsity for {name!r}", share), grid.units)


@dataclass(frozen=True)
class Across:
    """One threshold for all layers; built by ``across``."""

    min_per_layer: int = 0
    min_per_output: int = 0
    normalize: Literal["none", "l2"] = "none"

    def counts(
        self, function: str, structure: Structure, names: Sequence[str], shapes: Sequence[Shape], sparsity: Fraction
    ) -> list[int]:
        """Return the units to keep in all leaves together."""
        grids = [structure.grid(name, shape) for name, shape in zip(names, shapes, strict=True)]
        if structure.fixed is not None:
            return PerLayer("layer").counts(function, structure, names, shapes, sparsity)
        if any(grid.groups > 1 for grid in grids) or len({grid.size for grid in grids}) > 1:
            got = f"structure {type(structure).__name__}"
            fail(function, "scope 'global'", got, "units of one size that compete freely", "Use scope='layer'.")
        total = kept(sparsity, sum(grid.units for grid in grids))
        if self.min_per_output and grids[0].size > 1:
            got = f"structure {type(structure).__name__}"
            fail("across", "min_per_output", got, "unstructured(), whose units belong to one output each")
        self._check_floors(names, shapes, grids, total)
        return [total]

    def choose(
        self, structure: Structure, scores: Sequence[jax.Array], counts: jax.Array | np.ndarray
    ) -> list[jax.Array]:
        """Keep the largest units of all leaves."""
        if structure.fixed is not None:
            return PerLayer("layer").choose(structure, scores, counts)
        if self.normalize == "l2":
            scores = [score / jnp.maximum(jnp.linalg.norm(score), jnp.finfo(score.dtype).tiny) for score in scores]
        units = [structure.to_units(score)[0] for score in scores]
        if self.min_per_layer:
            units = [jnp.where(select([unit], self.min_per_layer)[0], jnp.inf, unit) for unit in units]
        if self.min_per_output:
            rows = [score.reshape(-1, score.shape[-1]).T for score in scores]
            best = [select_rows(row, self.min_per_output).T.ravel() for row in rows]
            units = [jnp.where(mark, jnp.inf, unit) for mark, unit in zip(best, units, strict=True)]
        marks = select(units, counts[0])
        return [structure.to_mask(mark[None], score.shape) for mark, score in zip(marks, scores, strict=True)]

    def _check_floors(self, names: Sequence[str], shapes: Sequence[Shape], grids: Sequence[Grid], total: int) -> None:
        """Refuse floors above the size of a layer, or above the budget of all."""
        needed = 0
        for name, shape, grid in zip(names, shapes, grids, strict=True):
            if self.min_per_layer > grid.units:
                fail("across", "min_per_layer", f"value {self.min_per_layer}", f"at most {grid.units}, all of {name!r}")
            if self.min_per_output > (fan_in := math.prod(shape[:-1])):
                fail("across", "min_per_output", f"value {self.min_per_output}", f"at most {fan_in}, all of {name!r}")
            needed += self.min_per_layer + self.min_per_output * shape[-1]
        if needed > total:
            fail(
                "across",
                "min_per_layer and min_per_output",
                f"floors of {needed} units",
                f"at most {total}, the budget",
            )


def select_rows(units: jax.Array, count: ArrayLike) -> jax.Array:
    """Mark the ``count`` largest of each row; ties to the lower index."""
    if units.shape[0] == 1:
        return select([units[0]], count)[0][None]
    return jax.vmap(lambda row: select([row], count)[0])(units)


def across(*, min_per_layer: int = 0, min_per_output: int = 0, normalize: Literal["none", "l2"] = "none") -> Scope:
    """Let all layers compete for one budget; ``scope="global"`` with options.

    mask = top-k over the scores of all layers together

    Args:
      min_per_layer: units that a layer keeps in any case; above 0 no layer can be lost (layer collapse).
      min_per_output: weights that each output unit (last axis) keeps in any case; above 0 no unit is cut off.
      normalize: "none" compares scores as they are, as published; "l2" divides those of a layer by their norm.

    Returns:
      Scope for the methods.

    Raises:
      ValueError: an option out of range; when the state is made, floors that exceed the budget.

    Source: Peste et al. 2021, "AC/DC"; layer collapse: Tanaka et al. 2020, "SynFlow", section 4.

    >>> across(min_per_layer=1)
    Across(min_per_layer=1, min_per_output=0, normalize='none')
    """
    for operand, value in (("min_per_layer", min_per_layer), ("min_per_output", min_per_output)):
        check_integer("across", operand, value, 0)
    if normalize not in ("none", "l2"):
        fail("across", "normalize", f"value {normalize!r}", "'none' or 'l2'")
    return Across(min_per_layer, min_per_output, normalize)


def per_layer(shares: Mapping[str, Share], *, base: Literal["layer", "erk", "er"] = "layer") -> Scope:
    """Set the number of kept weights of some layers; the others follow a rule.

    Args:
      shares: glob on the path of a leaf (as in ``path``) -> sparsity (float in [0, 1)), number of kept weights
        (int), or None for dense. The first glob that matches counts. They apply from the first pruning on.
      base: rule for the layers that no glob matches: "layer" (the same sparsity in each), "erk" or "er".

    Returns:
      Scope for the methods.

    Raises:
      ValueError: unknown rule; when the state is made, a glob without a match or a count that does not fit.

    Source: layer-wise configurations of Peste et al. 2021, "AC/DC" (first and last layer dense).

    >>> from sparsejax.pruning import unstructured
    >>> per_layer({"head/*": None}, base="erk").counts(
    ...     "doc", unstructured(), ["head/kernel", "mlp/kernel"], [(4, 2), (10, 10)], Fraction(9, 10)
    ... )
    [8, 10]
    """
    if base not in ("layer", "erk", "er"):
        fail("per_layer", "base", f"value {base!r}", "'layer', 'erk' or 'er'")
    return PerLayer(base, tuple(shares.items()))


def as_scope(function: str, scope: ScopeLike) -> Scope:
    """Return the scope for a name, and a scope as it is."""
    if scope == "global":
        return Across()
    if isinstance(scope, str) and scope in ("layer", "erk", "er"):
        return PerLayer(scope)
    if not (hasattr(scope, "counts") and hasattr(scope, "choose")):
        expected = "'global', 'layer', 'erk', 'er', across(...) or per_layer(...)"
        fail(function, "scope", f"value {scope!r}", expected)
    return scope  # type: ignore[return-value]


def capacities(
    function: str, scope: Scope, view: Layers, sparsity: Fraction, kind: Literal["fixed", "sparse phases"]
) -> list[Capacity]:
    """Return the ``Capacity`` of each leaf for masks of one sparsity."""
    structure, names, shapes = view.structure, view.names, view.shapes
    counts = scope.counts(function, structure, names, shapes, sparsity)
    if isinstance(scope, Across) and structure.fixed is None:
        return [Capacity("scores", kept(sparsity, math.prod(shape))) for shape in shapes]
    return [Capacity(kind, entries) for entries in kept_weights(structure, names, shapes, counts)]


def kept_weights(
    structure: Structure, names: Sequence[str], shapes: Sequence[Shape], units: Sequence[int]
) -> list[int]:
    """Return the weights kept in each leaf, from the units kept in each group."""
    grids = [structure.grid(name, shape) for name, shape in zip(names, shapes, strict=True)]
    return [count * grid.groups * grid.size for count, grid in zip(units, grids, strict=True)]
