"""What a step of the wrapper computes with the arrays of a leaf."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp


def zeroed(keep: jax.Array, moment: jax.Array) -> jax.Array:
    """Return a moment with 0 where ``keep`` is false."""
    # Factored or reshaped statistics (Adafactor, SM3) have no entry for a single weight.
    return jnp.where(keep, moment, jnp.zeros_like(moment)) if jnp.shape(moment) == keep.shape else moment


def count(mask: jax.Array) -> jax.Array:
    """Return how many weights a mask keeps."""
    return jnp.sum(mask, dtype=jnp.int32)


def both(old: Sequence[jax.Array], new: Sequence[jax.Array]) -> list[jax.Array]:
    """Return what both of each pair of masks keep."""
    return [before & after for before, after in zip(old, new, strict=True)]


def constrain(survives: jax.Array, delta: jax.Array, weight: jax.Array) -> jax.Array:
    """Return the update of a leaf that leaves weights outside ``survives`` at exactly 0."""
    # The wider dtype of the two holds -weight exactly, whatever inner returned.
    dtype = jnp.promote_types(jnp.result_type(delta), jnp.result_type(weight))
    return jnp.where(survives, delta.astype(dtype), -jnp.asarray(weight, dtype))


def pinned(updates: Sequence[Any], weights: Sequence[Any]) -> list[Any]:
    """Return the updates as they are, in a form that the compiler cannot contract.

    An optimizer ends in a product, ``apply_updates`` is a sum, and a compiler may make the two one operation that
    rounds once; whether it does depends on what surrounds them. A select in between rounds the product in every
    program, so that masks, packed masks and stored values, loops and scans end with the same bits.
    """
    pairs = zip(updates, weights, strict=True)
    return [jnp.where(weight == weight, update, jnp.zeros_like(update)) for update, weight in pairs]
