"""Schedules of particular methods: GMP*, SynFlow, lottery tickets, AC/DC, and drop fractions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from sparsejax._checks import fail
from sparsejax.pruning._numbers import check_integer
from sparsejax.pruning._schedules import Ramp, Schedule, check_ramp, on_host, polynomial
from sparsejax.pruning.allocation._distributions import as_fraction


def accelerated_cubic(initial: float, jump: float, final: float, *, begin: int, end: int) -> Schedule:
    """Jump to a middle sparsity, then rise along a cubic (GMP*).

    s(t) = s_i for t < begin;  s_f + (s_a - s_f) * (1 - p)^3 from there on,  p = clip((t - begin) / (end - begin), 0, 1)

    Args:
      initial: sparsity before ``begin``, in [0, 1).
      jump: sparsity at ``begin``, in [0, 1).
      final: sparsity from ``end`` on, in [0, 1).
      begin: step of the jump, at least 0.
      end: last step of the ramp, after ``begin``.

    Returns:
      Function of the step (int, or int32 array, also traced).

    Raises:
      ValueError: a sparsity is outside [0, 1), or steps are out of range.

    Source: Kurtic & Alistarh 2022, "GMP*: well-tuned gradual magnitude pruning can outperform most BERT-pruning
      methods", section 3.

    >>> s = accelerated_cubic(0.0, 0.5, 0.9, begin=10, end=100)
    >>> s(9), s(10), s(100)
    (0.0, 0.5, 0.9)
    """
    as_fraction("accelerated_cubic", "initial", initial)
    return _Jumped(polynomial(jump, final, begin=begin, end=end), float(initial), begin, end)


@dataclass(frozen=True)
class _Jumped:
    """Another schedule from ``begin`` on, a constant before."""

    ramp: Schedule
    initial: float
    begin: int
    end: int

    def __call__(self, step: Any) -> Any:
        """Return the sparsity at ``step``: a float for a Python int, float32 for an array."""
        if on_host(step):
            return self.ramp(step) if step >= self.begin else self.initial
        return jnp.where(step >= self.begin, self.ramp(step), jnp.float32(self.initial))


def exponential(final: float, *, begin: int, end: int) -> Schedule:
    """Multiply the density by the same factor in every step.

    1 - s(t) = (1 - s_f)^p,  p = clip((t - begin) / (end - begin), 0, 1)

    Args:
      final: sparsity from ``end`` on, in [0, 1).
      begin: first step of the ramp, at least 0.
      end: last step of the ramp, after ``begin``.

    Returns:
      Function of the step (int, or int32 array, also traced).

    Raises:
      ValueError: the sparsity is outside [0, 1), or steps are out of range.

    Source: Tanaka et al. 2020, "SynFlow", section 6 (iterative pruning, exponential schedule).

    >>> exponential(0.75, begin=0, end=100)(50)
    0.5
    """
    check_ramp("exponential", 0.0, final, begin, end)

    def shape(progress: Any, xp: Any) -> Any:
        # The part of the way that is left: 1 at the begin, exactly 0 at the end.
        density = (1.0 - final) ** progress
        return xp.where(progress >= 1.0, 0.0, (density - (1.0 - final)) / final) if final else 1.0 - progress

    return Ramp(0.0, float(final), begin, end, shape)


def geometric_rounds(rate: float, *, every: int) -> Schedule:
    """Remove the same fraction of what is left in every round.

    1 - s(t) = (1 - rate)^i,  i = floor(t / every)

    Args:
      rate: fraction of the remaining weights that a round removes, in (0, 1); published 0.2.
      every: steps in a round, at least 1.

    Returns:
      Function of the step (int, or int32 array, also traced).

    Raises:
      ValueError: rate or period out of range.

    Source: Frankle & Carbin 2019, "The lottery ticket hypothesis", section 1.

    >>> round(geometric_rounds(0.2, every=10)(25), 4)
    0.36
    """
    if not 0 < rate < 1:
        fail("geometric_rounds", "rate", f"value {rate}", "a fraction in (0, 1)")
    check_integer("geometric_rounds", "every", every)
    return lambda step: 1.0 - (1.0 - rate) ** (step // every)


def alternating(pieces: Sequence[tuple[int, float]]) -> Schedule:
    """Hold a list of sparsities, each from a step on.

    s(t) = sparsity of the last piece with start <= t

    Args:
      pieces: ``(start, sparsity)`` in ascending order, the first at step 0.

    Returns:
      Function of the step (int, or int32 array, also traced).

    Raises:
      ValueError: no piece, starts that do not ascend from 0, or a sparsity outside [0, 1).

    Source: the phases of Peste et al. 2021, "AC/DC", as a schedule.

    >>> [alternating([(0, 0.0), (10, 0.9), (15, 0.0)])(t) for t in (9, 10, 15)]
    [0.0, 0.9, 0.0]
    """
    starts = np.array([start for start, _ in pieces], np.int32)
    levels = [float(as_fraction("alternating", "pieces", sparsity)) for _, sparsity in pieces]
    if not len(starts) or starts[0] != 0 or (np.diff(starts) <= 0).any():
        fail("alternating", "pieces", f"starts {starts.tolist()}", "ascending steps, the first 0")

    def schedule(step: Any) -> Any:
        if on_host(step):
            return levels[int(np.searchsorted(starts, step, side="right")) - 1]
        return jnp.asarray(levels, jnp.float32)[jnp.searchsorted(jnp.asarray(starts), step, side="right") - 1]

    return schedule


def cosine_drop(fraction: float, end: int) -> Schedule:
    """Fraction of the kept weights that an update replaces: a cosine down to 0.

    f(t) = fraction / 2 * (1 + cos(pi * t / end)) for t < end, else 0

    Args:
      fraction: at step 0, in (0, 1); published: 0.3 (RigL), 0.5 (SNFS, GraNet).
      end: step from which nothing is replaced, at least 1.

    Returns:
      Function of the step (int, or int32 array, also traced).

    Raises:
      ValueError: fraction or step out of range.

    Source: Evci et al. 2020, "RigL", section 3 (2); Dettmers & Zettlemoyer 2019, "Sparse networks from scratch".

    >>> [round(cosine_drop(0.3, 100)(t), 3) for t in (0, 50, 100)]
    [0.3, 0.15, 0.0]
    """
    if not 0 < fraction < 1:
        fail("cosine_drop", "fraction", f"value {fraction}", "a fraction in (0, 1)")
    check_integer("cosine_drop", "end", end)

    def schedule(step: Any) -> Any:
        xp = np if on_host(step) else jnp
        value = xp.where(step < end, fraction / 2 * (1 + xp.cos(math.pi * step / end)), 0.0)
        return float(value) if on_host(step) else value

    return schedule
