"""Batching rules without a loop: a mapped axis joins the batch or the channels of a primitive's operands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Rule = Callable[..., Any]


def fold_batch(*positions: int) -> Rule:
    """Return the rule for mapping over exactly the operands at ``positions``, whose first axis is the batch.

    ``(n, batch, ...)`` becomes ``(n * batch, ...)``. Other mappings return None: the caller loops.
    """

    def rule(call: Rule, args: Sequence[Any], dims: Sequence[Any], **params: Any) -> Any:
        if any(not isinstance(d, int) if i in positions else d is not None for i, d in enumerate(dims)):
            return None
        operands = list(args)
        lead: tuple[int, ...] = ()
        for i in positions:
            moved = jnp.moveaxis(args[i], dims[i], 0)
            lead = moved.shape[:2]
            operands[i] = moved.reshape(lead[0] * lead[1], *moved.shape[2:])
        out = call(*operands, **params)
        return jax.tree.map(lambda o: o.reshape(*lead, *o.shape[1:]), out), 0

    return rule


def fold_channels(call: Rule, args: Sequence[Any], dims: Sequence[Any], **params: Any) -> Any:
    """Make a mapped axis part of the channels: ``(n, batch, ..., c)`` becomes ``(batch, ..., n * c)``."""
    if any(d is not None and not isinstance(d, int) for d in dims):
        return None
    count = next(a.shape[d] for a, d in zip(args, dims, strict=True) if d is not None)

    def fold(a: Any, d: int | None) -> Any:
        *lead, channels = a.shape if d is None else np.delete(a.shape, d).tolist()
        apart = a[..., None, :] if d is None else jnp.moveaxis(a, d, -2)
        return jnp.broadcast_to(apart, (*lead, count, channels)).reshape(*lead, count * channels)

    out = call(*map(fold, args, dims), **params)
    return jax.tree.map(lambda o: jnp.moveaxis(o.reshape(*o.shape[:-1], count, -1), -2, 0), out), 0
