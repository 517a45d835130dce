"""Packed masks: one bit for each weight."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp


@partial(jax.tree_util.register_dataclass, data_fields=["bits"], meta_fields=["shape"])
@dataclass(frozen=True)
class PackedMask:
    """A mask stored as bits, a pytree with one leaf.

    Attributes:
      bits: uint8[ceil(n / 8)], the first weight in the highest bit of the first byte.
      shape: shape of the leaf, static.
    """

    bits: jax.Array
    shape: tuple[int, ...]


def pack(mask: jax.Array) -> PackedMask:
    """Store a mask as bits.

    >>> pack(jnp.array([[True, False, True]])).bits.tolist()
    [160]
    """
    return PackedMask(jnp.packbits(mask.ravel()), mask.shape)


def unpack(mask: Any) -> jax.Array:
    """Return the bool array of a packed mask; other masks as they are.

    >>> unpack(pack(jnp.array([[True, False, True]]))).tolist()
    [[True, False, True]]
    """
    if not isinstance(mask, PackedMask):
        return mask
    return jnp.unpackbits(mask.bits, count=math.prod(mask.shape)).astype(bool).reshape(mask.shape)
