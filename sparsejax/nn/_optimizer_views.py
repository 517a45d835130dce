"""Optimizers that look at shapes: which leaves are kernels, and a dense view of stored ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from sparsejax._checks import fail
from sparsejax._typing import PyTree
from sparsejax.nn._graph import modules_of
from sparsejax.nn._layer import SparseLayer
from sparsejax.nn._registry import gather, scatter


def kernel_mask(params: nnx.Module | PyTree) -> PyTree:
    """Say which parameters are matrices in the dense model, as a mask for Optax.

    The usual rule, decay where ``ndim > 1``, misses stored kernels, which have one axis. This one has the same value
    for a model before and after ``sparsify``:

    true = the leaf has two or more axes, or its name is ``kernel``

    Args:
      params: parameters in any tree (``nnx.State``, a Linen dict, gradients), or an NNX module, whose ``nnx.Param`` are
        taken. As a function it is a mask itself: ``optax.add_decayed_weights(1e-4, mask=kernel_mask)``.

    Returns:
      A tree of bools, one for each parameter.

    >>> model = nnx.Linear(4, 4, rngs=nnx.Rngs(0))
    >>> from sparsejax.nn import sparsify
    >>> sparse, _ = sparsify(model, {"": jnp.eye(4, dtype=bool)}, min_sparsity=0.5, policy="always")
    >>> dict(kernel_mask(sparse))
    {'bias': False, 'kernel': True}
    """
    tree = nnx.state(params, nnx.Param) if isinstance(params, nnx.Module) else params

    def is_matrix(path: Any, leaf: Any) -> bool:
        return _name(path).split("/")[-1] == "kernel" or len(leaf.shape) > 1

    return jax.tree_util.tree_map_with_path(is_matrix, tree, is_leaf=_is_variable)


def dense_view(inner: optax.GradientTransformation, model: nnx.Module) -> optax.GradientTransformationExtraArgs:
    """Let an optimizer see stored kernels as the matrices that they are.

    Gradients and parameters are scattered to the dense shape, zeros where nothing is stored; the updates of the inner
    optimizer are gathered. Its steps are those of masked dense training, where gradients and updates are zero outside
    the mask: muon orthogonalises the matrix, adafactor and sm3 factor it, ``ndim > 1`` finds it.

    Args:
      inner: any Optax optimizer.
      model: an NNX module with sparse layers. Its patterns as they are now: make a new view after they change.

    Returns:
      A transformation for the parameters of the model, such as ``nnx.state(model, nnx.Param)``. The state of the inner
      optimizer has the dense shapes, and a step costs what it costs for the dense model.

    Raises:
      TypeError: ``model`` is not an NNX module, or ``inner`` not an Optax transformation.

    >>> from sparsejax.nn import sparsify
    >>> model, mask = nnx.Linear(4, 4, use_bias=False, rngs=nnx.Rngs(0)), jnp.eye(4, dtype=bool)
    >>> sparse, _ = sparsify(model, {"": mask}, min_sparsity=0.5, policy="always")
    >>> optimizer = nnx.Optimizer(sparse, dense_view(optax.contrib.muon(1e-2), sparse), wrt=nnx.Param)
    >>> optimizer.update(sparse, nnx.grad(lambda m: m(jnp.ones((1, 4))).sum())(sparse))["kernel"].shape
    (4,)
    """
    if not isinstance(model, nnx.Module):
        fail("dense_view", "model", f"type {type(model).__name__}", "an nnx.Module", error=TypeError)
    if not (hasattr(inner, "init") and hasattr(inner, "update")):
        fail("dense_view", "inner", f"type {type(inner).__name__}", "an Optax transformation", error=TypeError)
    layers = {"/".join(filter(None, (path, "kernel"))): layer for path, layer in _sparse_copies(model).items()}
    inner = optax.with_extra_args_support(inner)

    def mapped(change: Callable[[SparseLayer, jax.Array], jax.Array], tree: PyTree) -> PyTree:
        def at(path: Any, leaf: Any) -> Any:
            layer = layers.get(_name(path))
            if layer is None:
                return leaf
            return leaf.copy(change(layer, leaf.get_value())) if _is_variable(leaf) else change(layer, leaf)

        return jax.tree_util.tree_map_with_path(at, tree, is_leaf=_is_variable)

    def init(params: PyTree) -> Any:
        return inner.init(mapped(scatter, params))

    def update(updates: PyTree, state: Any, params: PyTree | None = None, **extra: Any) -> tuple[PyTree, Any]:
        dense_params = None if params is None else mapped(scatter, params)
        dense, state = inner.update(mapped(scatter, updates), state, dense_params, **extra)
        return mapped(gather, dense), state

    return optax.GradientTransformationExtraArgs(init, update)


def _sparse_copies(model: nnx.Module) -> dict[str, SparseLayer]:
    """Copies of the sparse layers by path: training may donate the buffers of the originals."""
    copies: dict[str, SparseLayer] = {}
    for path, layer in modules_of(model, SparseLayer).items():
        graph, state = nnx.split(layer)
        copies[path] = nnx.merge(graph, jax.tree.map(jnp.copy, state))
    return copies


def _is_variable(node: Any) -> bool:
    return isinstance(node, nnx.Variable)


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
