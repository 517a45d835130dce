"""Scores at initialisation: SNIP, GraSP, SynFlow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from sparsejax.pruning._filters import KERNELS, Predicate, selected
from sparsejax.pruning._leaves import PyTree, only, spread
from sparsejax.pruning._masks import apply_mask
from sparsejax.pruning._numbers import check_integer
from sparsejax.pruning.allocation._from_scores import mask_from_scores
from sparsejax.pruning.allocation._scopes import ScopeLike

Loss = Callable[[Any], jax.Array]


def scored(function: str, params: PyTree, where: Predicate, values: Callable[..., Any], *trees: PyTree) -> PyTree:
    """Return ``values(w, ...)`` at the prunable leaves, and ``optax.MaskedNode()`` elsewhere."""
    chosen = selected(function, where, params)
    columns = [only(chosen, jax.tree.leaves(tree)) for tree in (params, *trees)]
    scores = [values(*leaves) for leaves in zip(*columns, strict=True)]
    return jax.tree.unflatten(jax.tree.structure(params), spread(chosen, scores))


def snip(loss: Loss, params: PyTree, *, where: Predicate = KERNELS) -> PyTree:
    """Score weights by connection sensitivity.

    score = |g * w|,  g the gradient of the loss on one large batch

    Args:
      loss: parameters -> scalar, on that batch.
      params: initial parameters.
      where: filter of the leaves to prune.

    Returns:
      Tree of scores, for ``mask_from_scores`` (published: scope "global"). A layer may be emptied: ``across(...)``.

    Raises:
      ValueError: ``where`` selects nothing.

    Source: Lee et al. 2019, "SNIP: single-shot network pruning based on connection sensitivity", equation 6.

    >>> snip(lambda p: (p["kernel"] ** 2).sum(), {"kernel": jnp.array([[1.0, -2.0]])})
    {'kernel': Array([[2., 8.]], dtype=float32)}
    """
    return scored("snip", params, where, lambda w, g: jnp.abs(g * w), jax.grad(loss)(params))


def grasp(loss: Loss, params: PyTree, *, where: Predicate = KERNELS) -> PyTree:
    """Score weights by what keeping them does to the norm of the gradient.

    score = w * (H g),  H g by one Hessian-vector product;  the largest are kept

    Args:
      loss: parameters -> scalar, on one large batch.
      params: initial parameters.
      where: filter of the leaves to prune; H and g are taken over these.

    Returns:
      Tree of scores, for ``mask_from_scores`` (published: scope "global"). A layer may be emptied: ``across(...)``.

    Raises:
      ValueError: ``where`` selects nothing.

    Source: Wang et al. 2020, "Picking winning tickets before training by preserving gradient flow", equation 8.

    >>> grasp(lambda p: (p["kernel"] ** 2).sum(), {"kernel": jnp.array([[1.0, -2.0]])})
    {'kernel': Array([[ 4., 16.]], dtype=float32)}
    """
    chosen = selected("grasp", where, params)
    gradient, leaves = jax.grad(loss), jax.tree.leaves(params)
    first = jax.tree.leaves(gradient(params))
    tangent = [g if is_chosen else jnp.zeros_like(w) for g, w, is_chosen in zip(first, leaves, chosen, strict=True)]
    _, product = jax.jvp(gradient, (params,), (jax.tree.unflatten(jax.tree.structure(params), tangent),))
    return scored("grasp", params, where, lambda w, hg: w * hg, product)


def synflow(
    outputs: Callable[[Any], jax.Array],
    params: PyTree,
    sparsity: float,
    *,
    rounds: int = 100,
    where: Predicate = KERNELS,
    scope: ScopeLike = "global",
) -> PyTree:
    """Prune at initialisation without data, so that no layer is lost.

    w <- |w|;  R = sum of the outputs for an input of ones;  score = w * dR/dw;  in round i keep the
    density (1 - s)^(i / rounds)

    Args:
      outputs: parameters -> outputs of the network for an input of ones, with batch norm in inference form and unit
        statistics. R grows exponentially with depth: run it under ``jax.enable_x64`` where float32 overflows.
      params: initial parameters.
      sparsity: fraction of zeros, in [0, 1).
      rounds: published 100.
      where: filter of the leaves to prune.
      scope: published "global".

    Returns:
      Tree of masks, for ``fixed``.

    Raises:
      ValueError: ``where`` selects nothing, a value is out of range, or scores overflow.

    Source: Tanaka et al. 2020, "Pruning neural networks without any data by iteratively conserving synaptic flow",
      algorithm 1.

    >>> params = {"a": {"kernel": jnp.array([[1.0, -2.0]])}, "b": {"kernel": jnp.array([[3.0], [0.1]])}}
    >>> mask = synflow(lambda p: jnp.ones(1) @ p["a"]["kernel"] @ p["b"]["kernel"], params, 0.5, rounds=10)
    >>> mask["a"]["kernel"].tolist(), mask["b"]["kernel"].tolist()
    ([[True, False]], [[True], [False]])
    """
    check_integer("synflow", "rounds", rounds)
    flow = jax.jit(jax.grad(lambda p: jnp.sum(outputs(p))))
    mask = None
    for i in range(1, rounds + 1):
        level = sparsity if i == rounds else 1 - (1 - sparsity) ** (i / rounds)
        positive = jax.tree.map(jnp.abs, params)
        positive = positive if mask is None else apply_mask("synflow", positive, mask)
        scores = scored("synflow", positive, where, lambda w, g: w * g, flow(positive))
        mask = mask_from_scores(scores, level, scope=scope, within=mask)
    return mask
