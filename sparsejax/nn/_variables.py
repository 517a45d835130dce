"""The variable type that holds a pattern inside an NNX module."""

from __future__ import annotations

from flax import nnx

from sparsejax.pattern import SparsityPattern


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
