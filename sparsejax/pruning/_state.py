"""The state of the wrapper, and what can be read from it wherever it sits in an optimizer state."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax

from sparsejax._checks import fail
from sparsejax._compat import serializable
from sparsejax._typing import PyTree
from sparsejax.pruning._axes import WHOLE, over_automatic_axes
from sparsejax.pruning._leaves import LeafNode, is_masked_node

Node = TypeVar("Node")


@serializable("bits")
@partial(jax.tree_util.register_dataclass, data_fields=["bits"], meta_fields=["shape"])
@dataclass(frozen=True)
class PackedMask(LeafNode):
    """A mask stored as bits, a pytree with one leaf.

    Attributes:
      bits: uint8[ceil(n / 8)], the first weight in the highest bit of the first byte.
      shape: shape of the leaf, static.
    """

    bits: jax.Array
    shape: tuple[int, ...]

    def map(self, change: Callable[[jax.Array], jax.Array]) -> PackedMask:
        """Return the mask that a function makes of this one, both bool arrays, packed again."""
        return pack(change(unpack(self)))


def pack(mask: jax.Array) -> PackedMask:
    """Store a mask as bits.

    >>> pack(jnp.array([[True, False, True]])).bits.tolist()
    [160]
    """
    bits = over_automatic_axes(lambda mask: jnp.packbits(mask.ravel()), mask, shardings=lambda: WHOLE)
    return PackedMask(bits, mask.shape)


def unpack(mask: Any) -> jax.Array:
    """Return the bool array of a packed mask; other masks as they are.

    >>> unpack(pack(jnp.array([[True, False, True]]))).tolist()
    [[True, False, True]]
    """
    if not isinstance(mask, PackedMask):
        if getattr(mask, "dtype", None) != jnp.bool_:
            got, rule = "the content of a packed mask without its shape", "a PackedMask or a bool array"
            fail("pruned", "state.mask", got, rule, "nnx.Optimizer takes packed masks apart: use packed=False with it.")
        return mask
    return jnp.unpackbits(mask.bits, count=math.prod(mask.shape)).astype(bool).reshape(mask.shape)


class Change(NamedTuple):
    """The latest change of the mask: its step, and how many weights it dropped and grew; int32 scalars."""

    step: jax.Array
    dropped: jax.Array
    grown: jax.Array


class PrunedState(NamedTuple):
    """State of ``pruned``; a pytree of arrays.

    Attributes:
      step: optimizer steps done, int32 scalar.
      mask: bool array or ``PackedMask`` per prunable leaf, True keeps the weight; ``optax.MaskedNode()`` for others.
      nnz: number of weights kept per prunable leaf, int32 scalars; ``optax.MaskedNode()`` for other leaves.
      inner: state of the wrapped optimizer.
      aux: state of the method.
      change: the latest change of the mask, zeros before the first.
    """

    step: jax.Array
    mask: PyTree
    nnz: PyTree
    inner: Any
    aux: Any
    change: Change


def pruned_states(function: str, opt_state: PyTree) -> list[PrunedState]:
    """Return every state of ``pruned`` in an optimizer state, in flattening order.

    Raises:
      ValueError: the state has none, or it is inside ``optax.lookahead``, whose averages are not zero outside a mask.
    """
    states = nodes_of(opt_state, PrunedState)
    if not states:
        fail(function, "opt_state", "no state of pruned(...)", "the state of an optimizer that contains one")
    if nodes_of(opt_state, optax.LookaheadState):
        rule = "none around pruned(...): its slow weights bring pruned weights back"
        fail(function, "opt_state", "a state of optax.lookahead", rule)
    return states


def nodes_of(tree: PyTree, kind: type[Node]) -> list[Node]:
    """Return every node of a class in a tree, in flattening order."""
    nodes = jax.tree.leaves(tree, is_leaf=lambda node: isinstance(node, kind))
    return [node for node in nodes if isinstance(node, kind)]


def _is_mask(node: Any) -> bool:
    return is_masked_node(node) or isinstance(node, PackedMask)


def get_mask(opt_state: PyTree) -> PyTree:
    """Return the mask in an optimizer state, also inside ``chain``, ``MultiSteps``, ``partition``, ....

    Args:
      opt_state: optimizer state that contains one state of ``pruned``, or several on different leaves.

    Returns:
      Tree of the structure of the parameters: bool arrays, True keeps the weight, and ``optax.MaskedNode()``
      for leaves that are not pruned.

    Raises:
      ValueError: there is no such state, or two have a mask for the same leaf.

    Source: the mask lives in the optimizer state, checkpointed and sharded with it.

    >>> from sparsejax.pruning import one_shot, pruned
    >>> tx = optax.chain(optax.clip(1.0), pruned(optax.sgd(0.1), one_shot(0.5)))
    >>> get_mask(tx.init({"kernel": jnp.array([[1.0, -2.0]])}))
    {'kernel': Array([[False,  True]], dtype=bool)}
    """
    masks = [
        jax.tree.map(lambda node: node if is_masked_node(node) else unpack(node), state.mask, is_leaf=_is_mask)
        for state in pruned_states("get_mask", opt_state)
    ]
    return functools.reduce(_merged, masks)


def _merged(first: PyTree, second: PyTree) -> PyTree:
    """Return the masks of two trees in one; either may hide a whole subtree behind one ``MaskedNode``."""
    if is_masked_node(first) or is_masked_node(second):
        return second if is_masked_node(first) else first
    if jax.tree_util.all_leaves([first, second]):
        fail("get_mask", "opt_state", "two masks for one leaf", "one; pruned(...) must not be nested")
    children, treedef = jax.tree.flatten(first, is_leaf=lambda node: node is not first)
    others, other = jax.tree.flatten(second, is_leaf=lambda node: node is not second)
    if treedef != other:
        fail("get_mask", "opt_state", "masks of several tree structures", "masks for one tree of parameters")
    return jax.tree.unflatten(treedef, [_merged(*pair) for pair in zip(children, others, strict=True)])


def metrics(opt_state: PyTree) -> dict[str, jax.Array]:
    """Return the numbers about the mask that a training loop logs; works under ``jit``.

    sparsity = 1 - nnz / n;  churn = dropped / (kept before the change), the lost share of the support

    Args:
      opt_state: optimizer state that contains a state of ``pruned``; several are added up.

    Returns:
      Scalars: ``sparsity`` (fraction of prunable weights, float32), ``nnz`` (weights kept, int32), ``phase``
      (0 while all weights are kept, else 1, int32), and of the
      latest change of the mask ``dropped``, ``grown`` (weights, int32) and ``churn`` (fraction, float32; 0
      is a support that did not move).

    Raises:
      ValueError: there is no such state.

    Source: churn is the mask difference of Peste et al. 2021, "AC/DC", as lost share.

    >>> from sparsejax.pruning import one_shot, pruned
    >>> state = pruned(optax.sgd(0.1), one_shot(0.75)).init({"kernel": jnp.ones((2, 2))})
    >>> {name: value.item() for name, value in metrics(state).items()}
    {'sparsity': 0.75, 'nnz': 1, 'phase': 1, 'dropped': 0, 'grown': 0, 'churn': 0.0}
    """
    states = pruned_states("metrics", opt_state)
    masks = [mask for state in states for mask in jax.tree.leaves(state.mask, is_leaf=_is_mask)]
    size = sum(math.prod(mask.shape) for mask in masks if not is_masked_node(mask))
    nnz = total([state.nnz for state in states])
    dropped = total([state.change.dropped for state in states])
    grown = total([state.change.grown for state in states])
    before = jnp.maximum(nnz + dropped - grown, 1)
    return {
        "sparsity": (size - nnz).astype(jnp.float32) / size,
        "nnz": nnz,
        "phase": jnp.asarray(nnz < size, jnp.int32),
        "dropped": dropped,
        "grown": grown,
        "churn": dropped.astype(jnp.float32) / before.astype(jnp.float32),
    }


def total(counts: PyTree) -> jax.Array:
    """Add up a tree of int32 scalars.

    >>> int(total({"a": jnp.int32(1), "b": optax.MaskedNode(), "c": jnp.int32(2)}))
    3
    """
    return jnp.sum(jnp.stack(jax.tree.leaves(counts)), dtype=jnp.int32)
