"""Schedules: functions of the optimizer step that return a sparsity."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax._checks import fail
from sparsejax.pruning._numbers import check_integer
from sparsejax.pruning.allocation._distributions import as_fraction

Schedule = Callable[[Any], Any]


def on_host(step: Any) -> bool:
    """Tell whether a step is a plain integer."""
    return isinstance(step, int | np.integer)


@dataclass(frozen=True)
class Ramp:
    """A schedule that goes from ``initial`` at ``begin`` to ``final`` at ``end`` along ``shape``."""

    initial: float
    final: float
    begin: int
    end: int
    shape: Callable[[Any, Any], Any]

    def __call__(self, step: Any) -> Any:
        """Return the sparsity at ``step``: a float for a Python int, float32 for an array."""
        xp = np if on_host(step) else jnp
        progress = xp.clip((step - self.begin) / (self.end - self.begin), 0.0, 1.0)
        # Weights that are exactly 1 and 0 at the ends make the end values exact.
        left = self.shape(progress, xp)
        value = self.initial * left + self.final * (1.0 - left)
        return float(value) if on_host(step) else value


@dataclass(frozen=True)
class _Jump:
    """A schedule that is 0 before ``end`` and ``final`` from there on."""

    final: float
    end: int

    def __call__(self, step: Any) -> Any:
        """Return the sparsity at ``step``: a float for a Python int, float32 for an array."""
        if on_host(step):
            return self.final if step >= self.end else 0.0
        return jnp.where(step >= self.end, jnp.float32(self.final), jnp.float32(0))


def check_ramp(function: str, initial: float, final: float, begin: int, end: int) -> None:
    """Refuse sparsities outside [0, 1) and steps that do not ascend."""
    as_fraction(function, "initial", initial)
    as_fraction(function, "final", final)
    if begin < 0 or begin >= end:
        fail(function, "begin and end", f"values {begin} and {end}", "0 <= begin < end, in optimizer steps")


def constant(sparsity: float) -> Schedule:
    """Return the same sparsity at every step.

    s(t) = sparsity

    Args:
      sparsity: fraction of zeros, in [0, 1).

    Returns:
      Function of the step (int, or int32 array, also traced).

    Raises:
      ValueError: the sparsity is outside [0, 1).

    Source: Peste et al. 2021, "AC/DC" (one sparsity for all compressions).

    >>> constant(0.9)(1000)
    0.9
    """
    as_fraction("constant", "sparsity", sparsity)
    return _Jump(float(sparsity), 0)


def one_shot(sparsity: float, at: int = 0) -> Schedule:
    """Jump from dense to the final sparsity at one step.

    s(t) = sparsity * [t >= at]

    Args:
      sparsity: fraction of zeros, in [0, 1).
      at: step of the jump, at least 0.

    Returns:
      Function of the step (int, or int32 array, also traced).

    Raises:
      ValueError: the sparsity is outside [0, 1), or ``at`` is negative.

    Source: Han et al. 2015, "Learning both weights and connections for efficient neural networks".

    >>> one_shot(0.9, at=10)(9), one_shot(0.9, at=10)(10)
    (0.0, 0.9)
    """
    as_fraction("one_shot", "sparsity", sparsity)
    check_integer("one_shot", "at", at, 0)
    return _Jump(float(sparsity), at)


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
      Function of the step (int, or int32 array, also traced).

    Raises:
      ValueError: a sparsity is outside [0, 1), or steps or power are out of range.

    Source: Zhu & Gupta 2017, "To prune, or not to prune", equation 1.

    >>> polynomial(0.0, 0.5, begin=0, end=100)(50)
    0.4375
    """
    check_ramp("polynomial", initial, final, begin, end)
    if not 0 < power < math.inf:
        fail("polynomial", "power", f"value {power}", "a number above 0")
    return Ramp(float(initial), float(final), begin, end, lambda progress, _: (1.0 - progress) ** power)


def cubic(initial: float, final: float, *, begin: int, end: int) -> Schedule:
    """Return ``polynomial`` with power 3, the published schedule of gradual magnitude pruning.

    s(t) = s_f + (s_i - s_f) * (1 - p)^3,  p = clip((t - begin) / (end - begin), 0, 1)

    Args:
      initial: sparsity up to ``begin``, in [0, 1).
      final: sparsity from ``end`` on, in [0, 1).
      begin: first step of the ramp, at least 0.
      end: last step of the ramp, after ``begin``.

    Returns:
      Function of the step (int, or int32 array, also traced).

    Raises:
      ValueError: a sparsity is outside [0, 1), or steps are out of range.

    Source: Zhu & Gupta 2017, "To prune, or not to prune", equation 1.

    >>> cubic(0.0, 0.8, begin=0, end=100)(100)
    0.8
    """
    return polynomial(initial, final, begin=begin, end=end, power=3.0)


def linear(initial: float, final: float, *, begin: int, end: int) -> Schedule:
    """Return ``polynomial`` with power 1: the same number of weights goes at every update.

    s(t) = s_i + (s_f - s_i) * p,  p = clip((t - begin) / (end - begin), 0, 1)

    Args:
      initial: sparsity up to ``begin``, in [0, 1).
      final: sparsity from ``end`` on, in [0, 1).
      begin: first step of the ramp, at least 0.
      end: last step of the ramp, after ``begin``.

    Returns:
      Function of the step (int, or int32 array, also traced).

    Raises:
      ValueError: a sparsity is outside [0, 1), or steps are out of range.

    Source: the case q = 1 of Zhu & Gupta 2017, equation 1.

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
      Function of the step (int, or int32 array, also traced).

    Raises:
      ValueError: a sparsity is outside [0, 1), or steps are out of range.

    Source: cosine annealing, Loshchilov & Hutter 2017, "SGDR", equation 5, applied to a sparsity.

    >>> cosine(0.2, 0.8, begin=0, end=100)(50)
    0.5
    """
    check_ramp("cosine", initial, final, begin, end)

    def shape(progress: Any, xp: Any) -> Any:
        return (1.0 + xp.cos(math.pi * progress)) / 2.0

    return Ramp(float(initial), float(final), begin, end, shape)


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
