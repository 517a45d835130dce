"""Scores from one batch and no second derivatives: SNIP, GraSP and SynFlow at initialisation, Wanda after training."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from sparsejax._checks import check_integer, fail
from sparsejax._typing import PyTree
from sparsejax.pruning._filters import KERNELS, Predicate, select_leaves
from sparsejax.pruning._masks import apply_mask, mask_from_scores
from sparsejax.pruning.allocation._scopes import ScopeLike

Loss = Callable[[Any], jax.Array]


def scored(function: str, params: PyTree, where: Predicate, values: Callable[..., Any], *trees: PyTree) -> PyTree:
    """Return ``values(w, ...)`` at the prunable leaves, and ``optax.MaskedNode()`` elsewhere."""
    leaves = select_leaves(function, where, params)
    others = [leaves.short(leaves.beside(function, "grads", tree)) for tree in trees]
    return leaves.masked_tree([values(*parts) for parts in zip(leaves.prunable, *others, strict=True)])


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
    leaves, gradient = select_leaves("grasp", where, params), jax.grad(loss)
    first = leaves.short(jax.tree.leaves(gradient(params)))
    tangent = leaves.replaced(first, [jnp.zeros_like(leaf) for leaf in leaves.values])
    _, product = jax.jvp(gradient, (params,), (tangent,))
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
    forward = jax.jit(outputs)  # compiled once for a function, however often it is scored
    flow = jax.grad(lambda p: jnp.sum(forward(p)))
    mask = None
    for i in range(1, rounds + 1):
        level = sparsity if i == rounds else 1 - (1 - sparsity) ** (i / rounds)
        positive = jax.tree.map(jnp.abs, params)
        positive = positive if mask is None else apply_mask("synflow", positive, mask)
        scores = scored("synflow", positive, where, lambda w, g: w * g, flow(positive))
        mask = mask_from_scores(scores, level, scope=scope, within=mask)
    return mask


def wanda(kernel: jax.Array, inputs: jax.Array) -> jax.Array:
    """Score the weights of one layer by their size and that of their inputs.

    score[i, o] = |w[i, o]| * sqrt(sum over examples x of x[i]^2)

    Compare within each output unit: ``mask_from_scores(..., scope="layer", structure=row_balanced())``. Go layer by
    layer, and compute the inputs of a layer with the layers before it pruned.

    Args:
      kernel: float[in, out], or float[*window, in, out] of a convolution.
      inputs: float[..., in] over a calibration set; of a convolution ``conv_inputs(...)``.

    Returns:
      Scores of the kernel's shape.

    Raises:
      ValueError: shapes disagree.

    Source: Sun et al. 2023, "A simple and effective pruning approach for large language models", equation 1.

    >>> wanda(jnp.array([[1.0, -2.0], [3.0, 0.5]]), jnp.array([[3.0, 0.0], [4.0, 1.0]])).tolist()
    [[5.0, 10.0], [3.0, 0.5]]
    """
    fan_in = math.prod(kernel.shape[:-1])
    if inputs.shape[-1] != fan_in:
        fail("wanda", "inputs", f"last axis {inputs.shape[-1]}", f"{fan_in} for a kernel of shape {kernel.shape}")
    norms = jnp.sqrt(jnp.sum(inputs.reshape(-1, fan_in) ** 2, 0))
    return jnp.abs(kernel) * norms.reshape(*kernel.shape[:-1], 1)


def conv_inputs(
    images: jax.Array,
    kernel_shape: Sequence[int],
    *,
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]] = "SAME",
) -> jax.Array:
    """Return the inputs that each output pixel of a 2-D convolution multiplies, in the order of its kernel.

    Args:
      images: float[B, H, W, in].
      kernel_shape: ``(kh, kw, in, out)``; no groups.
      strides: two integers.
      padding: as of ``jax.lax.conv_general_dilated``.

    Returns:
      float[B, H', W', kh * kw * in], for ``wanda``.

    Source: the convolution as a matrix product.

    >>> conv_inputs(jnp.ones((1, 4, 4, 2)), (3, 3, 2, 8), strides=(1, 1), padding="VALID").shape
    (1, 2, 2, 18)
    """
    window, features = tuple(kernel_shape[:2]), kernel_shape[2]
    patches = jax.lax.conv_general_dilated_patches(
        images, window, tuple(strides), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    # lax puts the channel first; kernels put it last.
    split = patches.reshape(*patches.shape[:-1], features, math.prod(window))
    return jnp.swapaxes(split, -1, -2).reshape(patches.shape)
