"""Which layout the activations of sparse convolutions and batch norms have: decided from one trace of the model.

In the trace, activations that meet in elementwise operations, batch norms and pooling form a region. A region has one
layout, the one that costs less: a dense layer, a reshape or the model's edge wants it row-major, and a batch norm or a
sparse convolution gains a little from batch-minor memory.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
from flax import nnx

from sparsejax._checks import fail
from sparsejax._compat import jaxprs_in_params
from sparsejax._typing import PyTree
from sparsejax.kernels import BATCH_MINOR, ROW_MAJOR, Layout, Layouts
from sparsejax.nn._batch_norm import BatchNorm
from sparsejax.nn._graph import modules_of, replace_modules, with_class
from sparsejax.nn._layer import SparseLayer
from sparsejax.nn._record import split_arguments

_SCOPE = "sparsejax layer "

# What converting an activation costs, forward and backward, is 1 for each element. What a sparse convolution gains
# where it reads or writes batch-minor memory: a tenth of that, between 3x3 windows (nothing) and 1x1 (a quarter). What
# a batch norm gains, because it reads its operands once instead of twice: a fifth.
_CONVERSION, _GAIN, _GAIN_OF_NORM = 1.0, 0.1, 0.2

# fmt: off
_ELEMENTWISE = frozenset((
    "abs", "add", "add_any", "and", "atan2", "cbrt", "ceil", "clamp", "concatenate", "convert_element_type", "copy",
    "copy_p", "cos", "div", "eq", "erf", "erf_inv", "erfc", "exp", "exp2", "expm1", "floor", "ge", "gt",
    "integer_pow", "is_finite", "le", "log", "log1p", "logistic", "lt", "max", "min", "mul", "ne", "neg",
    "nextafter", "not", "optimization_barrier", "or", "pad", "pow", "reduce_precision", "rem", "round", "rsqrt",
    "select_n", "sign", "sin", "slice", "sparsejax_channel_scale", "sqrt", "square", "stop_gradient", "sub", "tan",
    "tanh", "xor",
))
# fmt: on
_CREATES = frozenset({"broadcast_in_dim", "iota", "random_bits", "sparsejax_channel_broadcast"})
_CALLS = frozenset(
    {"pjit", "jit", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call", "remat2", "checkpoint"}
)
_NAMES: dict[str, str] = {
    "conv_general_dilated": "a dense convolution",
    "dot_general": "a matrix product",
    "reshape": "a reshape",
    "reduce_window_max": "a pooling of Flax",
    "reduce_sum": "a reduction",
    "transpose": "a transposition",
}


class PlannedLayer(NamedTuple):
    """The layouts of the input and output of a sparse layer or a batch norm, and why."""

    layouts: Layouts
    reason: str


class _Region:
    """Activations of one layout: what its elements cost in each, and who wants them row-major."""

    def __init__(self) -> None:
        self.batch_minor = self.row_major = 0.0
        self.neighbours: list[str] = []
        self.ends = 0

    def absorb(self, other: _Region) -> None:
        self.batch_minor += other.batch_minor
        self.row_major += other.row_major
        self.neighbours += other.neighbours
        self.ends += other.ends

    def choose(self) -> tuple[Layout, str]:
        beside = ", ".join(dict.fromkeys(self.neighbours)) or "no other operation"
        if self.ends > 1 and self.batch_minor < self.row_major:
            return Layout.BATCH_MINOR, "between sparse layers"
        return Layout.ROW_MAJOR, f"beside {beside}"


class _Trace:
    """Regions of a traced model, and the activations that each layer of ours reads and writes."""

    def __init__(self) -> None:
        self._parents: dict[Any, Any] = {}
        self._regions: dict[Any, _Region] = {}
        self.layers: dict[str, list[tuple[Any, Any]]] = {}

    def region(self, variable: Any) -> _Region:
        root = self._root(variable)
        return self._regions.setdefault(root, _Region())

    def _root(self, variable: Any) -> Any:
        while variable in self._parents:
            variable = self._parents[variable]
        return variable

    def join(self, *variables: Any) -> None:
        """All of these have one layout."""
        first, *rest = (self._root(v) for v in variables)
        for other in rest:
            if self._root(other) is not self._root(first):
                self.region(first).absorb(self.region(other))
                self._parents[self._root(other)] = self._root(first)

    def foreign(self, variable: Any, neighbour: str) -> None:
        """Something that wants the activation row-major."""
        region = self.region(variable)
        region.batch_minor += _CONVERSION * variable.aval.size
        region.neighbours.append(neighbour)

    def fixed(self, variable: Any, layout: Layout) -> None:
        """An operation of ours whose layout nobody can choose."""
        region = self.region(variable)
        if layout is Layout.BATCH_MINOR:
            region.ends += 1
            region.row_major += _CONVERSION * variable.aval.size
        else:
            region.batch_minor += _CONVERSION * variable.aval.size

    def end(self, variable: Any) -> None:
        """An input or output of a sparse convolution that may have either layout."""
        region = self.region(variable)
        region.ends += 1
        region.row_major += _GAIN * variable.aval.size

    def walk(self, jaxpr: Any, scope: str = "") -> None:
        """Add the operations of a jaxpr."""
        for equation in jaxpr.eqns:
            inner = f"{scope}/{equation.source_info.name_stack}"
            if equation.primitive.name in _CALLS:
                (body,) = list(jaxprs_in_params(equation.params))[:1]
                body = getattr(body, "jaxpr", body)
                for outside, inside in (
                    *zip(equation.invars[-len(body.invars) :], body.invars, strict=True),
                    *zip(equation.outvars, body.outvars, strict=True),
                ):
                    if _is_activation(outside) and _is_activation(inside):
                        self.join(outside, inside)
                self.walk(body, inner)
            else:
                self._add(equation, inner)

    def _add(self, equation: Any, scope: str) -> None:
        name, params = equation.primitive.name, equation.params
        inputs, outputs = (list(filter(_is_activation, v)) for v in (equation.invars, equation.outvars))
        if name in _CREATES or not inputs:
            return
        if name == "sparsejax_conv":
            self._add_convolution(inputs[0], outputs[0], params["layouts"], scope)
        elif name.startswith("sparsejax_"):  # batch norm, pooling, channel sums
            self.join(*inputs, *outputs)
            if not self._record(inputs[0], inputs[0], scope):
                self.fixed(inputs[0], params.get("layouts", BATCH_MINOR).x)
            elif name == "sparsejax_batch_norm":
                self.region(inputs[0]).row_major += _GAIN_OF_NORM * inputs[0].aval.size
        elif name in _ELEMENTWISE:
            self.join(*inputs, *outputs)
        else:
            for variable in (*inputs, *outputs):
                self.foreign(variable, _NAMES.get(name) or name)

    def _add_convolution(self, x: Any, y: Any, layouts: Layouts, scope: str) -> None:
        if self._record(x, y, scope):
            self.end(x)
            self.end(y)
        else:  # called by the model itself
            self.fixed(x, layouts.x)
            self.fixed(y, layouts.y)

    def _record(self, x: Any, y: Any, scope: str) -> bool:
        """Note input and output of the layer with a layout that computes this; return whether there is one."""
        _, of_layer, rest = scope.rpartition(_SCOPE)
        if of_layer:
            self.layers.setdefault(rest.split(";")[0], []).append((x, y))
        return bool(of_layer)


def plan_layouts(model: nnx.Module, sample_input: PyTree) -> dict[str, PlannedLayer]:
    """Give sparse convolutions and batch norms the layouts in which a step takes least time. ``sparsify`` calls it.

    Activations between two sparse layers, with nothing but elementwise operations, batch norms and poolings between
    them, may stay batch-minor in memory; beside dense layers, attention, reshapes and at the model's edge they are
    row-major. Numbers do not depend on it. Linear layers are row-major everywhere.

    Args:
      model: an NNX module, called once, abstractly. The attribute ``layouts`` of its sparse convolutions is set, and
        ``layout`` of each ``sparsejax.nn.BatchNorm``.
      sample_input: as of ``sparsify``; sizes count.

    Returns:
      For each sparse layer and each batch norm of ours by path the layouts of its input and output, and why. A layer
      that the trace does not reach, because it is not called or is called inside a loop, is row-major.

    Raises:
      ValueError: the model cannot be called with this input.

    >>> from sparsejax.nn import sparsify
    >>> model = nnx.Sequential(*(nnx.Conv(4, 4, 1, rngs=nnx.Rngs(0)) for _ in range(2)))
    >>> masks = {f"layers/{i}": jax.numpy.eye(4, dtype=bool)[None] for i in range(2)}
    >>> sparse, _ = sparsify(model, masks, min_sparsity=0.5, policy="always")
    >>> plan = plan_layouts(sparse, jax.ShapeDtypeStruct((8, 16, 4), "float32"))
    >>> for path, layer in plan.items():
    ...     print(path, layer.layouts.x.name, layer.layouts.y.name)
    layers/0 ROW_MAJOR BATCH_MINOR
    layers/1 BATCH_MINOR ROW_MAJOR
    """
    layers = modules_of(model, (SparseLayer, BatchNorm))
    movable = {path: layer for path, layer in layers.items() if has_layout(layer)}
    trace = _traced(model, sample_input) if movable else _Trace()
    plan: dict[str, PlannedLayer] = {}
    for path, layer in layers.items():
        if path not in movable:
            plan[path] = PlannedLayer(ROW_MAJOR, "a linear layer")
            continue
        calls = trace.layers.get(path, [])
        ends = [(trace.region(x).choose(), trace.region(y).choose()) for x, y in calls]
        chosen = {Layouts(x[0], y[0]) for x, y in ends}
        if len(chosen) != 1:
            reason = "called in several places" if chosen else _unreached(layer)
            plan[path] = PlannedLayer(ROW_MAJOR, reason)
        else:
            plan[path] = PlannedLayer(chosen.pop(), "; ".join(_sentences(*ends[0])))
        _set_layout(layer, plan[path].layouts)
    return plan


def has_layout(layer: Any) -> bool:
    """Tell whether a layer of ours can have its activations in either layout."""
    return isinstance(layer, BatchNorm) or hasattr(layer, "layouts")


def _unreached(layer: Any) -> str:
    if isinstance(layer, BatchNorm):
        return "not called on activations with pixels"
    return "not reached by the trace of the model"


def _set_layout(layer: Any, layouts: Layouts) -> None:
    if isinstance(layer, BatchNorm):
        layer.layout = layouts.x
    else:
        layer.layouts = layouts


def _sentences(x: tuple[Layout, str], y: tuple[Layout, str]) -> Iterator[str]:
    """Why the input and the output have their layouts, in one clause where both have the same reason."""
    if x == y:
        yield x[1]
    else:
        yield f"input {x[1]}"
        yield f"output {y[1]}"


def describe_layout(layer: PlannedLayer) -> str:
    """Return the layouts and the reason, as in ``"row-major to batch-minor: output between sparse layers"``."""
    names = dict.fromkeys(layout.name.lower().replace("_", "-") for layout in layer.layouts)
    return f"{' to '.join(names)}: {layer.reason}"


@functools.cache
def _scoped(kind: type[Any]) -> type[Any]:
    """Return a subclass of a layer's class whose operations carry the layer's path in the trace."""
    method = "_apply" if issubclass(kind, BatchNorm) else "__call__"  # `norm_act` calls the former

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        with jax.named_scope(self.scope):
            return getattr(kind, method)(self, *args, **kwargs)

    metaclass: Any = type(kind)
    return metaclass("Scoped", (kind,), {method: call})


def _traced(model: nnx.Module, sample_input: PyTree) -> _Trace:
    """Trace a clone of the model in which each layer that has a layout says who it is."""
    clone = nnx.clone(model, graph=True)
    scoped: dict[int, nnx.Module] = {}
    for path, layer in modules_of(clone, (SparseLayer, BatchNorm)).items():
        if has_layout(layer):
            replacement: Any = with_class(layer, _scoped(type(layer)))
            replacement.scope = f"{_SCOPE}{path.replace('/', ':')};"
            scoped[id(layer)] = replacement
    graph, state = nnx.split(replace_modules(clone, scoped), graph=True)
    arrays, rebuild = split_arguments(sample_input)

    def call(state: Any, arrays: dict[str, Any]) -> Any:
        args, kwargs = rebuild(arrays)
        module: Any = nnx.merge(graph, state)
        return jax.tree.leaves(module(*args, **kwargs))

    try:
        jaxpr = jax.make_jaxpr(call)(state, arrays).jaxpr
    except Exception as error:  # a model can fail in any way
        got = ", ".join(f"{a.dtype}{list(a.shape)}" for a in arrays.values()) or "no arrays"
        hint = f"The model raised {type(error).__name__}."
        fail("plan_layouts", "sample_input", got, f"an input that {type(model).__name__} can be called with", hint)
    trace = _Trace()
    trace.walk(jaxpr)
    for variable in (*jaxpr.invars, *jaxpr.outvars):
        if _is_activation(variable):
            trace.foreign(variable, "the model's edge")
    trace.layers = {path.replace(":", "/"): calls for path, calls in trace.layers.items()}
    return trace


def _is_activation(variable: Any) -> bool:
    """Whether it is an array with a batch, pixels and features, and no literal."""
    return not hasattr(variable, "val") and getattr(variable.aval, "ndim", 0) > 2
