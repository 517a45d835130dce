"""Gates: at which steps a method chooses its mask anew."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from sparsejax.pruning._numbers import check_integer


@dataclass(frozen=True)
class Every:
    """The steps ``begin, begin + delta, ...`` up to ``end``, and ``end`` itself; built by ``every``."""

    delta: int
    begin: int
    end: int

    def __call__(self, step: jax.Array | int) -> Any:
        """Tell whether the gate fires at ``step``, an int or an int32 array (may be traced)."""
        inside = (step >= self.begin) & (step <= self.end)
        return inside & (((step - self.begin) % self.delta == 0) | (step == self.end))

    def steps(self) -> tuple[int, ...]:
        """Return every step at which the gate fires, ascending."""
        return (*range(self.begin, self.end, self.delta), self.end)

    def index(self, step: jax.Array | int) -> jax.Array:
        """Return the position in ``steps()`` of a step at which the gate fires, an int32 scalar."""
        return (jnp.asarray(step, jnp.int32) - self.begin + self.delta - 1) // self.delta


def every(delta: int, begin: int, end: int) -> Every:
    """Fire at ``begin``, then every ``delta`` steps, and in any case at ``end``.

    fires(t) = begin <= t <= end and ((t - begin) mod delta = 0 or t = end)

    Without the last clause a range that is no multiple of the period misses the final sparsity.

    Args:
      delta: period in optimizer steps, at least 1.
      begin: first step, at least 0; 0 is when the optimizer state is made, before any step.
      end: last step, inclusive, at least ``begin``.

    Returns:
      Gate.

    Raises:
      ValueError: a number is no integer or out of range.

    Source: Zhu & Gupta 2017, "To prune, or not to prune", equation 1, with the end added.

    >>> every(300, 0, 1000).steps()
    (0, 300, 600, 900, 1000)
    """
    for operand, value, least in (("delta", delta, 1), ("begin", begin, 0), ("end", end, begin)):
        check_integer("every", operand, value, least)
    return Every(delta, begin, end)
