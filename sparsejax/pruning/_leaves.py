"""Names of the leaves of a parameter tree, and mask trees that mirror one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import jax
import optax

from sparsejax._checks import fail

PyTree = Any

_BOX_FIELDS = ("value", "raw_value")


def is_masked_node(node: Any) -> bool:
    """Tell whether ``node`` is the ``optax.MaskedNode`` that stands where a tree has no mask."""
    return isinstance(node, optax.MaskedNode)


def leaf_names(tree: PyTree) -> list[str]:
    """Return the ``/``-joined path of each leaf, in flattening order.

    A variable that boxes one array (``nnx.Variable``, ``linen.Partitioned``) adds a last path entry named
    ``value``; it is dropped, so that a boxed tree and its plain arrays have the same names.

    >>> leaf_names({"dense": {"kernel": 1, "bias": 2}, "list": [3]})
    ['dense/bias', 'dense/kernel', 'list/0']
    """
    # A MaskedNode holds no leaf, yet it is a sibling: names must not depend on what optax.partition hides.
    entries = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_masked_node)[0]
    siblings = Counter(path[:-1] for path, _ in entries)
    return [
        jax.tree_util.keystr(
            path[:-1] if _is_box(path) and siblings[path[:-1]] == 1 else path, simple=True, separator="/"
        )
        for path, leaf in entries
        if not is_masked_node(leaf)
    ]


def _is_box(path: tuple[Any, ...]) -> bool:
    # A box has one child. An attribute named `value` with siblings (query, key, value) is no box.
    if len(path) < 2:
        return False
    last = path[-1]
    return isinstance(last, jax.tree_util.GetAttrKey) and last.name in _BOX_FIELDS


def flatten_like(function: str, operand: str, tree: PyTree, params: PyTree) -> list[Any]:
    """Return the nodes of ``tree`` at the leaves of ``params``; the two must have one structure.

    Args:
      function: public function named in the error.
      operand: argument named in the error.
      tree: pytree with the structure of ``params``; any node may stand where ``params`` has a leaf.
      params: parameters.

    Raises:
      ValueError: the structures differ.
    """
    treedef = jax.tree.structure(params)
    try:
        return treedef.flatten_up_to(tree)
    except ValueError as error:
        fail(function, operand, f"another tree structure ({error})", f"the structure of params, {treedef}")


def spread(chosen: Sequence[bool], values: Sequence[Any]) -> list[Any]:
    """Put ``values``, in order, where ``chosen`` is True, and ``optax.MaskedNode()`` elsewhere.

    >>> spread([False, True, True], [10, 20])
    [MaskedNode(), 10, 20]
    """
    rest = iter(values)
    return [next(rest) if is_chosen else optax.MaskedNode() for is_chosen in chosen]


def only(chosen: Sequence[bool], values: Sequence[Any]) -> list[Any]:
    """Return the ``values`` where ``chosen`` is True.

    >>> only([False, True, True], ["a", "b", "c"])
    ['b', 'c']
    """
    return [value for is_chosen, value in zip(chosen, values, strict=True) if is_chosen]
