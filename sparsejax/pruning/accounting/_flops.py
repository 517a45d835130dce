"""Layers of a network, and operations and memory of sparse training by the rules of the AC/DC authors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax

from sparsejax._checks import fail
from sparsejax._typing import PyTree
from sparsejax.pruning._filters import Filter
from sparsejax.pruning._leaves import Leaves

Form = Literal["masked", "packed", "values"]


@dataclass(frozen=True)
class LayerShape:
    """What the cost of a convolution or dense layer depends on.

    Attributes:
      path: of the layer's kernel.
      kernel: shape of the kernel, ``(in, out)`` or ``(*window, in // groups, out)``.
      positions: output pixels of one example; 1 for a dense layer.
      bias: whether it has a bias.
    """

    path: str
    kernel: tuple[int, ...]
    positions: int = 1
    bias: bool = False

    @property
    def size(self) -> int:
        """Weights of the kernel."""
        return math.prod(self.kernel)


class OtherOps(NamedTuple):
    """Elements, for one example, of what is not a product: as of a forward pass.

    Attributes:
      batch_norm: input elements of batch norms, 2 operations each.
      relu: elements of ReLUs, 1 each.
      pooling: k^2 operations per output element, added up.
    """

    batch_norm: int = 0
    relu: int = 0
    pooling: int = 0


def forward_flops(
    layers: Sequence[LayerShape], nnz: Mapping[str, int] | None = None, other: OtherOps | None = None
) -> int:
    """Count the operations of a forward pass of one example.

    sum over layers of (2 * nnz + bias * outputs) * positions, + 2 batch_norm + relu + pooling

    A multiplication and an addition count separately. nnz counts entries that are not 0, not ones in the mask.

    Args:
      layers: convolutions and dense layers.
      nnz: non-zero weights by path of the kernel; a layer left out is dense.
      other: everything else; None leaves it out.

    Returns:
      Number of operations.

    Raises:
      ValueError: nnz of an unknown layer, or more than its weights.

    Source: Peste et al. 2021, "AC/DC", section 5 and the counter in the authors' code.

    >>> forward_flops([LayerShape("conv", (3, 3, 2, 4), positions=100, bias=True)], {"conv": 10})
    2400
    """
    counts = dict(nnz or {})
    sizes = {layer.path: layer.size for layer in layers}
    for path, count in counts.items():
        if path not in sizes:
            fail("forward_flops", "nnz", f"an entry for {path!r}", f"entries only for {list(sizes)}")
        if not 0 <= count <= sizes[path]:
            fail("forward_flops", f"nnz of {path!r}", f"value {count}", f"0 to {sizes[path]}")
    products = sum(
        (2 * counts.get(layer.path, layer.size) + layer.bias * layer.kernel[-1]) * layer.positions for layer in layers
    )
    return products + (0 if other is None else 2 * other.batch_norm + other.relu + other.pooling)


def training_flops(forward: Sequence[tuple[float, int]]) -> float:
    """Count the operations of training: three forward passes per example, a backward pass being two.

    total = 3 * sum over epochs of flops * examples

    Choice of masks, optimizer and evaluation are free.

    Args:
      forward: for each epoch (or any stretch) the operations of a forward pass of one example, and the examples.

    Returns:
      Number of operations.

    Source: Peste et al. 2021, "AC/DC", section 5.

    >>> training_flops([(10.0, 100), (2.0, 100)])
    3600.0
    """
    return 3.0 * sum(flops * examples for flops, examples in forward)


def alternation_cost(relative: float, *, dense: float, sparse: float, baseline: float | None = None) -> float:
    """Return the training cost of AC/DC, relative to dense training; an upper bound.

    C = (E_d + f * E_s) / E_0

    Args:
      relative: f, forward cost of the sparse network relative to the dense one, in [0, 1].
      dense: epochs in dense phases, E_d.
      sparse: epochs in sparse phases, E_s.
      baseline: epochs of the dense run that it is compared with, E_0; None is the same number, E_d + E_s.

    Returns:
      C; below 1 is cheaper than the baseline.

    Raises:
      ValueError: ``relative`` outside [0, 1].

    Source: Peste et al. 2021, "AC/DC", section 5, training FLOPs.

    >>> round(alternation_cost(0.126, dense=50, sparse=50), 2)
    0.56
    """
    if not 0 <= relative <= 1:
        fail("alternation_cost", "relative", f"value {relative}", "a fraction in [0, 1]")
    return (dense + relative * sparse) / (dense + sparse if baseline is None else baseline)


def storage_bytes(size: int, nnz: int, *, moments: int, itemsize: int = 4, form: Form = "values") -> int:
    """Return the bytes of one leaf's parameters, optimizer moments and mask or indices.

    masked: n * itemsize * (1 + moments) + n;  packed: ... + n / 8;  values: k * (itemsize * (1 + moments) + 4)

    Args:
      size: weights of the leaf, n.
      nnz: weights kept, k.
      moments: arrays of the parameter's shape that the optimizer keeps: 1 for momentum, 2 for Adam.
      itemsize: bytes of a weight.
      form: how it is stored.

    Returns:
      Bytes; indices of values-only storage count as 4 each.

    Source: design of this package.

    >>> storage_bytes(1000, 50, moments=1), storage_bytes(1000, 50, moments=1, form="masked")
    (600, 9000)
    """
    if form == "values":
        return nnz * (itemsize * (1 + moments) + 4)
    return size * itemsize * (1 + moments) + (size if form == "masked" else -(-size // 8))


# Operations between a kernel and its product that change neither its values nor their number.
_PASSED = ("convert_element_type", "reshape", "transpose", "copy", "squeeze", "expand_dims")


def layer_shapes(forward: Callable[[PyTree], PyTree], params: PyTree) -> list[LayerShape]:
    """List the convolutions and dense layers of a network in the order in which its forward pass runs them.

    The function is traced, not run: whatever multiplies a leaf of ``params`` of two or more axes by ``dot_general`` or
    ``conv_general_dilated`` is a layer, also under ``jit`` and ``remat``. A leaf used twice is listed at its first use,
    with the positions of both.

    Args:
      forward: parameters -> outputs of the network, for one example (a batch of 1).
      params: parameters, or their shapes.

    Returns:
      ``LayerShape`` per kernel, for ``report``, ``forward_flops``, ``first_conv`` and ``last_dense``. A layer has a
      bias if a leaf named ``bias`` is beside its kernel.

    Raises:
      ValueError: no kernel is multiplied.

    Source: the order of layers that Peste et al. 2021, "AC/DC", and Evci et al. 2020, "RigL", refer to.

    >>> import jax.numpy as jnp
    >>> params = {"b": {"kernel": jnp.ones((4, 8)), "bias": jnp.ones(8)}, "a": {"kernel": jnp.ones((8, 2))}}
    >>> forward = lambda p: (jnp.ones((1, 4)) @ p["b"]["kernel"] + p["b"]["bias"]) @ p["a"]["kernel"]
    >>> [(layer.path, layer.positions, layer.bias) for layer in layer_shapes(forward, params)]
    [('b/kernel', 1, True), ('a/kernel', 1, False)]
    """
    leaves = Leaves.of(params)
    shapes = {name: tuple(leaf.shape) for name, leaf in zip(leaves.names, leaves.values, strict=True)}
    traced = jax.make_jaxpr(forward)(params).jaxpr
    positions: dict[str, int] = {}
    for name, outputs in _products(traced, leaves.names):
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
    products = []
    for equation in jaxpr.eqns:
        # Constants have a value; they are no leaf and cannot be looked up.
        sources = [None if hasattr(var, "val") else origin.get(var) for var in equation.invars]
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            size = math.prod(equation.outvars[0].aval.shape)
            products += [(source, size) for source in sources if source is not None]
        elif equation.primitive.name in _PASSED and sources[0] is not None:
            origin[equation.outvars[0]] = sources[0]
        # Functions under jit, remat or custom_vjp have the operands of the equation; branches and loops do not.
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if len(getattr(inner, "invars", ())) == len(sources):
                products += _products(inner, sources)
    return products


def first_conv(layers: Sequence[LayerShape]) -> Filter:
    """Select the kernel of the first convolution, which the literature mostly leaves dense.

    Args:
      layers: from ``layer_shapes``.

    Returns:
      Filter, to be used as ``where=is_kernel() & ~first_conv(layers)``.

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
      Filter, to be used as ``where=is_kernel() & ~last_dense(layers)``.

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
