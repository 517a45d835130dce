"""Types that many signatures share."""

from __future__ import annotations

from typing import Any, TypeAlias

import jax
from jax.typing import ArrayLike as ArrayLike
from jax.typing import DTypeLike as DTypeLike

Array: TypeAlias = jax.Array
PyTree: TypeAlias = Any
"""A tree of containers with arrays as leaves; JAX has no narrower type for it."""
