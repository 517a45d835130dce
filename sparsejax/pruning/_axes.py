"""Kernels sharded over explicit mesh axes: masks are chosen and applied with these axes made automatic.

Ranking, packing and drawing weights mixes the axes of a kernel. Over an explicit axis JAX wants to be told the sharding
of every intermediate array; over an automatic one XLA finds it. The results get explicit shardings again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from sparsejax._typing import PyTree

WHOLE = PartitionSpec()


def shardings_of(tree: PyTree) -> PyTree:
    """Return how the type of each leaf says that it is sharded: a tree of ``PartitionSpec``."""
    return jax.tree.map(lambda leaf: jax.typeof(leaf).sharding.spec, tree)


def over_automatic_axes(function: Callable[..., Any], *args: Any, shardings: Callable[[], PyTree]) -> Any:
    """Call ``function(*args)``; where an argument is sharded over an explicit mesh axis, with automatic axes.

    Args:
      function: returns a tree of arrays.
      *args: trees of arrays.
      shardings: returns the shardings of the result, a tree of which a node may stand for all leaves below it. Called
        only where they are needed.
    """
    types = [jax.typeof(leaf) for leaf in jax.tree.leaves(args)]
    meshes = [t.sharding.mesh for t in types if any(axis is not None for axis in t.sharding.spec)]
    mesh = next((mesh for mesh in meshes if mesh.explicit_axes), None)
    if mesh is None:
        return function(*args)
    out = jax.tree.map(lambda spec: NamedSharding(mesh, spec), shardings())
    return jax.sharding.auto_axes(function, out_sharding=out)(*args)
