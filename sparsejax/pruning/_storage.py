"""Values-only storage: parameters and optimizer state hold the kept weights alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sparsejax._checks import fail
from sparsejax._compat import serializable
from sparsejax._typing import PyTree
from sparsejax.pruning._arithmetic import pinned
from sparsejax.pruning._leaves import LeafNode, same_containers, unboxed
from sparsejax.pruning._masks import masked_leaves
from sparsejax.pruning._state import PackedMask, PrunedState, pack, unpack


@serializable("flat")
@partial(jax.tree_util.register_dataclass, data_fields=["flat"], meta_fields=["shape", "packed"])
@dataclass(frozen=True)
class Indices(LeafNode):
    """Where the stored weights of a leaf belong, a pytree with one leaf.

    Attributes:
      flat: int32[capacity], ascending flat indices into the dense leaf; entries past the last weight are n, its size.
      shape: shape of the dense leaf, static.
      packed: whether its mask was packed, static.
    """

    flat: jax.Array
    shape: tuple[int, ...]
    packed: bool

    def gather(self, dense: jax.Array) -> jax.Array:
        """Take the stored entries, 0 in padding: array of ``shape`` -> array[capacity]."""
        return jnp.take(dense.ravel(), self.flat, mode="fill", fill_value=0, unique_indices=False)

    def scatter(self, values: jax.Array) -> jax.Array:
        """Put the entries in their places, 0 elsewhere: array[capacity] -> array of ``shape``."""
        zeros = jnp.zeros(math.prod(self.shape), values.dtype)
        return zeros.at[self.flat].set(values, mode="drop").reshape(self.shape)

    def mask(self) -> jax.Array:
        """Return the mask of the stored entries."""
        return self.scatter(jnp.ones(self.flat.shape, bool))


class CompressedState(NamedTuple):
    """State of ``stored``: that of ``pruned`` without what is zero; a pytree of arrays.

    Attributes:
      step: optimizer steps done, int32 scalar.
      indices: ``Indices`` per compressed leaf; ``optax.MaskedNode()`` for others.
      inner: state of the inner optimizer for the stored values.
      rest: the state of ``pruned`` that does not change in between.
    """

    step: jax.Array
    indices: PyTree
    inner: Any
    rest: PrunedState


def compress(
    params: PyTree, opt_state: PyTree, *, capacity: Mapping[str, int] | None = None
) -> tuple[PyTree, CompressedState]:
    """Store only the kept weights, of parameters and of everything that the optimizer keeps per weight.

    values = w[indices], for parameters, moments, traces, accumulators alike

    Then train with ``stored(inner)``, on ``loss(expand(values, state))``, and go back with ``decompress`` before the
    next step in which the mask changes. Runs on the host, as sizes depend on the mask.

    Args:
      params: parameters, exactly 0 outside the mask.
      opt_state: state of ``pruned(inner, method)`` itself.
      capacity: entries to store by path of the leaf, at least the number of kept weights; where it is the same for two
        masks, nothing is compiled again. A global threshold moves the counts from mask to mask: leave room, say a
        sixteenth of the first count. None, or a path left out: the number of kept weights.

    Returns:
      Parameters with array[capacity] in place of each pruned leaf, and the state for ``stored(inner)``. Both are plain
      arrays if they were the variables of an NNX model and of its ``nnx.Optimizer``.

    Raises:
      ValueError: the state is not that of ``pruned``, a capacity is too small or unknown, or a weight outside the
        mask is not 0.

    Source: truly sparse optimizer state, as in Nikdan et al. 2023 (SparseProp), for any Optax optimizer.

    >>> from sparsejax.pruning import init, one_shot, pruned
    >>> tx = pruned(optax.adam(0.1), one_shot(0.75))
    >>> values, state = compress(*init(tx, {"kernel": jnp.array([[1.0, -2.0], [3.0, 4.0]])}))
    >>> values["kernel"].tolist(), state.inner[0].mu["kernel"].shape
    ([4.0], (1,))
    """
    if not isinstance(opt_state, PrunedState):
        got = f"type {type(opt_state).__name__}"
        fail("compress", "opt_state", got, "the state of pruned(...) itself, in no other wrapper")
    leaves, masks = masked_leaves("compress", params, opt_state.mask, "opt_state.mask")
    if not same_containers(params, opt_state.mask):
        opt_state = unboxed(opt_state)
        leaves, masks = masked_leaves("compress", unboxed(params), opt_state.mask)
    sizes = dict(capacity or {})
    for name in sorted(sizes.keys() - set(leaves.prunable_names)):
        fail("compress", "capacity", f"an entry for {name!r}", f"entries only for {leaves.prunable_names}")
    pairs = zip(leaves.prunable_items, masks, strict=True)
    indices = [_indices(name, mask, leaf, sizes.get(name)) for (name, leaf), mask in pairs]
    state = CompressedState(
        step=opt_state.step,
        indices=leaves.masked_tree(indices),
        inner=leaves.map_copies(_gathered, leaves.spread(indices), opt_state.inner),
        rest=opt_state._replace(mask=(), inner=()),
    )
    return leaves.replaced([each.gather(leaf) for each, leaf in zip(indices, leaves.prunable, strict=True)]), state


def decompress(values: PyTree, state: CompressedState) -> tuple[PyTree, PrunedState]:
    """Go back to dense parameters with a mask; the inverse of ``compress``.

    w[indices] = values, 0 elsewhere, for parameters, moments, traces, accumulators alike

    Args:
      values: stored parameters.
      state: state of ``stored``.

    Returns:
      Parameters, and the state of ``pruned``, at the step that ``stored`` has reached.

    Raises:
      ValueError: values and state do not match.

    Source: see ``compress``.

    >>> from sparsejax.pruning import init, one_shot, pruned
    >>> params, state = init(pruned(optax.adam(0.1), one_shot(0.75)), {"kernel": jnp.array([[1.0, -2.0]])})
    >>> decompress(*compress(params, state))[0]
    {'kernel': Array([[ 0., -2.]], dtype=float32)}
    """
    leaves, indices = masked_leaves("decompress", values, state.indices, "state.indices")
    opt_state = state.rest._replace(
        step=state.step,
        mask=leaves.masked_tree([pack(each.mask()) if each.packed else each.mask() for each in indices]),
        inner=leaves.map_copies(_scattered, leaves.spread(indices), state.inner),
    )
    return expand(values, state), opt_state


def expand(values: PyTree, state: CompressedState) -> PyTree:
    """Return the dense parameters that the stored values stand for; differentiable in the values.

    Args:
      values: stored parameters.
      state: state of ``stored``.

    Returns:
      Dense parameters, for the forward pass of a model that has no sparse layers.

    Raises:
      ValueError: values and state do not match.

    Source: see ``compress``; layers of ``sparsejax.nn`` use the values directly.

    >>> from sparsejax.pruning import init, one_shot, pruned
    >>> values, state = compress(*init(pruned(optax.sgd(0.1), one_shot(0.5)), {"kernel": jnp.array([[1.0, -2.0]])}))
    >>> jax.grad(lambda v: (3 * expand(v, state)["kernel"]).sum())(values)["kernel"].tolist()
    [3.0]
    """
    leaves, indices = masked_leaves("expand", values, state.indices, "state.indices")
    for (name, leaf), each in zip(leaves.prunable_items, indices, strict=True):
        if jnp.shape(leaf) != each.flat.shape:
            rule = f"shape {each.flat.shape}, a value for each index"
            fail("expand", f"leaf {name!r}", f"shape {jnp.shape(leaf)}", rule, "Values and state are of one compress.")
    return leaves.replaced([each.scatter(leaf) for each, leaf in zip(indices, leaves.prunable, strict=True)])


def stored(inner: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Wrap the inner optimizer for values-only parameters, between ``compress`` and ``decompress``.

    u = inner(g) for the stored weights; the step is counted

    SGD with or without momentum ends with the same bits as ``pruned`` on dense parameters. Optimizers whose moments add
    two products (Adam) may differ by a rounding error, where the compiler contracts one of them in one program and not
    in the other. Norms over a parameter (global-norm clipping, LARS, LAMB) come out the same but for rounding; means
    over one do not.

    Args:
      inner: the optimizer inside ``pruned``.

    Returns:
      ``optax.GradientTransformationExtraArgs`` with state ``CompressedState``; there is no ``init``: use ``compress``.

    Raises:
      ValueError: the inner state has parts of another shape than the parameters (the factored moments of Adafactor),
        which have no values-only form.

    Source: see ``compress``.

    >>> from sparsejax.pruning import init, one_shot, pruned
    >>> inner = optax.sgd(0.5, momentum=0.9)
    >>> values, state = compress(*init(pruned(inner, one_shot(0.5)), {"kernel": jnp.array([[1.0, -2.0]])}))
    >>> updates, state = stored(inner).update(values, state, values)
    >>> optax.apply_updates(values, updates)["kernel"].tolist(), int(state.step)
    ([-1.0], 1)
    """
    extended = optax.with_extra_args_support(inner)

    def refuse(params: PyTree) -> Any:
        fail("stored.init", "params", "no mask", "compress(params, opt_state), which makes the state")

    def update(grads: PyTree, state: Any, values: PyTree | None = None, **extra: Any) -> tuple[PyTree, CompressedState]:
        if values is None:
            fail("stored.update", "values", "value None", "the stored parameters")
        _check_shapes(extended, state, values)
        proposed, inner_state = extended.update(grads, state.inner, values, **extra)
        updates = jax.tree.unflatten(
            jax.tree.structure(values), pinned(jax.tree.leaves(proposed), jax.tree.leaves(values))
        )
        return updates, state._replace(step=optax.safe_increment(state.step), inner=inner_state)

    return optax.GradientTransformationExtraArgs(refuse, update)  # type: ignore[arg-type]


def _indices(name: str, node: Any, leaf: jax.Array, capacity: int | None) -> Indices:
    mask = unpack(node)
    alive, kept = int(jnp.sum(~mask & (leaf != 0))), int(jnp.sum(mask))
    if alive:
        hint = "Values outside would be lost; see init and check."
        fail("compress", f"leaf {name!r}", f"{alive} weights outside the mask that are not 0", "exact zeros", hint)
    size = kept if capacity is None else capacity
    if size < kept:
        fail("compress", f"capacity of {name!r}", f"value {size}", f"at least {kept}, the weights kept")
    flat = jnp.flatnonzero(mask, size=size, fill_value=mask.size)
    return Indices(flat.astype(jnp.int32), mask.shape, isinstance(node, PackedMask))


def _gathered(node: Indices, moment: jax.Array) -> jax.Array:
    return node.gather(moment) if jnp.shape(moment) == node.shape else moment


def _scattered(node: Indices, moment: jax.Array) -> jax.Array:
    return node.scatter(moment) if jnp.shape(moment) == node.flat.shape else moment


def _check_shapes(inner: optax.GradientTransformation, state: CompressedState, values: PyTree) -> None:
    expected = jax.eval_shape(inner.init, values)
    got = jax.tree.map(jnp.shape, state.inner)
    if jax.tree.map(lambda leaf: leaf.shape, expected) != got:
        hint = "Optimizers that factor or reshape their moments need masks: keep pruned(...)."
        fail("stored.update", "the inner state", "parts of other shapes than its values", "one entry per value", hint)
