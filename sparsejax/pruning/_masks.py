"""Masks as trees: from zeros and from scores, applied to parameters, compared, measured."""

from __future__ import annotations

import zlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax._checks import fail
from sparsejax._compat import is_traced
from sparsejax._typing import PyTree
from sparsejax.pruning._filters import KERNELS, Predicate, select_leaves
from sparsejax.pruning._leaves import Leaves, is_masked_node
from sparsejax.pruning.allocation._distributions import as_fraction
from sparsejax.pruning.allocation._scopes import ScopeLike, as_scope
from sparsejax.pruning.allocation._structures import Structure, unstructured

_UNSTRUCTURED = unstructured()


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
    leaves = select_leaves("mask_from_zeros", where, params)
    return leaves.masked_tree([jnp.not_equal(leaf, 0) for leaf in leaves.prunable])


def masked_leaves(
    function: str, params: PyTree, mask: PyTree, operand: str = "mask", *, exact: bool = False
) -> tuple[Leaves, list[Any]]:
    """Return the leaves of ``params``, those with a mask as the prunable ones, and these masks."""
    leaves = Leaves.of(params)
    nodes = leaves.beside(function, operand, mask, exact=exact)
    leaves = leaves.choose([not is_masked_node(node) for node in nodes])
    return leaves, leaves.short(nodes)


def apply_mask(function: str, params: PyTree, mask: PyTree) -> PyTree:
    """Set every weight outside ``mask`` to 0; leaves without a mask stay as they are.

    >>> apply_mask("init", {"kernel": jnp.ones((1, 2))}, {"kernel": jnp.array([[True, False]])})
    {'kernel': Array([[1., 0.]], dtype=float32)}
    """
    leaves, masks = masked_leaves(function, params, mask)
    pairs = zip(leaves.prunable, masks, strict=True)
    return leaves.replaced([jnp.where(keep, leaf, jnp.zeros_like(leaf)) for leaf, keep in pairs])


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
        leaves = select_leaves("sparsity_of", where, params_or_masks).prunable
    size = sum(jnp.size(leaf) for leaf in leaves)
    zeros = jnp.stack([jnp.sum(jnp.equal(x, 0), dtype=jnp.int32) for x in leaves])
    return jnp.sum(zeros, dtype=jnp.int32).astype(jnp.float32) / size


def mask_from_scores(
    scores: PyTree,
    sparsity: float,
    *,
    scope: ScopeLike = "global",
    structure: Structure = _UNSTRUCTURED,
    within: PyTree | None = None,
) -> PyTree:
    """Keep the weights of highest score.

    mask = top-k of the scores,  k = n - round_half_even(sparsity * n);  ties to the lower flat index

    Args:
      scores: tree of arrays, ``optax.MaskedNode()`` for leaves that are not pruned; from ``scores.snip`` and the like,
        or absolute values of weights.
      sparsity: fraction of zeros, in [0, 1).
      scope: how it is shared among layers: "global", "layer", "erk", "er", ``across(...)``, ``per_layer(...)``.
      structure: which shapes the kept weights may take.
      within: an earlier mask; weights outside it rank below all others, so masks nest.

    Returns:
      Tree of bool arrays of the same structure, for ``fixed`` or ``prune``.

    Raises:
      ValueError: a score is NaN (outside ``jit``; inside it ranks last), or a value out of range.

    Source: the last step of every score-based method, e.g. Lee et al. 2019, "SNIP", algorithm 1.

    >>> mask_from_scores({"kernel": jnp.array([[1.0, 3.0], [2.0, 0.0]])}, 0.5)
    {'kernel': Array([[False,  True],
           [ True, False]], dtype=bool)}
    """
    function = "mask_from_scores"
    leaves = Leaves.of(scores)
    values = [jnp.asarray(leaf) for leaf in leaves.values]
    if not values:
        fail(function, "scores", "no leaves", "a score for every weight")
    for name, leaf in zip(leaves.names, values, strict=True):
        if not is_traced(leaf) and bool(jnp.isnan(leaf).any()):
            fail(function, f"scores at {name!r}", "NaN", "numbers, which can be ranked")
    if within is not None:
        masks = leaves.beside(function, "within", within)
        values = [jnp.where(mask, leaf, -jnp.inf) for mask, leaf in zip(masks, values, strict=True)]
    level, rule = as_fraction(function, "sparsity", sparsity), as_scope(function, scope)
    counts = rule.counts(function, structure, leaves.names, [leaf.shape for leaf in values], level)
    return leaves.unflatten(rule.choose(structure, values, np.array(counts, np.int32)))


def project(
    params: PyTree,
    sparsity: float,
    *,
    where: Predicate = KERNELS,
    scope: ScopeLike = "global",
    structure: Structure = _UNSTRUCTURED,
) -> PyTree:
    """Return the nearest parameters (least squares) of a sparsity and a structure.

    T_k(w) = w where |w| is among the k largest, else 0; for structures the units of largest sum of |w|

    Args:
      params: parameters.
      sparsity: fraction of zeros, in [0, 1).
      where: filter of the leaves to prune.
      scope: as for ``magnitude``.
      structure: which shapes the kept weights may take.

    Returns:
      Parameters.

    Raises:
      ValueError: ``where`` selects nothing, or a value is out of range.

    Source: Blumensath & Davies 2009, "Iterative hard thresholding for compressed sensing", equation 3.

    >>> project({"kernel": jnp.array([[1.0, -3.0]])}, 0.5)
    {'kernel': Array([[ 0., -3.]], dtype=float32)}
    """
    leaves = select_leaves("project", where, params)
    scores = leaves.masked_tree([jnp.abs(leaf) for leaf in leaves.prunable])
    return apply_mask("project", params, mask_from_scores(scores, sparsity, scope=scope, structure=structure))


class Overlap(NamedTuple):
    """How much of one mask another keeps.

    Attributes:
      shared: part of the first mask's support that the second keeps, float32 in [0, 1]; 1 is all of it.
      lost: 1 - shared.
      hamming: places in which the masks differ, int32.
      difference: Hamming distance without the signed change in the number of zeros, as a part of all weights: the
        figure of the AC/DC authors, float32; at density d it is at most 2 d.
    """

    shared: jax.Array
    lost: jax.Array
    hamming: jax.Array
    difference: jax.Array


def overlap(first: PyTree, second: PyTree) -> tuple[Overlap, dict[str, Overlap]]:
    """Compare two masks.

    shared = |a and b| / |a|;  hamming = |a xor b|;  difference = (sum_l hamming_l - (zeros_l(b) - zeros_l(a))) / n

    Args:
      first: tree of bool arrays, say the support of one compressed phase.
      second: the same of the next one.

    Returns:
      The total, and one for each leaf by its path.

    Raises:
      ValueError: the trees differ.

    Source: Peste et al. 2021, "AC/DC", section 5 (consecutive mask difference), and the authors' code.

    >>> total, _ = overlap({"k": jnp.array([True, True, False])}, {"k": jnp.array([True, False, True])})
    >>> float(total.shared), int(total.hamming)
    (0.5, 2)
    """
    leaves = Leaves.of(first)
    pairs = list(zip(leaves.values, leaves.beside("overlap", "second", second), strict=True))

    def count(pairs: list[tuple[jax.Array, jax.Array]]) -> Overlap:
        size = sum(a.size for a, _ in pairs)
        kept = sum(jnp.sum(a, dtype=jnp.int32) for a, _ in pairs)
        both = sum(jnp.sum(a & b, dtype=jnp.int32) for a, b in pairs)
        hamming = sum(jnp.sum(a ^ b, dtype=jnp.int32) for a, b in pairs)
        fewer = sum(jnp.sum(a, dtype=jnp.int32) - jnp.sum(b, dtype=jnp.int32) for a, b in pairs)
        shared = jnp.asarray(both / jnp.maximum(kept, 1), jnp.float32)
        return Overlap(shared, 1 - shared, jnp.asarray(hamming), jnp.asarray((hamming - fewer) / size, jnp.float32))

    return count(pairs), {name: count([pair]) for name, pair in zip(leaves.names, pairs, strict=True)}


def dead_units(mask: PyTree) -> dict[str, int]:
    """Count the output units of each layer that no input reaches.

    dead = number of outputs o with mask[..., o] all False

    Args:
      mask: tree of bool arrays, the last axis of each the outputs.

    Returns:
      Number of dead units by path; above 0 such a unit computes a constant.

    Source: report of Peste et al. 2021, "AC/DC", on co-trained dense models.

    >>> dead_units({"kernel": jnp.array([[True, False], [True, False]])})
    {'kernel': 1}
    """
    leaves = Leaves.of(mask)
    pairs = zip(leaves.names, leaves.values, strict=True)
    return {name: int(jnp.sum(~keep.reshape(-1, keep.shape[-1]).any(0))) for name, keep in pairs}


def shuffle_within_layers(mask: PyTree, seed: int = 0) -> PyTree:
    """Permute each layer's mask at random: the control for pruning at initialisation.

    If accuracy stays, the method chose how much each layer keeps, and not which weights.

    Args:
      mask: tree of bool arrays.
      seed: of the permutations.

    Returns:
      Masks with the same counts in each layer.

    Source: Frankle et al. 2021, "Pruning neural networks at initialization: why are we missing the mark?", section 4.

    >>> int(shuffle_within_layers({"kernel": jnp.arange(10) < 3})["kernel"].sum())
    3
    """
    leaves, key = Leaves.of(mask), jax.random.key(seed)

    def shuffled(name: str, keep: jax.Array) -> jax.Array:
        draw = jax.random.fold_in(key, zlib.crc32(name.encode()))
        return jax.random.permutation(draw, keep.ravel()).reshape(keep.shape)

    return leaves.unflatten([shuffled(*pair) for pair in zip(leaves.names, leaves.values, strict=True)])


def rescale_by_density(params: PyTree, mask: PyTree) -> PyTree:
    """Divide the initial variance of each output unit's weights by its density.

    w[..., o] <- w[..., o] * mask / sqrt(density of unit o)

    Keeps the scale of activations of a network that is sparse from the start.

    Args:
      params: initial parameters.
      mask: tree of bool arrays; leaves without a mask stay as they are.

    Returns:
      Masked and rescaled parameters; units without inputs are zero.

    Raises:
      ValueError: the trees differ.

    Source: Evci et al. 2022, "Gradient flow in sparse neural networks and how lottery tickets win", section 3.

    >>> rescale_by_density({"kernel": jnp.ones((4, 1))}, {"kernel": jnp.array([[True], [False], [False], [False]])})
    {'kernel': Array([[2.],
           [0.],
           [0.],
           [0.]], dtype=float32)}
    """
    leaves, masks = masked_leaves("rescale_by_density", params, mask)

    def rescaled(weight: jax.Array, keep: jax.Array) -> jax.Array:
        density = keep.mean(tuple(range(keep.ndim - 1)), dtype=jnp.float32)
        kept = jnp.where(keep, weight, jnp.zeros_like(weight))
        return (kept / jnp.sqrt(jnp.where(density > 0, density, 1.0))).astype(weight.dtype)

    return leaves.replaced([rescaled(*pair) for pair in zip(leaves.prunable, masks, strict=True)])
