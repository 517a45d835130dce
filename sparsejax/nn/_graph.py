"""Walking and editing a module's graph: layers by path, ties between them, replacement everywhere at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import jax
from flax import nnx
from flax.nnx import graphlib

M = TypeVar("M")


def path_string(path: tuple[Any, ...]) -> str:
    """``("layer1", 0, "conv1")`` as ``"layer1/0/conv1"``; the root is the empty string."""
    return "/".join(map(str, path))


def modules_of(model: Any, kinds: tuple[type, ...]) -> dict[str, Any]:
    """The modules of the given types by path; a shared module appears once, under its first path."""
    nodes = nnx.iter_graph(model, graph=True)
    return {path_string(path): node for path, node in nodes if isinstance(node, kinds)}


def tied_modules(model: Any) -> dict[str, str]:
    """Modules that share a Variable with another module, and the path of the Variable in that other one."""
    tied = {}
    for group in nnx.find_duplicates(model, only=nnx.Variable):
        for path in group:
            tied[path_string(path[:-1])] = path_string(next(other for other in group if other != path))
    return tied


def replace_modules(model: M, replacements: Mapping[int, Any]) -> M:
    """Replace modules in place wherever they are referenced, also in lists, dicts and tuples.

    Args:
      model: the root; edited.
      replacements: new module by ``id`` of the old one.

    Returns:
      The root, or its replacement.
    """

    def is_leaf(node: Any) -> bool:
        return graphlib.is_graph_node(node) or isinstance(node, nnx.Variable)

    def replaced(value: Any) -> Any:
        """The value with replacements inside; the value itself where there are none."""
        leaves, treedef = jax.tree.flatten(value, is_leaf=is_leaf)
        if not any(id(leaf) in replacements for leaf in leaves):
            return value
        return treedef.unflatten([replacements.get(id(leaf), leaf) for leaf in leaves])

    for _, node in list(nnx.iter_graph(model, graph=True)):
        if not graphlib.is_graph_node(node) or isinstance(node, nnx.Variable):
            continue
        implementation: Any = graphlib.get_node_impl(node)
        for key, value in implementation.node_dict(node).items():
            new = replaced(value)
            if new is not value:
                implementation.set_key(node, key, new)
    return replacements.get(id(model), model)
