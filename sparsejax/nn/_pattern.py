"""``Pattern``: the variable that holds the topology of a sparse layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, serialization

from sparsejax._checks import fail
from sparsejax._compat import is_traced
from sparsejax.pattern import SparsityPattern
from sparsejax.pattern._pattern import ARRAYS


class Pattern(nnx.Variable[SparsityPattern]):
    """The topology of a sparse layer: a ``flax.nnx.Variable`` whose value is a ``SparsityPattern``.

    Filters for ``nnx.Param`` do not match it, so gradients and optimizers leave it alone; ``nnx.split``,
    ``nnx.jit``, ``nnx.clone`` and checkpoints carry it like any other state. Its index arrays are leaves; its
    shape and ``nse`` are static, so a checkpoint restores only into a model built with the same shape and
    capacity (see ``SparsityPattern.pad_to`` to reserve room).

    >>> import jax.numpy as jnp
    >>> variable = Pattern(SparsityPattern.from_mask(jnp.eye(2, dtype=bool)))
    >>> variable.get_value()
    SparsityPattern(shape=(2, 2), nse=2, sparsity=0.5)
    """


def forward_only(model: nnx.Module) -> int:
    """Replace the patterns of a model, in place, by those for inference (``SparsityPattern.forward_only``).

    Returns:
      The bytes that the model takes less: 8 per stored entry.

    >>> import jax.numpy as jnp, sparsejax as sx
    >>> pattern = SparsityPattern.from_mask(jnp.eye(8, dtype=bool))
    >>> layer = sx.nn.SparseLinear(8, 8, pattern=pattern, rngs=nnx.Rngs(0))
    >>> forward_only(layer), forward_only(layer)
    (64, 0)
    """
    freed = 0
    for _, node in nnx.iter_graph(model, graph=True):
        if isinstance(node, Pattern):
            old = node.get_value()
            new = old.forward_only()
            node.set_value(new)
            freed += sum(a.nbytes for a in jax.tree.leaves(old)) - sum(a.nbytes for a in jax.tree.leaves(new))
    return freed


def _pattern_to_state(pattern: SparsityPattern) -> dict[str, Any]:
    """A pattern for ``flax.serialization``: its arrays by name, and its shape."""
    return {name: getattr(pattern, name) for name in ARRAYS} | {"shape": np.asarray(pattern.shape, np.int64)}


def _pattern_from_state(target: SparsityPattern, state: Mapping[str, Any]) -> SparsityPattern:
    """The stored pattern; it must describe a kernel of the target's shape.

    Linen takes the attributes of each module that it makes apart and puts them together again in this way, also while
    tracing: what is unchanged is the target itself.
    """
    if all(state[name] is getattr(target, name) for name in ARRAYS):
        return target
    shape = tuple(int(n) for n in state["shape"])
    if shape != target.shape:
        fail("SparsityPattern", "serialized state", f"shape {shape}", f"shape {target.shape}, that of the target")
    pattern = SparsityPattern(**{name: jnp.asarray(state[name]) for name in ARRAYS}, shape=shape)
    return pattern if any(map(is_traced, jax.tree.leaves(pattern))) else pattern.validate()


serialization.register_serialization_state(SparsityPattern, _pattern_to_state, _pattern_from_state)
