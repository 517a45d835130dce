"""With which inputs a model calls its layers: an abstract run in which each layer writes down what it gets."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from flax import nnx

from sparsejax._checks import fail
from sparsejax._typing import PyTree
from sparsejax.nn._graph import modules_of, replace_modules, with_class
from sparsejax.nn._layer import SparseLayer
from sparsejax.nn._registry import registered_classes

Call: TypeAlias = jax.ShapeDtypeStruct
"""Shape and dtype of one input of a layer."""


def recorded_classes() -> tuple[type[Any], ...]:
    """Return the classes of dense layers whose inputs are recorded."""
    return (*registered_classes(), nnx.BatchNorm)


class _Recorder:
    """Collects the inputs with which one layer is called; opaque and static to NNX."""

    def __init__(self, function: str, path: str) -> None:
        self.layer = f"{function}: layer '{path}'"
        self.calls: list[Call] = []

    def record(self, layer: Any, inputs: Any) -> None:
        call = Call(jnp.shape(inputs), jnp.result_type(inputs))
        _check_input(self.layer, layer, call)
        if call not in self.calls:
            self.calls.append(call)


@functools.cache
def _recorded(kind: type[Any]) -> type[Any]:
    """Return a subclass of a layer's class that records the first argument of each call."""

    class Recorded(kind):
        recorder: _Recorder

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            self.recorder.record(self, args[0] if args else next(iter(kwargs.values())))
            return super().__call__(*args, **kwargs)

    return Recorded


def record_inputs(model: nnx.Module, sample_input: PyTree, *, function: str = "record_inputs") -> dict[str, list[Call]]:
    """Return the shapes and dtypes with which each layer that has a sparse form, and each batch norm, is called.

    Args:
      model: evaluated on a clone in eval mode, abstractly: nothing is computed, and no statistics, random streams or
        caches change.
      sample_input: the model's input; a tuple of its positional inputs; or a dict of its keyword arguments. Arrays, or
        ``jax.ShapeDtypeStruct``; other values (``True``, None) are passed as they are.
      function: whose name errors begin with.

    Returns:
      Distinct inputs by path of the layer, none for a layer that is not called.

    Raises:
      ValueError: the model cannot be called with this input; names the first layer that refuses it, and why.

    >>> model = nnx.Sequential(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), nnx.relu)
    >>> record_inputs(model, jnp.ones((4, 2)))
    {'layers/0': [ShapeDtypeStruct(shape=(4, 2), dtype=float32)]}
    """
    clone = nnx.clone(model, graph=True)
    clone.eval()
    recorders: dict[str, _Recorder] = {}
    replacements: dict[int, nnx.Module] = {}
    classes = recorded_classes()
    layers: dict[str, Any] = modules_of(clone, (*classes, SparseLayer))
    for path, layer in layers.items():
        if type(layer) in classes or isinstance(layer, SparseLayer):
            recorder, recorded = _Recorder(function, path), with_class(layer, _recorded(type(layer)))
            recorded.recorder = recorder
            replacements[id(layer)] = recorded
            if type(layer) in classes:
                recorders[path] = recorder
    recorded_model: Any = replace_modules(clone, replacements)
    run_abstractly(
        function,
        lambda module, *args, **kwargs: module(*args, **kwargs),
        type(recorded_model).__name__,
        recorded_model,
        sample_input,
    )
    return {path: recorder.calls for path, recorder in recorders.items()}


def split_arguments(sample_input: PyTree) -> tuple[dict[str, Any], Callable[[dict[str, Any]], tuple[Any, Any]]]:
    """Return the arrays of a ``sample_input``, and the function that makes positional and named arguments of them."""
    args: tuple[Any, ...] = sample_input if isinstance(sample_input, tuple) else (sample_input,)
    kwargs: dict[str, Any] = {}
    if isinstance(sample_input, Mapping):
        args, kwargs = (), dict(sample_input)
    leaves, treedef = jax.tree.flatten((args, kwargs))
    arrays = {str(i): leaf for i, leaf in enumerate(leaves) if hasattr(leaf, "shape") and hasattr(leaf, "dtype")}

    def rebuild(arrays: dict[str, Any]) -> tuple[Any, Any]:
        return treedef.unflatten([arrays.get(str(i), leaf) for i, leaf in enumerate(leaves)])

    return arrays, rebuild


def run_abstractly(function: str, run: Callable[..., Any], name: str, state: Any, sample_input: PyTree) -> None:
    """Call ``run(state, *args, **kwargs)`` abstractly; what it raises becomes an error about ``sample_input``.

    Args:
      function: whose name errors begin with.
      run: calls the model.
      name: of the model's class.
      state: an NNX module, or a tree of arrays.
      sample_input: as ``record_inputs`` takes it.

    Raises:
      ValueError: the model cannot be called with this input.
    """
    arrays, rebuild = split_arguments(sample_input)

    def call(state: Any, arrays: dict[str, Any]) -> Any:
        positional, named = rebuild(arrays)
        return run(state, *positional, **named)

    try:
        nnx.eval_shape(call, state, arrays)
    except _BadInput as error:
        raise ValueError(str(error)) from None
    except Exception as error:  # a model can fail in any way
        got = ", ".join(f"{a.dtype}{list(a.shape)}" for a in arrays.values()) or "no arrays"
        hint = f"The model raised {type(error).__name__}: {_first_line(error)}"
        fail(function, "sample_input", got, f"an input that {name} can be called with", hint)


class _BadInput(ValueError):
    """A layer's input that the layer does not take."""


def _check_input(function: str, layer: Any, call: Call) -> None:
    """Refuse an input that the layer does not take, before Flax or XLA do, whose messages name no layer."""
    norm = isinstance(layer, nnx.BatchNorm)
    features: Any = layer.num_features if norm else getattr(layer, "in_features", None)
    axis: Any = layer.axis if norm else -1
    axes, rank = 1 + len(getattr(layer, "kernel_size", ())), len(call.shape)
    got, operand = f"shape {call.shape}", "the input that sample_input leads to"
    known = isinstance(features, int) and isinstance(axis, int)
    if known and (rank < axes or not -rank <= axis < rank or call.shape[axis] != features):
        last = "last axis" if axis == -1 else f"axis {axis}"
        spatial = f" after {axes - 1} spatial axes" if axes > 1 else ""
        fail(function, operand, got, f"{last} {features}{spatial}, the layer's input features", error=_BadInput)
    if 0 in call.shape:
        fail(function, operand, got, "no axis of size 0", "Is the batch empty?", error=_BadInput)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0]
