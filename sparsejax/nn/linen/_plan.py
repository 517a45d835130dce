"""What a sparse Linen module knows about its layers, and how a tree of parameters goes from one form to the other."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import nnx
from flax.core import FrozenDict, freeze, unfreeze

from sparsejax.nn._layer import Pattern, SparseLayer
from sparsejax.nn._registry import gather, scatter, stored_mask
from sparsejax.pattern import SparsityPattern
from sparsejax.pattern._pattern import ARRAYS

Path = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class StoredLayer:
    """A layer whose kernel is stored sparse.

    Attributes:
      path: names of its scope, from the root.
      name: class of the Linen layer.
      graphdef: of the NNX layer that computes the product.
      pattern: which entries are stored; its arrays have the axes of a stack of layers, where the kernel has them.
      dense_shape: shape of the dense kernel, the stack's axis included.
      has_bias: whether there is a bias.
      axis: where the axis of a stack is, in kernel and pattern: what ``nn.scan`` has in ``variable_axes``.
    """

    path: Path
    name: str
    graphdef: Any
    pattern: SparsityPattern
    dense_shape: tuple[int, ...]
    has_bias: bool
    axis: int

    @classmethod
    def of(cls, path: Path, name: str, layer: SparseLayer, dense_shape: tuple[int, ...], axis: int) -> StoredLayer:
        """Describe a sparse NNX layer, whose stack has its axis in front."""
        if getattr(layer, "mask", None) is not None:
            layer.mask = None  # pyright: ignore[reportAttributeAccessIssue] # the pattern is within it
        pattern = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, axis), layer.pattern) if axis else layer.pattern
        return cls(path, name, nnx.split(layer)[0], pattern, dense_shape, layer.bias is not None, axis)

    def layer(self, kernel: Any, bias: Any = None, pattern: SparsityPattern | None = None) -> SparseLayer:
        """Return the NNX layer with these stored entries, bias and pattern (None: the layer's own)."""
        variables: dict[str, Any] = {"kernel": nnx.Param(kernel), "topology": Pattern(pattern or self.pattern)}
        if self.has_bias:
            variables["bias"] = nnx.Param(bias)
        return nnx.merge(self.graphdef, nnx.State(variables))

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Shape of the stored entries, the stack's axes included."""
        return tuple(self.pattern.indices.shape)

    def gather(self, dense: Any, pattern: SparsityPattern | None = None) -> jax.Array:
        """Return the stored entries of an array of the dense kernel's shape."""
        return self._placed(gather(self._empty(pattern), jnp.moveaxis(dense, self.axis, 0)))

    def scatter(self, values: Any, pattern: SparsityPattern | None = None) -> jax.Array:
        """Return an array of the dense kernel's shape, zeros where nothing is stored."""
        return self._placed(scatter(self._empty(pattern), jnp.moveaxis(values, self.axis, 0)))

    def mask(self, pattern: SparsityPattern | None = None) -> np.ndarray:
        """Return which entries of the dense kernel are stored."""
        return np.moveaxis(stored_mask(self._empty(pattern)), 0, self.axis)

    def _placed(self, values: jax.Array) -> jax.Array:
        """Bring the axis of a stack from the front to its place."""
        return jnp.moveaxis(values, 0, self.axis)

    def _empty(self, pattern: SparsityPattern | None) -> SparseLayer:
        """A layer of NNX for its pattern alone, the stack's axis in front."""
        front = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, self.axis, 0), pattern or self.pattern)
        return self.layer(front.indices, front.indices, front)


@dataclasses.dataclass(frozen=True)
class Plan:
    """The sparse layers of a module."""

    layers: tuple[StoredLayer, ...]

    @functools.cached_property
    def by_path(self) -> dict[Path, StoredLayer]:
        """The layers by path."""
        return {layer.path: layer for layer in self.layers}

    def pattern_collection(self) -> dict[str, Any]:
        """Return the collection ``"pattern"``: the arrays of each pattern, at the layer's path."""
        tree: dict[str, Any] = {}
        for layer in self.layers:
            _node(tree, layer.path).update({name: getattr(layer.pattern, name) for name in ARRAYS})
        return tree

    def patterns(self, collection: Mapping[str, Any]) -> dict[Path, SparsityPattern]:
        """Return the pattern of each layer: that of a collection where it has one, or the layer's own."""
        patterns: dict[Path, SparsityPattern] = {}
        for layer in self.layers:
            arrays = at(collection, layer.path) or {}
            stored = ARRAYS[0] in arrays
            shape = layer.pattern.shape
            patterns[layer.path] = (
                SparsityPattern(**{name: arrays[name] for name in ARRAYS}, shape=shape) if stored else layer.pattern
            )
        return patterns

    def map_kernels(self, params: Any, change: Callable[[StoredLayer, Any], Any]) -> Any:
        """Return a tree of parameters with other kernels at the sparse layers."""
        tree: dict[str, Any] = unfreeze(params) if isinstance(params, FrozenDict) else _copied(params)
        for layer in self.layers:
            node = _node(tree, layer.path)
            node["kernel"] = change(layer, node["kernel"])
        return freeze(tree) if isinstance(params, FrozenDict) else tree


def at(tree: Any, path: Path) -> Any:
    """Return what a nested mapping has at a path, or None."""
    for name in path:
        if not isinstance(tree, Mapping) or name not in tree:
            return None
        tree = tree[name]
    return tree


def with_patterns(params: Mapping[str, Any], patterns: Mapping[Path, SparsityPattern], *, create: bool) -> Any:
    """Put each pattern beside its layer's parameters, so that lifted transforms slice them together.

    Args:
      params: the collection.
      patterns: by path.
      create: whether layers that have no parameters yet get their pattern too, as ``init`` needs it.
    """
    tree = _copied(params)
    for path, pattern in patterns.items():
        if create or at(tree, path) is not None:
            _node(tree, path)["pattern"] = pattern
    return tree


def without_patterns(params: Mapping[str, Any], patterns: Mapping[Path, SparsityPattern]) -> Any:
    """Undo ``with_patterns``."""
    tree = _copied(params)
    for path in patterns:
        node = at(tree, path)
        if node is not None:
            node.pop("pattern", None)
    return tree


def _node(tree: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return the dict at a path, made where there is none."""
    for name in path:
        tree = tree.setdefault(name, {})
    return tree


def _copied(tree: Any) -> Any:
    """Return a nested mapping as dicts of its own; leaves are the same objects."""
    if isinstance(tree, Mapping) and not isinstance(tree, nn.meta.AxisMetadata):
        return {name: _copied(child) for name, child in tree.items()}
    return tree
