"""Scores from second derivatives: optimal brain damage, WoodFisher, M-FAC."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from sparsejax._checks import check_integer, fail
from sparsejax._typing import Array, PyTree
from sparsejax.pruning._filters import KERNELS, Predicate, select_leaves
from sparsejax.pruning._leaves import Leaves
from sparsejax.pruning.scores._at_initialization import scored


class OBS(NamedTuple):
    """What optimal brain surgery needs of a Hessian.

    Attributes:
      scores: tree, loss increase for removing each weight alone, w^2 / (2 [H^-1]_qq).
      compensation: mask -> tree, what to add to the weights when all weights outside the mask are removed: the sum of
        -w_q H^-1 e_q / [H^-1]_qq over them, exact for one weight.
    """

    scores: PyTree
    compensation: Callable[[PyTree], PyTree]


def obd(grads: PyTree, params: PyTree, *, where: Predicate = KERNELS) -> PyTree:
    """Score weights by a diagonal Hessian, the mean of squared gradients.

    score = F_ii * w^2 / 2,  F_ii = mean over j of g_ji^2

    Args:
      grads: tree with the structure of ``params``, a leading axis of N gradients, of single examples or small batches.
      params: parameters.
      where: filter of the leaves to prune.

    Returns:
      Tree of scores, for ``mask_from_scores``.

    Raises:
      ValueError: ``where`` selects nothing.

    Source: LeCun et al. 1990, "Optimal brain damage", equation 5, with the empirical Fisher matrix.

    >>> obd({"kernel": jnp.array([[[1.0]], [[3.0]]])}, {"kernel": jnp.array([[2.0]])})
    {'kernel': Array([[10.]], dtype=float32)}
    """
    return scored("obd", params, where, lambda w, g: 0.5 * jnp.mean(g * g, 0) * w * w, grads)


def woodfisher(
    grads: PyTree,
    params: PyTree,
    *,
    block: int = 2000,
    damping: float = 1e-5,
    mask: PyTree | None = None,
    where: Predicate = KERNELS,
) -> OBS:
    """Score and compensate with a block-diagonal inverse of the empirical Fisher matrix.

    F = damping * I + (1 / N) sum_j g_j g_j^T;  F^-1 <- F^-1 - (F^-1 g)(F^-1 g)^T / (N + g^T F^-1 g), from I / damping

    Blocks are runs of ``block`` weights in a layer. Memory n * block, time N * n * block, for n weights.

    Args:
      grads: tree with the structure of ``params``, a leading axis of N gradients (published: N = 400, of
        mini-batches of 400).
      params: parameters.
      block: weights in a block, at least 1; published 2000.
      damping: above 0; published 1e-5.
      mask: gradients of weights outside it count as 0.
      where: filter of the leaves to prune.

    Returns:
      ``OBS``: scores for ``mask_from_scores`` (published: scope "global", cubic-like steps at epochs 1, 6, ..., 36 from
      5 % on), and compensation for ``prune``.

    Raises:
      ValueError: a value out of range, or ``where`` selects nothing.

    Source: Singh & Alistarh 2020, "WoodFisher: efficient second-order approximation for neural network compression",
      equations 6 and 11.

    >>> grads = {"kernel": jnp.array([[[1.0, 0.0]], [[0.0, 2.0]]])}
    >>> woodfisher(grads, {"kernel": jnp.array([[1.0, 1.0]])}, damping=0.5).scores["kernel"].round(4).tolist()
    [[0.5, 1.25]]
    """
    check_integer("woodfisher", "block", block)
    leaves, samples = _operands("woodfisher", grads, params, mask, where, damping)
    inverses = [_block_inverse(sample, min(block, sample.shape[1]), damping) for sample in samples]

    def products(vectors: list[Array]) -> list[Array]:
        return [_block_product(inverse, vector) for inverse, vector in zip(inverses, vectors, strict=True)]

    diagonals = [
        jnp.diagonal(inverse, axis1=1, axis2=2).reshape(-1)[: weight.size]
        for inverse, weight in zip(inverses, leaves.prunable, strict=True)
    ]
    return _surgery(leaves, diagonals, products)


def mfac(
    grads: PyTree,
    params: PyTree,
    *,
    damping: float = 1e-5,
    mask: PyTree | None = None,
    where: Predicate = KERNELS,
) -> OBS:
    """Score and compensate with the inverse of the full empirical Fisher matrix, never formed.

    h_i = F_{i-1}^-1 g_i, delta_i = N + g_i^T h_i;  F^-1 x = x / damping - sum_i h_i (h_i^T x) / delta_i

    Memory N * n, time N^2 * n, for n weights of all layers together. Published: a jump in sparsity is cut into 16 that
    divide the density by the same factor, with new gradients for each.

    Args:
      grads: tree with the structure of ``params``, a leading axis of N gradients.
      params: parameters.
      damping: above 0.
      mask: gradients of weights outside it count as 0.
      where: filter of the leaves to prune.

    Returns:
      ``OBS``, as from ``woodfisher``.

    Raises:
      ValueError: a value out of range, or ``where`` selects nothing.

    Source: Frantar et al. 2021, "M-FAC: efficient matrix-free approximations of second-order information", section 3.1
      (static algorithm).

    >>> grads = {"kernel": jnp.array([[[1.0, 0.0]], [[0.0, 2.0]]])}
    >>> mfac(grads, {"kernel": jnp.array([[1.0, 1.0]])}, damping=0.5).scores["kernel"].round(4).tolist()
    [[0.5, 1.25]]
    """
    leaves, samples = _operands("mfac", grads, params, mask, where, damping)
    rows, scales = _mfac_rows(jnp.concatenate(samples, 1), damping)
    ends = np.cumsum([weight.size for weight in leaves.prunable])[:-1]

    def products(vectors: list[Array]) -> list[Array]:
        x = jnp.concatenate(vectors)
        return jnp.split(x / damping - ((rows @ x) / scales) @ rows, ends)

    diagonal = 1 / damping - jnp.sum(rows**2 / scales[:, None], 0)
    return _surgery(leaves, jnp.split(diagonal, ends), products)


def _operands(
    function: str, grads: PyTree, params: PyTree, mask: PyTree | None, where: Predicate, damping: float
) -> tuple[Leaves, list[Array]]:
    """Return the leaves of ``params``, and the gradients of the prunable ones, float[N, n]."""
    if not 0 < damping < float("inf"):
        fail(function, "damping", f"value {damping}", "a number above 0")
    leaves = select_leaves(function, where, params)
    samples = leaves.short(leaves.beside(function, "grads", grads))
    for sample, weight in zip(samples, leaves.prunable, strict=True):
        if sample.ndim < 1 or sample[0].size != weight.size:
            fail(function, "a leaf of grads", f"shape {sample.shape}", "a leading axis, then the shape of its weight")
    samples = [sample.reshape(sample.shape[0], -1) for sample in samples]
    if mask is not None:
        masks = leaves.short(leaves.beside(function, "mask", mask))
        samples = [jnp.where(keep.ravel(), sample, 0) for keep, sample in zip(masks, samples, strict=True)]
    return leaves, samples


@partial(jax.jit, static_argnums=1)  # a loop outside jit would be compiled again at every call, as its body is new
def _block_inverse(samples: Array, block: int, damping: float) -> Array:
    """Return the inverses of the blocks, float[blocks, block, block]; a short last block is padded."""
    count, size = samples.shape
    padded = jnp.pad(samples, ((0, 0), (0, -size % block))).reshape(count, -1, block)
    first = jnp.broadcast_to(jnp.eye(block, dtype=samples.dtype) / damping, (padded.shape[1], block, block))

    def add(inverse: Array, g: Array) -> tuple[Array, None]:
        fg = jnp.einsum("bij,bj->bi", inverse, g)
        scale = count + jnp.sum(g * fg, -1)
        return inverse - fg[:, :, None] * fg[:, None, :] / scale[:, None, None], None

    return lax.scan(add, first, padded)[0]


def _block_product(inverse: Array, vector: Array) -> Array:
    blocks, block, _ = inverse.shape
    padded = jnp.pad(vector, (0, blocks * block - vector.size)).reshape(blocks, block)
    return jnp.einsum("bij,bj->bi", inverse, padded).reshape(-1)[: vector.size]


@jax.jit
def _mfac_rows(samples: Array, damping: float) -> tuple[Array, Array]:
    """Return the vectors h_i, float[N, n], and the numbers delta_i."""
    count = samples.shape[0]

    def add(i: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        rows, scales = state
        g = samples[i]
        # Rows from i on are still 0 and contribute nothing.
        h = g / damping - ((rows @ g) / scales) @ rows
        return rows.at[i].set(h), scales.at[i].set(count + g @ h)

    return lax.fori_loop(0, count, add, (jnp.zeros_like(samples), jnp.ones(count, samples.dtype)))


def _surgery(leaves: Leaves, diagonals: list[Array], products: Callable[[list[Array]], list[Array]]) -> OBS:
    """Return scores and compensation from the diagonal of the inverse and its products with vectors."""
    weights = leaves.prunable

    def shaped(values: Sequence[Array]) -> list[Array]:
        return [value.reshape(weight.shape) for value, weight in zip(values, weights, strict=True)]

    def compensation(mask: PyTree) -> PyTree:
        masks = leaves.short(leaves.beside("compensation", "mask", mask))
        removed = [
            jnp.where(keep, 0, weight / diagonal).ravel()
            for keep, weight, diagonal in zip(masks, weights, shaped(diagonals), strict=True)
        ]
        parts = shaped([-part for part in products(removed)])
        return leaves.replaced(parts, [jnp.zeros_like(leaf) for leaf in leaves.values])

    pairs = zip(weights, shaped(diagonals), strict=True)
    return OBS(leaves.masked_tree([weight**2 / (2 * diagonal) for weight, diagonal in pairs]), compensation)
