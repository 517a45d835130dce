"""The layers of a network, read off its traced forward pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax

from sparsejax._checks import fail
from sparsejax.pruning._filters import Filter
from sparsejax.pruning._leaves import PyTree, leaf_names
from sparsejax.pruning.accounting._flops import LayerShape

# What a kernel may pass through on its way into the product, and still be that kernel.
_PASSED = ("convert_element_type", "reshape", "transpose", "copy", "squeeze", "expand_dims")


def layer_shapes(forward: Callable[[Any], Any], params: PyTree) -> list[LayerShape]:
    """List the convolutions and dense layers of a network in the order in which its forward pass runs them.

    The function is traced, not run: whatever multiplies a leaf of ``params`` of two or more axes by ``dot_general`` or
    ``conv_general_dilated`` is a layer, also under ``jit`` and ``remat``. A leaf used twice is listed at its first use,
    with the positions of both.

    Args:
      forward: parameters -> outputs of the network, for one example (a batch of 1).
      params: parameters, or their shapes.

    Returns:
      ``LayerShape`` per kernel, for ``report``, ``forward_flops``, ``first_conv`` and ``last_dense``. A layer has a
      bias if a leaf named ``bias`` lies beside its kernel.

    Raises:
      ValueError: no kernel is multiplied.

    Source: the order of layers that Peste et al. 2021, "AC/DC", and Evci et al. 2020, "RigL", refer to.

    >>> import jax.numpy as jnp
    >>> params = {"b": {"kernel": jnp.ones((4, 8)), "bias": jnp.ones(8)}, "a": {"kernel": jnp.ones((8, 2))}}
    >>> forward = lambda p: (jnp.ones((1, 4)) @ p["b"]["kernel"] + p["b"]["bias"]) @ p["a"]["kernel"]
    >>> [(layer.path, layer.positions, layer.bias) for layer in layer_shapes(forward, params)]
    [('b/kernel', 1, True), ('a/kernel', 1, False)]
    """
    names, leaves = leaf_names(params), jax.tree.leaves(params)
    shapes = {name: tuple(leaf.shape) for name, leaf in zip(names, leaves, strict=True)}
    traced = jax.make_jaxpr(forward)(params).jaxpr
    positions: dict[str, int] = {}
    for name, outputs in _products(traced, names):
        if len(shapes[name]) >= 2:
            positions[name] = positions.get(name, 0) + outputs // shapes[name][-1]
    if not positions:
        fail("layer_shapes", "forward", "no product with a leaf of params", "dense layers or convolutions")
    return [
        LayerShape(name, shapes[name], count, bias=f"{name.rpartition('/')[0]}/bias".lstrip("/") in shapes)
        for name, count in positions.items()
    ]


def _products(jaxpr: Any, names: Sequence[str | None]) -> list[tuple[str, int]]:
    """Return the leaf and the number of outputs of each product in a jaxpr, whose first inputs are leaves."""
    origin = {var: name for var, name in zip(jaxpr.invars, names, strict=True) if name is not None}
    found = []
    for equation in jaxpr.eqns:
        # Constants (which have a value) come from no leaf, and cannot be looked up.
        sources = [None if hasattr(var, "val") else origin.get(var) for var in equation.invars]
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            size = math.prod(equation.outvars[0].aval.shape)
            found += [(source, size) for source in sources if source is not None]
        elif equation.primitive.name in _PASSED and sources[0] is not None:
            origin[equation.outvars[0]] = sources[0]
        # Functions under jit, remat or custom_vjp take what the equation takes; branches and loops do not.
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if len(getattr(inner, "invars", ())) == len(sources):
                found += _products(inner, sources)
    return found


def first_conv(layers: Sequence[LayerShape]) -> Filter:
    """Select the kernel of the first convolution, which the literature mostly leaves dense.

    Args:
      layers: from ``layer_shapes``.

    Returns:
      Filter, to be used as ``where=kernels() & ~first_conv(layers)``.

    Raises:
      ValueError: there is no convolution.

    Source: Evci et al. 2020, "RigL", section 3 (uniform: the first layer stays dense).

    >>> first_conv([LayerShape("stem/kernel", (3, 3, 3, 8)), LayerShape("head/kernel", (8, 2))])
    first_conv('stem/kernel')
    """
    return _one("first_conv", [layer.path for layer in layers if len(layer.kernel) > 2][:1], "a convolution")


def last_dense(layers: Sequence[LayerShape]) -> Filter:
    """Select the kernel of the last dense layer, usually the classifier.

    Args:
      layers: from ``layer_shapes``.

    Returns:
      Filter, to be used as ``where=kernels() & ~last_dense(layers)``.

    Raises:
      ValueError: there is no dense layer.

    Source: Jayakumar et al. 2020, "Top-KAST", section 4 (first and last layers dense).

    >>> last_dense([LayerShape("stem/kernel", (3, 3, 3, 8)), LayerShape("head/kernel", (8, 2))])
    last_dense('head/kernel')
    """
    return _one("last_dense", [layer.path for layer in layers if len(layer.kernel) == 2][-1:], "a dense layer")


def _one(function: str, paths: Sequence[str], what: str) -> Filter:
    if not paths:
        fail(function, "layers", f"no {what.removeprefix('a ')}", what)
    return Filter(lambda path, _: path == paths[0], f"{function}({paths[0]!r})", (paths[0],))
