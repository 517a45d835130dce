"""The leaves of a tree of parameters, listed once per call, and other trees read beside them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax

from sparsejax._checks import fail
from sparsejax._typing import PyTree as PyTree

KeyPath: TypeAlias = tuple[Any, ...]

_BOX_FIELDS = ("value", "raw_value")
_BOX_HINT = "nnx.as_pure(tree) gives the plain arrays of NNX variables."


class LeafNode:
    """Base of the pytree nodes that stand where the parameters have one leaf."""


def is_masked_node(node: Any) -> bool:
    """Tell whether ``node`` is the ``optax.MaskedNode`` that stands where a tree has no mask."""
    return isinstance(node, optax.MaskedNode)


def _is_leaf_node(node: Any) -> bool:
    return isinstance(node, optax.MaskedNode | LeafNode)


@partial(jax.tree_util.register_dataclass, data_fields=["values"], meta_fields=["paths", "names", "treedef", "chosen"])
@dataclasses.dataclass(frozen=True)
class Leaves:
    """A frozen view of the leaves of a tree, built once per call; a pytree of the leaves.

    Attributes:
      paths: key path of each leaf, in flattening order.
      names: the same, joined with ``/``; see ``leaf_names``.
      values: the leaves.
      treedef: structure of the tree.
      chosen: whether each leaf is prunable. Lists called short have an element for these leaves alone.
    """

    paths: tuple[KeyPath, ...]
    names: tuple[str, ...]
    values: tuple[Any, ...]
    treedef: Any
    chosen: tuple[bool, ...]

    @classmethod
    def of(cls, tree: PyTree) -> Leaves:
        """List the leaves of a tree; all of them are prunable.

        >>> Leaves.of({"dense": {"kernel": 1, "bias": 2}, "list": [3]}).names
        ('dense/bias', 'dense/kernel', 'list/0')
        """
        kept = [entry for entry in _entries(tree, is_masked_node) if not is_masked_node(entry[2])]
        paths, names, values = zip(*kept, strict=True) if kept else ((), (), ())
        return cls(paths, names, values, jax.tree.structure(tree), (True,) * len(names))

    def choose(self, chosen: Sequence[bool]) -> Leaves:
        """Return the view with other prunable leaves."""
        return dataclasses.replace(self, chosen=tuple(chosen))

    def short(self, values: Sequence[Any]) -> list[Any]:
        """Return the elements for the prunable leaves of a list that has one for every leaf.

        >>> Leaves.of({"a": 1, "b": 2}).choose([False, True]).short("xy")
        ['y']
        """
        return [value for value, is_chosen in zip(values, self.chosen, strict=True) if is_chosen]

    @property
    def prunable(self) -> list[Any]:
        """The prunable leaves, a short list."""
        return self.short(self.values)

    @property
    def prunable_names(self) -> list[str]:
        """Their names."""
        return self.short(self.names)

    @property
    def prunable_items(self) -> list[tuple[str, Any]]:
        """Their names and values."""
        return list(zip(self.prunable_names, self.prunable, strict=True))

    def unflatten(self, values: Sequence[Any]) -> PyTree:
        """Return a tree with one of ``values`` at every leaf."""
        return jax.tree.unflatten(self.treedef, values)

    def masked_tree(self, short: Sequence[Any]) -> PyTree:
        """Return a tree with the elements of a short list, and ``optax.MaskedNode()`` at the other leaves.

        >>> Leaves.of({"a": 1, "b": 2}).choose([False, True]).masked_tree([10])
        {'a': MaskedNode(), 'b': 10}
        """
        return self.unflatten(self.spread(short))

    def replaced(self, short: Sequence[Any], values: Sequence[Any] | None = None) -> PyTree:
        """Return a tree with the elements of a short list, and those of ``values`` (the leaves) elsewhere."""
        return self.unflatten(self.spread(short, values or self.values))

    def spread(self, short: Sequence[Any], values: Sequence[Any] | None = None) -> list[Any]:
        """Return a list for all leaves: a short list, and ``values`` (``optax.MaskedNode()``) elsewhere."""
        new, others = iter(short), values or [optax.MaskedNode()] * len(self.values)
        return [next(new) if picked else other for picked, other in zip(self.chosen, others, strict=True)]

    def beside(self, function: str, operand: str, tree: PyTree, *, exact: bool = False) -> list[Any]:
        """Return the nodes of another tree at these leaves.

        Trees that differ only in their containers, as those of NNX variables and of plain arrays do, are matched by
        the names of their leaves. A tree of NNX variables may have leaves that the other tree has not.

        Args:
          function: public function named in the error.
          operand: argument named in the error.
          tree: pytree with a node at each leaf.
          exact: the containers must be the same, too.

        Returns:
          A node for each leaf; ``optax.MaskedNode()`` where the other tree has none.

        Raises:
          ValueError: the trees have other leaves.
        """
        if (same := _nodes_at(self.treedef, tree)) is not None:
            return same
        entries = _entries(tree, _is_leaf_node)
        nodes = {name: node for _, name, node in entries}
        # optax.masked and partition hide whole subtrees behind one MaskedNode.
        hidden = [name for name, node in nodes.items() if is_masked_node(node) and name not in self.names]
        is_boxed = any(map(_is_box, self.paths))
        covered = [name for name in self.names if name in nodes or (is_boxed and nodes) or _is_below(name, hidden)]
        missing = [name for name in self.names if name not in covered]
        unknown = [name for name in nodes if name not in self.names and name not in hidden]
        if missing or unknown or exact:
            got = f"no leaf {missing[0]!r}" if missing else f"a leaf {unknown[0]!r}" if unknown else "other containers"
            expected = f"the structure of params, with leaves {_shortened(self.names)}"
            hint = _BOX_HINT if is_boxed or any(_is_box(path) for path, _, _ in entries) else ""
            fail(function, operand, f"another tree structure ({got})", expected, hint)
        return [nodes.get(name, optax.MaskedNode()) for name in self.names]

    def map_copies(self, change: Callable[..., Any], nodes: Sequence[Any], state: PyTree, *rest: PyTree) -> PyTree:
        """Change what an optimizer state keeps for the parameters, wherever Optax puts it.

        The path of such a part ends in the path of its parameter, as moments mirror the parameters.

        Args:
          change: ``(node, part, *parts of rest) -> part``.
          nodes: a node for each leaf; nothing is changed where it is ``optax.MaskedNode()``.
          state: optimizer state.
          rest: trees of its structure.
        """
        owners = dict(zip(map(_unboxed_path, self.paths), zip(nodes, self.values, strict=True), strict=True))

        def changed(path: KeyPath, part: Any, *parts: Any) -> Any:
            node, leaf = _owner(_unboxed_path(path), owners)
            at_any_path = () in owners and jnp.shape(part) != jnp.shape(leaf)  # the parameters are one bare array
            return part if is_masked_node(node) or at_any_path else change(node, part, *parts)

        return jax.tree_util.tree_map_with_path(changed, state, *rest)


def _owner(path: KeyPath, owners: dict[KeyPath, tuple[Any, Any]]) -> tuple[Any, Any]:
    for start in range(len(path) + 1):
        if path[start:] in owners:
            return owners[path[start:]]
    # SM3 keeps a list for each parameter: its path goes on with positions.
    if path and isinstance(path[-1], jax.tree_util.SequenceKey) and () not in owners:
        return _owner(path[:-1], owners)
    return optax.MaskedNode(), None


def leaf_names(tree: PyTree) -> list[str]:
    """Return the ``/``-joined path of each leaf, in flattening order.

    A variable that boxes one array (``nnx.Variable``, ``linen.Partitioned``) adds a last path entry named
    ``value``; it is dropped, so that a boxed tree and its plain arrays have the same names.

    >>> leaf_names({"dense": {"kernel": 1, "bias": 2}, "list": [3]})
    ['dense/bias', 'dense/kernel', 'list/0']
    """
    return list(Leaves.of(tree).names)


def known_names(leaves: Leaves, tree: PyTree) -> set[str]:
    """Return the names of those leaves for which a tree of masks has a node, be it an ``optax.MaskedNode``."""
    nodes = [name for _, name, _ in _entries(tree, _is_leaf_node)]
    return {name for name in leaves.names if name in nodes or _is_below(name, nodes)}


def _entries(tree: PyTree, is_leaf: Callable[[Any], bool]) -> list[tuple[KeyPath, str, Any]]:
    """Return path, name and node of each leaf, and of each ``MaskedNode``."""
    # A MaskedNode has no leaf, yet it is a sibling: names must not depend on what optax.partition hides.
    entries = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_leaf)[0]
    siblings = Counter(path[:-1] for path, _ in entries)

    def name(path: KeyPath) -> str:
        inside = path[:-1] if _is_box(path) and siblings[path[:-1]] == 1 else path
        return jax.tree_util.keystr(inside, simple=True, separator="/")

    return [(path, name(path), node) for path, node in entries]


def _is_box(path: KeyPath) -> bool:
    # A box has one child. An attribute named `value` with siblings (query, key, value) is no box.
    return len(path) >= 2 and _is_box_key(path[-1])


def _is_box_key(key: Any) -> bool:
    return isinstance(key, jax.tree_util.GetAttrKey) and key.name in _BOX_FIELDS


def _unboxed_path(path: KeyPath) -> KeyPath:
    return path[:-1] if _is_box(path) else path


def _content(node: Any) -> list[Any]:
    """Return the array in a box, in a list; an empty list for all else."""
    if isinstance(node, tuple | dict | list | jax.Array) or node is None:
        return []
    children = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda child: child is not node)[0]
    return [child for path, child in children if len(children) == 1 and path and _is_box_key(path[-1])]


def _nodes_at(treedef: Any, tree: PyTree) -> list[Any] | None:
    """Return the nodes of a tree at the leaves of ``treedef``; None if its structure is another, or a node a box."""
    try:
        nodes = treedef.flatten_up_to(tree)
    except (ValueError, TypeError):  # the latter from containers that cannot be compared
        return None
    return None if any(_content(node) for node in nodes) else nodes


def same_containers(params: PyTree, tree: PyTree) -> bool:
    """Tell whether ``tree`` has a node at every leaf of ``params``, in the same containers."""
    return _nodes_at(jax.tree.structure(params), tree) is not None


def filled(masks: PyTree, values: Mapping[str, Any]) -> PyTree:
    """Return a tree of masks with values by name in place of all its nodes, ``optax.MaskedNode()`` where there is none.

    >>> filled({"a": optax.MaskedNode(), "b": True}, {"a": 1, "c": 2})
    {'a': 1, 'b': MaskedNode()}
    """
    treedef = jax.tree.structure(masks, is_leaf=_is_leaf_node)
    return treedef.unflatten([values.get(name, optax.MaskedNode()) for _, name, _ in _entries(masks, _is_leaf_node)])


def unboxed(tree: PyTree) -> PyTree:
    """Return a tree with the content of each box (``nnx.Variable``, ``linen.Partitioned``) in its place."""
    return jax.tree.map(
        lambda node: content[0] if (content := _content(node)) else node,
        tree,
        is_leaf=lambda node: bool(_content(node)),
    )


def _is_below(name: str, parents: Sequence[str]) -> bool:
    return any(name.startswith(f"{parent}/") for parent in parents)


def _shortened(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(map(repr, names[:most])) + (f", ... ({len(names)} in all)" if len(names) > most else "")
