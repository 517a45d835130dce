"""What the inner optimizer keeps per weight, across a change of the mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from sparsejax.pruning._leaves import PyTree, is_masked_node


def zero_moments(inner: optax.GradientTransformation, state: Any, params: PyTree, keep: Sequence[Any]) -> Any:
    """Zero the moments, traces and accumulators of weights outside ``keep``; all else stays.

    Args:
      inner: the optimizer.
      state: its state.
      params: parameters.
      keep: bool array for each leaf of ``params``, or ``optax.MaskedNode()``.
    """
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]]
    masks = {p: mask for p, mask in zip(paths, keep, strict=True) if not is_masked_node(mask)}

    def zero_moment(path: tuple[Any, ...], moment: Any) -> Any:
        # Factored or reshaped statistics (Adafactor, SM3) have no entry for a single weight.
        if path not in masks or jnp.shape(moment) != masks[path].shape:
            return moment
        return jnp.where(masks[path], moment, jnp.zeros_like(moment))

    def zero(moments: PyTree) -> PyTree:
        return jax.tree_util.tree_map_with_path(zero_moment, moments)

    # Each copy of the parameter tree arrives whole: partition cuts subtrees out, SM3 hangs some on leaves.
    return optax.tree_utils.tree_map_params(inner, zero, state, is_leaf=lambda _: True)


def restart_moments(inner: optax.GradientTransformation, state: Any, params: PyTree, restarts: Any) -> Any:
    """Set all that is kept per parameter, of every parameter, to its first value where ``restarts`` is True.

    Counters, schedules and injected hyperparameters go on.
    """
    per_parameter = optax.tree_utils.tree_map_params(
        inner,
        lambda moments: jax.tree.map(lambda _: True, moments),
        state,
        transform_non_params=lambda _: False,
        is_leaf=lambda _: True,
    )
    return jax.tree.map(
        lambda is_moment, old, first: jnp.where(restarts, first, old) if is_moment else old,
        per_parameter,
        state,
        inner.init(params),
    )


def pinned(updates: Sequence[Any], params: PyTree) -> list[Any]:
    """Return the updates as they are, in a form that the compiler cannot contract.

    An optimizer ends in a product, ``apply_updates`` is a sum, and a compiler may make the two one operation that
    rounds once; whether it does depends on what surrounds them. A select in between rounds the product in every
    program, so that masks, packed masks and stored values, loops and scans end with the same bits.
    """
    pairs = zip(updates, jax.tree.leaves(params), strict=True)
    return [jnp.where(weight == weight, update, jnp.zeros_like(update)) for update, weight in pairs]
