"""Filters: which leaves of a parameter tree may be pruned."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from sparsejax._checks import fail
from sparsejax._typing import ArrayLike, PyTree
from sparsejax.pruning._leaves import Leaves

Predicate = Callable[[str, Any], bool]
"""A function of the path of a leaf and the leaf itself: an array, or its shape and dtype."""

_KERNEL_NAMES = ("kernel", "weight")


@dataclass(frozen=True, repr=False)
class Filter:
    """A predicate on ``(path, leaf)`` that combines with ``&``, ``|`` and ``~``.

    ``path`` is the ``/``-joined path of the leaf, ``leaf`` the array. Any function of these two arguments may
    stand on the right of an operator, or be used as ``where`` by itself.

    >>> is_kernel() & ~path("head/*")
    (is_kernel() & ~path('head/*'))
    """

    test: Predicate
    name: str
    globs: tuple[str, ...] = ()

    def __call__(self, path: str, leaf: ArrayLike) -> bool:
        """Tell whether the leaf at ``path`` is selected."""
        return bool(self.test(path, leaf))

    def __and__(self, other: Predicate) -> Filter:
        """Select what both select."""
        right = as_filter(other)
        name, globs = f"({self.name} & {right.name})", self.globs + right.globs
        return Filter(lambda path, leaf: self(path, leaf) and right(path, leaf), name, globs)

    def __or__(self, other: Predicate) -> Filter:
        """Select what either selects."""
        right = as_filter(other)
        name, globs = f"({self.name} | {right.name})", self.globs + right.globs
        return Filter(lambda path, leaf: self(path, leaf) or right(path, leaf), name, globs)

    def __invert__(self) -> Filter:
        """Select what this filter does not."""
        return Filter(lambda path, leaf: not self(path, leaf), f"~{self.name}", self.globs)

    def __repr__(self) -> str:
        """Return the expression that built the filter."""
        return self.name


def as_filter(predicate: Predicate) -> Filter:
    """Return a filter for any function of (path, leaf)."""
    if isinstance(predicate, Filter):
        return predicate
    if not callable(predicate):
        got, hint = f"type {type(predicate).__name__}", "A glob is written path('...')."
        fail("Filter", "the right operand", got, "a filter or a function of (path, leaf)", hint, TypeError)
    return Filter(predicate, getattr(predicate, "__name__", repr(predicate)))


def is_kernel() -> Filter:
    """Select the weights of dense and convolution layers.

    selected = leaf is floating, ndim >= 2, and its last name is ``kernel`` or ``weight``

    Biases, normalisation scales, running statistics and embeddings stay out.

    Returns:
      Filter.

    Source: what the literature prunes (Peste et al. 2021, "AC/DC", appendix; Evci et al. 2020, "RigL").

    >>> is_kernel()("dense/kernel", jnp.ones((2, 3))), is_kernel()("dense/bias", jnp.ones(3))
    (True, False)
    """

    def test(path: str, leaf: ArrayLike) -> bool:
        named = path.rsplit("/", 1)[-1] in _KERNEL_NAMES
        return named and jnp.ndim(leaf) >= 2 and bool(jnp.issubdtype(jnp.result_type(leaf), jnp.floating))

    return Filter(test, "is_kernel()")


# The default of every `where` argument.
KERNELS = is_kernel()


def path(glob: str) -> Filter:
    """Select leaves by a glob on the ``/``-joined path.

    Args:
      glob: shell pattern on the whole path; ``*`` also matches ``/``, case counts. A glob that matches no
        leaf of the tree it is used on is an error there, even under ``~``: it is nearly always misspelt.

    Returns:
      Filter.

    Raises:
      TypeError: ``glob`` is not a string.

    Source: ``fnmatch`` of the standard library.

    >>> path("head/*")("head/kernel", None), path("head/*")("stem/head/kernel", None)
    (True, False)
    """
    if not isinstance(glob, str):
        fail("path", "glob", f"type {type(glob).__name__}", "a string such as 'head/*'", error=TypeError)
    return Filter(lambda name, _: fnmatch.fnmatchcase(name, glob), f"path({glob!r})", (glob,))


def select_leaves(function: str, where: Predicate, params: PyTree) -> Leaves:
    """Return the leaves of ``params``, with those that ``where`` selects as the prunable ones.

    Args:
      function: public function named in errors.
      where: filter or function of (path, leaf).
      params: parameters.

    Raises:
      ValueError: nothing is selected, a glob matches nothing, a selected leaf is not floating, or more
        weights are selected than 32-bit counts can hold.

    >>> select_leaves("pruned", is_kernel(), {"bias": jnp.ones(2), "kernel": jnp.ones((2, 2))}).chosen
    (False, True)
    """
    leaves = Leaves.of(params)
    names = list(leaves.names)
    for glob in getattr(where, "globs", ()):
        if not any(fnmatch.fnmatchcase(name, glob) for name in names):
            hint = "The glob must match the whole path; '*' also matches '/'."
            expected = f"a glob that matches one of {names}"
            fail(function, f"where, in path({glob!r}),", "no matching leaf", expected, hint)
    leaves = leaves.choose([bool(where(*pair)) for pair in zip(names, leaves.values, strict=True)])
    if not any(leaves.chosen):
        fail(function, f"where={where}", "no matching leaf", f"at least one of {names}")
    for name, leaf in zip(leaves.prunable_names, leaves.prunable, strict=True):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            fail(function, f"leaf {name!r}", f"dtype {jnp.result_type(leaf)}", "a floating dtype")
    size = sum(math.prod(jnp.shape(leaf)) for leaf in leaves.prunable)
    if size >= 2**31:
        fail(function, f"where={where}", f"{size} weights", "fewer than 2**31, counts are int32")
    return leaves
