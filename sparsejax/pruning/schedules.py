"""Schedules: functions of the optimizer step that return a sparsity, or a fraction of weights to drop.

Any function ``step -> number`` is a schedule, those of ``optax.schedules`` too. The methods evaluate it on the host,
with Python integers, and turn its values into exact counts of weights. So the functions here return Python floats for
Python integers, in double precision and with the end values exactly as they were passed. ``optax.polynomial_schedule``
and ``optax.linear_schedule`` compute in float32 on the device and return ``(a - b) + b`` where ``a`` is meant, which
is why they are not used here; ``constant`` is Optax's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from sparsejax._checks import check_integer, fail
from sparsejax.pruning.allocation._distributions import as_fraction

__all__ = [
    "Schedule",
    "accelerated_cubic",
    "alternating",
    "constant",
    "cosine",
    "cosine_drop",
    "cubic",
    "exponential",
    "geometric_rounds",
    "linear",
    "one_shot",
    "polynomial",
]

Schedule: TypeAlias = Callable[[Any], ArrayLike]
"""A function of the optimizer step (int, or int32 array, also traced)."""


def constant(sparsity: float) -> Schedule:
    """Return the same sparsity at every step; ``optax.constant_schedule`` with a check.

    s(t) = sparsity

    Args:
      sparsity: fraction of zeros, in [0, 1).

    Returns:
      Schedule.

    Raises:
      ValueError: the sparsity is outside [0, 1).

    Source: Peste et al. 2021, "AC/DC" (one sparsity for all compressions).

    >>> constant(0.9)(1000)
    0.9
    """
    as_fraction("constant", "sparsity", sparsity)
    return optax.schedules.constant_schedule(float(sparsity))


def one_shot(sparsity: float, at: int = 0) -> Schedule:
    """Jump from dense to the final sparsity at one step.

    s(t) = sparsity * [t >= at]

    Args:
      sparsity: fraction of zeros, in [0, 1).
      at: step of the jump, at least 0.

    Returns:
      Schedule.

    Raises:
      ValueError: the sparsity is outside [0, 1), or ``at`` is negative.

    Source: Han et al. 2015, "Learning both weights and connections for efficient neural networks".

    >>> one_shot(0.9, at=10)(9), one_shot(0.9, at=10)(10)
    (0.0, 0.9)
    """
    as_fraction("one_shot", "sparsity", sparsity)
    check_integer("one_shot", "at", at, 0)
    return _From(constant(sparsity), 0.0, at, at)


def polynomial(initial: float, final: float, *, begin: int, end: int, power: float = 3.0) -> Schedule:
    """Rise fast, then slowly, from one sparsity to another.

    s(t) = s_f + (s_i - s_f) * (1 - p)^power,  p = clip((t - begin) / (end - begin), 0, 1)

    Args:
      initial: sparsity up to ``begin``, in [0, 1).
      final: sparsity from ``end`` on, in [0, 1).
      begin: first step of the ramp, at least 0.
      end: last step of the ramp, after ``begin``.
      power: exponent, above 0; 1 is linear, 3 the published value.

    Returns:
      Schedule.

    Raises:
      ValueError: a sparsity is outside [0, 1), or steps or power are out of range.

    Source: Zhu & Gupta 2017, "To prune, or not to prune", equation 1.

    >>> polynomial(0.0, 0.5, begin=0, end=100)(50)
    0.4375
    """
    _check_ramp("polynomial", initial, final, begin, end)
    if not 0 < power < math.inf:
        fail("polynomial", "power", f"value {power}", "a number above 0")
    return _Ramp(float(initial), float(final), begin, end, lambda progress, _: (1.0 - progress) ** power)


def cubic(initial: float, final: float, *, begin: int, end: int) -> Schedule:
    """Return ``polynomial`` with power 3, the published schedule of gradual magnitude pruning.

    s(t) = s_f + (s_i - s_f) * (1 - p)^3,  p = clip((t - begin) / (end - begin), 0, 1)

    Arguments, result, errors and source are those of ``polynomial``.

    >>> cubic(0.0, 0.8, begin=0, end=100)(100)
    0.8
    """
    return polynomial(initial, final, begin=begin, end=end, power=3.0)


def linear(initial: float, final: float, *, begin: int, end: int) -> Schedule:
    """Return ``polynomial`` with power 1: every update prunes the same number of weights.

    s(t) = s_i + (s_f - s_i) * p,  p = clip((t - begin) / (end - begin), 0, 1)

    Arguments, result, errors and source are those of ``polynomial``.

    >>> linear(0.0, 0.8, begin=0, end=100)(50)
    0.4
    """
    return polynomial(initial, final, begin=begin, end=end, power=1.0)


def cosine(initial: float, final: float, *, begin: int, end: int) -> Schedule:
    """Rise slowly, then fast, then slowly again.

    s(t) = s_f + (s_i - s_f) * (1 + cos(pi * p)) / 2,  p = clip((t - begin) / (end - begin), 0, 1)

    Args:
      initial: sparsity up to ``begin``, in [0, 1).
      final: sparsity from ``end`` on, in [0, 1).
      begin: first step of the ramp, at least 0.
      end: last step of the ramp, after ``begin``.

    Returns:
      Schedule.

    Raises:
      ValueError: a sparsity is outside [0, 1), or steps are out of range.

    Source: cosine annealing, Loshchilov & Hutter 2017, "SGDR", equation 5, applied to a sparsity.

    >>> cosine(0.2, 0.8, begin=0, end=100)(50)
    0.5
    """
    _check_ramp("cosine", initial, final, begin, end)

    def shape(progress: Any, xp: Any) -> Any:
        return (1.0 + xp.cos(math.pi * progress)) / 2.0

    return _Ramp(float(initial), float(final), begin, end, shape)


def exponential(final: float, *, begin: int, end: int) -> Schedule:
    """Multiply the density by the same factor in every step.

    1 - s(t) = (1 - s_f)^p,  p = clip((t - begin) / (end - begin), 0, 1)

    Args:
      final: sparsity from ``end`` on, in [0, 1).
      begin: first step of the ramp, at least 0.
      end: last step of the ramp, after ``begin``.

    Returns:
      Schedule.

    Raises:
      ValueError: the sparsity is outside [0, 1), or steps are out of range.

    Source: Tanaka et al. 2020, "SynFlow", section 6 (iterative pruning, exponential schedule).

    >>> exponential(0.75, begin=0, end=100)(50)
    0.5
    """
    _check_ramp("exponential", 0.0, final, begin, end)

    def shape(progress: Any, xp: Any) -> Any:
        # The part of the way that is left: 1 at the begin, exactly 0 at the end.
        density = (1.0 - final) ** progress
        return xp.where(progress >= 1.0, 0.0, (density - (1.0 - final)) / final) if final else 1.0 - progress

    return _Ramp(0.0, float(final), begin, end, shape)


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
      Schedule.

    Raises:
      ValueError: a sparsity is outside [0, 1), or steps are out of range.

    Source: Kurtic & Alistarh 2022, "GMP*: well-tuned gradual magnitude pruning can outperform most BERT-pruning
      methods", section 3.

    >>> s = accelerated_cubic(0.0, 0.5, 0.9, begin=10, end=100)
    >>> s(9), s(10), s(100)
    (0.0, 0.5, 0.9)
    """
    as_fraction("accelerated_cubic", "initial", initial)
    return _From(polynomial(jump, final, begin=begin, end=end), float(initial), begin, end)


def geometric_rounds(rate: float, *, every: int) -> Schedule:
    """Remove the same fraction of the remaining weights in every round.

    1 - s(t) = (1 - rate)^i,  i = floor(t / every)

    Args:
      rate: fraction of the remaining weights that a round removes, in (0, 1); published 0.2.
      every: steps in a round, at least 1.

    Returns:
      Schedule.

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
    """Return a list of sparsities, each from a step on.

    s(t) = sparsity of the last piece with start <= t

    Args:
      pieces: ``(start, sparsity)`` in ascending order, the first at step 0.

    Returns:
      Schedule.

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
        if _on_host(step):
            return levels[int(np.searchsorted(starts, step, side="right")) - 1]
        return jnp.asarray(levels, jnp.float32)[jnp.searchsorted(jnp.asarray(starts), step, side="right") - 1]

    return schedule


def cosine_drop(fraction: float, end: int) -> Schedule:
    """Return the fraction of the kept weights that an update replaces: a cosine down to 0.

    f(t) = fraction / 2 * (1 + cos(pi * t / end)) for t < end, else 0

    Args:
      fraction: at step 0, in (0, 1); published: 0.3 (RigL), 0.5 (SNFS, GraNet).
      end: step from which nothing is replaced, at least 1.

    Returns:
      Schedule.

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
        xp = np if _on_host(step) else jnp
        value = xp.where(step < end, fraction / 2 * (1 + xp.cos(math.pi * step / end)), 0.0)
        return float(value) if _on_host(step) else value

    return schedule


def sparsity_at(function: str, schedule: Schedule, step: int) -> Fraction:
    """Evaluate any schedule on the host, also while a surrounding function is being traced.

    Args:
      function: public function named in the error.
      schedule: function of the step; may be written with ``jnp``, as Optax's are.
      step: optimizer step.

    Returns:
      The sparsity as an exact fraction.

    Raises:
      ValueError: the sparsity is outside [0, 1).

    >>> sparsity_at("magnitude", constant(0.9), 3)
    Fraction(9, 10)
    """
    with jax.ensure_compile_time_eval():
        value = np.asarray(schedule(step))
    return as_fraction(function, f"the schedule at step {step}", value)


@dataclass(frozen=True)
class _Ramp:
    """A schedule that goes from ``initial`` at ``begin`` to ``final`` at ``end`` along ``shape``."""

    initial: float
    final: float
    begin: int
    end: int
    shape: Callable[[Any, Any], Any]

    def __call__(self, step: Any) -> Any:
        xp = np if _on_host(step) else jnp
        progress = xp.clip((step - self.begin) / (self.end - self.begin), 0.0, 1.0)
        # Weights that are exactly 1 and 0 at the ends make the end values exact.
        left = self.shape(progress, xp)
        value = self.initial * left + self.final * (1.0 - left)
        return float(value) if _on_host(step) else value


@dataclass(frozen=True)
class _From:
    """A constant before step ``begin``, another schedule from there on."""

    then: Schedule
    initial: float
    begin: int
    end: int

    def __call__(self, step: Any) -> Any:
        if _on_host(step):
            return self.then(step) if step >= self.begin else self.initial
        return jnp.where(step >= self.begin, jnp.float32(self.then(step)), jnp.float32(self.initial))


def _on_host(step: Any) -> bool:
    return isinstance(step, int | np.integer)


def _check_ramp(function: str, initial: float, final: float, begin: int, end: int) -> None:
    """Refuse sparsities outside [0, 1) and steps that do not ascend."""
    as_fraction(function, "initial", initial)
    as_fraction(function, "final", final)
    if begin < 0 or begin >= end:
        fail(function, "begin and end", f"values {begin} and {end}", "0 <= begin < end, in optimizer steps")
