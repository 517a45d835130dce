"""Masks as trees: read off zeros, applied to parameters, measured."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from sparsejax._checks import fail
from sparsejax.pruning._filters import KERNELS, Predicate, selected
from sparsejax.pruning._leaves import PyTree, flatten_like, is_masked_node, only, spread


def mask_from_zeros(params: PyTree, where: Predicate = KERNELS) -> PyTree:
    """Read the mask of a sparse model off its zeros.

    mask = (w != 0)

    A kept weight that happens to be exactly 0 is taken for a pruned one.

    Args:
      params: parameters, any pytree.
      where: filter of the prunable leaves, or any function of (path, leaf).

    Returns:
      Tree of the structure of ``params``: bool arrays, True where the weight is not 0, and
      ``optax.MaskedNode()`` for the leaves that ``where`` leaves out.

    Raises:
      ValueError: ``where`` selects nothing.

    Source: masks are stored as zeros in published sparse checkpoints (Peste et al. 2021, "AC/DC").

    >>> mask_from_zeros({"kernel": jnp.array([[0.0, 1.0]]), "bias": jnp.zeros(2)})
    {'bias': MaskedNode(), 'kernel': Array([[False,  True]], dtype=bool)}
    """
    leaves, treedef = jax.tree.flatten(params)
    chosen = selected("mask_from_zeros", where, params)
    return jax.tree.unflatten(treedef, spread(chosen, [jnp.not_equal(x, 0) for x in only(chosen, leaves)]))


def apply_mask(function: str, params: PyTree, mask: PyTree) -> PyTree:
    """Set every weight outside ``mask`` to 0; leaves without a mask stay as they are.

    >>> apply_mask("init", {"kernel": jnp.ones((1, 2))}, {"kernel": jnp.array([[True, False]])})
    {'kernel': Array([[1., 0.]], dtype=float32)}
    """
    leaves, treedef = jax.tree.flatten(params)
    masks = flatten_like(function, "mask", mask, params)
    return jax.tree.unflatten(
        treedef,
        [
            leaf if is_masked_node(keep) else jnp.where(keep, leaf, jnp.zeros_like(leaf))
            for leaf, keep in zip(leaves, masks, strict=True)
        ],
    )


def sparsity_of(params_or_masks: PyTree, where: Predicate = KERNELS) -> jax.Array:
    """Return the fraction of zeros of a model, or of pruned weights in its masks.

    s = (number of w = 0) / n   for parameters;   (number of mask = False) / n   for masks

    Args:
      params_or_masks: parameters, any pytree; or a tree of masks, in which every leaf is bool.
      where: filter of the leaves that count, for parameters; all leaves of a tree of masks count.

    Returns:
      float32 scalar in [0, 1], 0 is dense.

    Raises:
      ValueError: ``where`` selects nothing, or there is no mask.

    Source: only prunable weights count, neither biases nor normalisation (Peste et al. 2021, "AC/DC").

    >>> float(sparsity_of({"kernel": jnp.array([[0.0, 1.0], [0.0, 0.0]]), "bias": jnp.zeros(2)}))
    0.75
    >>> float(sparsity_of({"kernel": jnp.array([True, False])}))
    0.5
    """
    leaves = jax.tree.leaves(params_or_masks)
    if not leaves:
        fail("sparsity_of", "params_or_masks", "no leaves", "parameters or masks")
    if any(jnp.result_type(leaf) != jnp.bool_ for leaf in leaves):
        leaves = only(selected("sparsity_of", where, params_or_masks), leaves)
    size = sum(jnp.size(leaf) for leaf in leaves)
    zeros = jnp.stack([jnp.sum(jnp.equal(x, 0), dtype=jnp.int32) for x in leaves])
    return jnp.sum(zeros, dtype=jnp.int32).astype(jnp.float32) / size
