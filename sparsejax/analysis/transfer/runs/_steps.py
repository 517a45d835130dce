"""Training steps on bare arrays: the module is taken apart once for a run, not at every step."""

from __future__ import annotations

import functools
from typing import Any

import jax
from flax import nnx

from sparsejax.train import train_step


class ArraySteps:
    """`train_step` for one model and its optimizer, whose variables are up to date after `store` only.

    In a small network, walking the module at each step takes longer than the step.
    """

    def __init__(self, model: nnx.Module, optimizer: nnx.Optimizer[Any]):
        self._target = model, optimizer
        graph, state = nnx.split(self._target)
        leaves, self._tree = jax.tree.flatten(state)
        self._leaves = tuple(leaves)
        self._step = _compiled(graph, self._tree)

    def __call__(self, images: Any, labels: Any) -> jax.Array:
        """Take a step and return the loss before it; the caller need not wait for it."""
        self._leaves, loss = self._step(self._leaves, images, labels)
        return loss

    def store(self) -> None:
        """Write the arrays back into the model and the optimizer."""
        nnx.update(self._target, jax.tree.unflatten(self._tree, self._leaves))


@functools.lru_cache(maxsize=16)
def _compiled(graph: Any, tree: Any) -> Any:
    """One function, compiled once for each shape of batch, for all networks of the same structure."""

    @jax.jit
    def step(leaves: Any, images: jax.Array, labels: jax.Array) -> Any:
        model, optimizer = nnx.merge(graph, jax.tree.unflatten(tree, leaves))
        loss = train_step(model, optimizer, images, labels)
        after, tree_after = jax.tree.flatten(nnx.state((model, optimizer)))
        assert tree_after == tree  # the leaves mean the same as before
        return tuple(after), loss

    return step
