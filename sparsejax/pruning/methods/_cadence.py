"""The cadence of a method: at which steps it updates its mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import jax
import jax.numpy as jnp

from sparsejax._checks import check_integer, fail

Step: TypeAlias = int | jax.Array
"""Optimizer steps done: an int, or an int32 array that may be traced."""
Fires: TypeAlias = bool | jax.Array
"""Whether a mask is updated."""


@dataclass(frozen=True)
class Cadence:
    """The steps ``start, start + update_every, ...`` up to ``stop``, and ``stop`` itself.

    fires(t) = start <= t <= stop and ((t - start) mod update_every = 0 or t = stop)

    Without the last clause a range that is not a multiple of the period would miss the final sparsity (Zhu & Gupta
    2017, "To prune, or not to prune", equation 1, with the end added).

    Attributes:
      update_every: period in optimizer steps.
      start: first update; 0 is when the optimizer state is made, before any step.
      stop: last update; None is never.

    >>> Cadence(300, 0, 1000).steps()
    (0, 300, 600, 900, 1000)
    """

    update_every: int
    start: int
    stop: int | None

    def __call__(self, step: Step) -> Fires:
        """Tell whether the mask is updated after ``step`` optimizer steps."""
        fires = (step >= self.start) & ((step - self.start) % self.update_every == 0)
        return fires if self.stop is None else (fires & (step <= self.stop)) | (step == self.stop)

    def steps(self) -> tuple[int, ...]:
        """Return every step with an update, ascending; ``stop`` must not be None."""
        assert self.stop is not None
        return (*range(self.start, self.stop, self.update_every), self.stop)

    def index(self, step: Step) -> jax.Array:
        """Return the position in ``steps()`` of a step with an update, an int32 scalar."""
        return (jnp.asarray(step, jnp.int32) - self.start + self.update_every - 1) // self.update_every

    def until_next(self, step: Step) -> jax.Array:
        """Return the steps from ``step``, at most ``stop``, to the next update; 0 at an update."""
        step = jnp.asarray(step, jnp.int32)
        left = jnp.where(step < self.start, self.start - step, (self.start - step) % self.update_every)
        return left if self.stop is None else jnp.where(step <= self.stop, jnp.minimum(left, self.stop - step), left)


def cadence(function: str, update_every: int, start: int, stop: int | None, *, first: int = 0) -> Cadence:
    """Return the checked cadence of a method.

    Args:
      function: public function named in errors.
      update_every, start, stop: as for ``Cadence``.
      first: the earliest step at which an update has an effect; ``stop`` must not be before it.

    Raises:
      ValueError: a number is not an integer or out of range.
    """
    check_integer(function, "update_every", update_every)
    check_integer(function, "start", start, 0)
    if stop is not None:
        check_integer(function, "stop", stop, max(start, first))
    return Cadence(update_every, start, stop)


def check_reaches(function: str, schedule: object, stop: int) -> None:
    """Refuse a schedule that is not a function, or that ends after the last update."""
    if not callable(schedule):
        got, hint = f"type {type(schedule).__name__}", "A fixed sparsity is written one_shot(...)."
        fail(function, "schedule", got, "a function step -> sparsity", hint, TypeError)
    end = end_of(schedule)
    if end is not None and stop < end:
        hint = "The final sparsity would never be reached."
        fail(function, "stop", f"value {stop}", f"the end of the schedule, {end}, or a later step", hint)


def end_of(schedule: object) -> int | None:
    """Return the step from which a schedule is constant, or None if it does not say."""
    end = getattr(schedule, "end", None)
    return end if isinstance(end, int) else None
