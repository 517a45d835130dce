"""What methods that drop and regrow weights share: random draws, drop fractions, the exchange, and a base class."""

from __future__ import annotations

import abc
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from sparsejax._checks import fail
from sparsejax._typing import PyTree
from sparsejax.pruning._method import Method, View
from sparsejax.pruning.allocation._distributions import as_fraction
from sparsejax.pruning.allocation._scopes import Across, Capacity, Scope, ScopeLike, as_scope, capacities, select_rows
from sparsejax.pruning.allocation._structures import Structure
from sparsejax.pruning.methods._cadence import Cadence, Fires, Step
from sparsejax.pruning.schedules import Schedule

# Drop fractions are counted in 1024ths, so that integer arithmetic gives exact counts up to 2**31 weights.
PARTS = 1024


@dataclass(frozen=True)
class Exchange(Method):
    """At each step of the cadence: drop a fraction of the kept weights and grow as many; the counts never change."""

    name: ClassVar[str]

    sparsity: float
    scope: Scope
    cadence: Cadence
    drop: Schedule
    seed: int

    def init(self, view: View) -> tuple[list[jax.Array], PyTree]:
        """Draw the first masks at random."""
        return random_masks(self.name, self.sparsity, self.scope, view, self.seed), self.first_aux(view)

    def first_aux(self, view: View) -> PyTree:
        """Return the state before the first step."""
        return ()

    def refresh(self, step: Step) -> Fires:
        """Follow the cadence."""
        return self.cadence(step)

    def capacity(self, view: View) -> list[Capacity]:
        """Return the same number for all masks."""
        level = as_fraction(self.name, "sparsity", self.sparsity)
        return capacities(self.name, self.scope, view, level, "fixed")

    @abc.abstractmethod
    def scores(self, view: View) -> tuple[list[jax.Array], list[jax.Array]]:
        """Return the scores by which kept weights stay, and those by which other weights grow."""

    def update(self, view: View) -> tuple[list[jax.Array], PyTree]:
        """Exchange weights in every layer."""
        kept = unit_counts(self.name, self.sparsity, self.scope, view)
        table = np.floor(np.outer(drop_table(self.name, self.drop, self.cadence), kept)).astype(np.int32)
        dropped = jnp.asarray(table)[self.cadence.index(view.step)]
        leaves = zip(view.masks, *self.scores(view), strict=True)
        masks = [
            exchange(view.structure, mask, stay_scores, grow_scores, kept[i] - dropped[i], dropped[i])
            for i, (mask, stay_scores, grow_scores) in enumerate(leaves)
        ]
        return masks, view.aux


def random_scores(view: View, seed: int, step: ArrayLike = 0) -> list[jax.Array]:
    """Draw a score in [0, 1) for every weight, from the seed, the step and the leaf's path."""
    key = jax.random.fold_in(jax.random.key(seed), step)
    keys = [jax.random.fold_in(key, zlib.crc32(name.encode())) for name in view.names]
    return [jax.random.uniform(k, shape) for k, shape in zip(keys, view.shapes, strict=True)]


def unit_counts(function: str, sparsity: float, scope: Scope, view: View) -> list[int]:
    """Return the units kept in each group of each leaf."""
    return scope.counts(function, view.structure, view.names, view.shapes, as_fraction(function, "sparsity", sparsity))


def random_masks(function: str, sparsity: float, scope: Scope, view: View, seed: int) -> list[jax.Array]:
    """Keep weights at random, exactly as many as the scope says."""
    counts = unit_counts(function, sparsity, scope, view)
    return scope.choose(view.structure, random_scores(view, seed), np.array(counts, np.int32))


def as_drop(function: str, drop: Schedule | float) -> Schedule:
    """Return a schedule of the drop fraction for a number in (0, 1] or a schedule."""
    if callable(drop):
        return drop
    value = np.asarray(drop)
    if value.ndim or value.dtype.kind not in "fiu" or not 0 < value <= 1:
        fail(function, "drop", f"value {drop!r}", "a number in (0, 1], or a schedule step -> fraction")
    return optax.schedules.constant_schedule(float(value))


def drop_table(function: str, drop: Schedule, cadence: Cadence) -> np.ndarray:
    """Tabulate a drop fraction at the steps of a cadence, float64 on the host.

    Raises:
      ValueError: the schedule leaves [0, 1].
    """
    with jax.ensure_compile_time_eval():
        table = np.array([float(np.asarray(drop(step))) for step in cadence.steps()])
    for step, value in zip(cadence.steps(), table, strict=True):
        if not 0 <= value <= 1:
            fail(function, f"the schedule drop at step {step}", f"value {value}", "a fraction in [0, 1]")
    return table


def part_of(counts: jax.Array, parts: jax.Array) -> jax.Array:
    """Return floor(counts * parts / 1024) in int32, exactly."""
    high, low = counts // PARTS, counts % PARTS
    return high * parts + low * parts // PARTS


def exchange(
    structure: Structure,
    mask: jax.Array,
    stay_scores: jax.Array,
    grow_scores: jax.Array,
    stay: ArrayLike,
    grow: ArrayLike,
) -> jax.Array:
    """Replace the least of the kept units of one leaf by the best of all others.

    In each group the ``stay`` kept units of highest stay score survive; then ``grow`` units of highest grow score are
    added from all that did not survive: a unit just dropped may return, and counts as a survivor then.

    Args:
      structure: how weights make units.
      mask: kept weights until now.
      stay_scores, grow_scores: arrays of the leaf's shape.
      stay, grow: units per group, int32.

    Returns:
      The new mask.
    """
    active = structure.to_units(mask.astype(jnp.float32)) > 0
    survivors = select_rows(jnp.where(active, structure.to_units(stay_scores), -jnp.inf), stay)
    grown = select_rows(jnp.where(survivors, -jnp.inf, structure.to_units(grow_scores)), grow)
    return structure.to_mask(survivors | grown, mask.shape)


def magnitudes(view: View) -> list[jax.Array]:
    """Return |w| in float32."""
    return [jnp.abs(weight).astype(jnp.float32) for weight in view.weights]


def gradient_magnitudes(grads: Sequence[jax.Array]) -> list[jax.Array]:
    """Return |g| in float32."""
    return [jnp.abs(grad).astype(jnp.float32) for grad in grads]


def layer_scope(function: str, scope: ScopeLike) -> Scope:
    """Return a scope in which every layer has its own count."""
    checked = as_scope(function, scope)
    if isinstance(checked, Across):
        hint = "Without scores at the start there is nothing that layers could compete by."
        fail(function, "scope", "value 'global'", "'layer', 'erk', 'er' or per_layer(...)", hint)
    return checked
