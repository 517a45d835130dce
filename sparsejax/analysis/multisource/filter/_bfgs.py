"""BFGS as a machine that makes one function call per tick.

Under ``vmap`` a line search inside an iteration would run every lane until the slowest search of every iteration is
done. Here the search is part of the state: each tick evaluates one trial point and accepts, lengthens or shortens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

_DECREASE, _CURVATURE = 1e-4, 0.9  # of the weak Wolfe conditions, as in SciPy
_TRIALS = 40  # of one line search; beyond it rounding decides, and the search has failed


class State(NamedTuple):
    """One minimisation: point, value, gradient, inverse Hessian, and the line search along ``direction``."""

    x: jax.Array
    value: jax.Array
    grad: jax.Array
    inverse: jax.Array
    direction: jax.Array
    step: jax.Array
    low: jax.Array
    high: jax.Array
    trials: jax.Array
    n_iter: jax.Array
    done: jax.Array


def minimise(
    function: Callable[[jax.Array], tuple[jax.Array, jax.Array]], x: jax.Array, max_iter: int, tol: float
) -> State:
    """Minimise from ``x`` until the largest entry of the gradient is at most ``tol``, or ``max_iter`` iterations.

    Args:
      function: gives value and gradient.
      x: float[k].
      max_iter: most accepted steps.
      tol: on the gradient.
    """
    value, grad = function(x)
    one, zero = jnp.ones((), x.dtype), jnp.zeros((), jnp.int32)
    done = jnp.abs(grad).max() <= tol
    inverse = jnp.eye(len(x), dtype=x.dtype)
    start = State(x, value, grad, inverse, -grad, one, 0 * one, jnp.inf * one, zero, zero, done)
    return jax.lax.while_loop(lambda s: ~s.done, lambda s: _tick(function, s, max_iter, tol), start)


def _tick(
    function: Callable[[jax.Array], tuple[jax.Array, jax.Array]], state: State, max_iter: int, tol: float
) -> State:
    """Evaluate one trial point and go on from there.

    The line search is the bisection of Lewis and Overton (2013, "Nonsmooth optimization via quasi-Newton methods",
    algorithm 2.6) for the weak Wolfe conditions: it needs no derivative of the derivative and stays right at the kink
    of an absolute value.
    """
    x = state.x + state.step * state.direction
    value, grad = function(x)
    slope = state.grad @ state.direction
    falls = value <= state.value + _DECREASE * state.step * slope
    flattens = grad @ state.direction >= _CURVATURE * slope
    accepted = _accept(state, x, value, grad, max_iter, tol)
    low = jnp.where(falls, state.step, state.low)
    high = jnp.where(falls, state.high, state.step)
    step = jnp.where(jnp.isfinite(high), (low + high) / 2, 2 * state.step)
    trials = state.trials + 1
    searching = state._replace(step=step, low=low, high=high, trials=trials, done=trials >= _TRIALS)
    return jax.tree.map(lambda new, old: jnp.where(falls & flattens, new, old), accepted, searching)


def _accept(state: State, x: jax.Array, value: jax.Array, grad: jax.Array, max_iter: int, tol: float) -> State:
    s, y = x - state.x, grad - state.grad
    inner = s @ y  # positive by the curvature condition, but for rounding
    usable = inner > 0
    scale = 1 / jnp.where(usable, inner, 1.0)
    image = state.inverse @ y
    inverse = (
        state.inverse
        - scale * (jnp.outer(s, image) + jnp.outer(image, s))
        + scale * (1 + scale * (y @ image)) * jnp.outer(s, s)
    )
    inverse = jnp.where(usable, inverse, state.inverse)
    one = jnp.ones_like(value)
    n_iter = state.n_iter + 1
    done = (jnp.abs(grad).max() <= tol) | (n_iter >= max_iter)
    return State(x, value, grad, inverse, -(inverse @ grad), one, 0 * one, jnp.inf * one, 0 * n_iter, n_iter, done)
