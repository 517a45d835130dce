"""Walking and editing a module's graph: layers by path, ties between them, replacement everywhere at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import jax
from flax import nnx
from flax.nnx import graphlib

M = TypeVar("M")
N = TypeVar("N", bound=nnx.Module)


def path_string(path: tuple[Any, ...]) -> str:
    """Return ``("layer1", 0, "conv1")`` as ``"layer1/0/conv1"``; the root is the empty string."""
    return "/".join(map(str, path))


def modules_of(model: nnx.Module, kinds: type[M] | tuple[type[M], ...]) -> dict[str, M]:
    """Return the modules of the given types by path; a shared module appears once, under its first path.

    Args:
      model: an NNX module; it may be of one of the types itself, with the path ``""``.
      kinds: a class or classes, subclasses included.

    Returns:
      Module by path (attribute names and list positions joined by "/"), in the order of the model's graph.

    >>> model = nnx.Sequential(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), nnx.relu)
    >>> list(modules_of(model, nnx.Linear))
    ['layers/0']
    """
    nodes = nnx.iter_graph(model, graph=True)
    return {path_string(path): node for path, node in nodes if isinstance(node, kinds)}


def tied_modules(model: nnx.Module) -> dict[str, str]:
    """Return the modules that share a Variable with another module, and that Variable's path in the other one."""
    tied: dict[str, str] = {}
    for group in nnx.find_duplicates(model, only=nnx.Variable):
        for path in group:
            tied[path_string(path[:-1])] = path_string(next(other for other in group if other != path))
    return tied


def with_class(module: nnx.Module, kind: type[N]) -> N:
    """Return a module of class ``kind`` that has the attributes of ``module``, the same objects.

    For classes that differ in their methods only. The module itself does not change.
    """
    copy = kind.__new__(kind)
    vars(copy).update(vars(module))
    return copy


def replace_modules(model: M, replacements: Mapping[int, nnx.Module]) -> M:
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
    root: Any = replacements.get(id(model), model)
    return root
