"""``sparsify_train_state``: a ``flax.training.train_state.TrainState`` with its optimizer state, to sparse and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from sparsejax._checks import fail
from sparsejax._typing import PyTree
from sparsejax.nn._policy import Policy
from sparsejax.nn._report import SparsifyReport
from sparsejax.nn.linen._convert import sparsify
from sparsejax.nn.linen._model import dense_module, plan_of
from sparsejax.nn.linen._plan import Path, Plan, StoredLayer

State = TypeVar("State")


def sparsify_train_state(
    state: State,
    masks: Mapping[str, Any] | None = None,
    *,
    sample_input: PyTree,
    module: nn.Module | None = None,
    min_sparsity: float = 0.8,
    policy: Policy = "measured",
    skip: Collection[str] = (),
) -> tuple[State, SparsifyReport]:
    """Make the module of a ``TrainState`` sparse, and carry parameters and optimizer state.

    Whatever the state keeps per weight of a layer that becomes sparse (parameters, momenta, accumulated gradients,
    masks, averages of the parameters in fields of a subclass) is gathered at the stored weights. The step, counters,
    hyperparameters and all other arrays keep their values.

    Args:
      state: a ``flax.training.train_state.TrainState`` or a subclass. Fields of a subclass that hold mappings, such as
        ``batch_stats``, are collections of the module of that name. It is not changed.
      masks: as in ``sparsify``; of a state of ``sparsejax.pruning.pruned``, pass ``pruning.get_mask(state.opt_state)``.
      sample_input: as in ``sparsify``.
      module: the unbound module; None takes the one whose ``apply`` is ``state.apply_fn``.
      min_sparsity, policy, skip: as in ``sparsejax.nn.sparsify``.

    Returns:
      The new state, which shares no array with the old one: ``apply_fn`` is ``apply`` of the sparse module
      (``apply_fn.__self__``), which holds the patterns, so that ``apply_fn({"params": params}, x)`` works as before.
      And the report of ``sparsify``.

    Raises:
      ValueError: as ``sparsify``; or the optimizer keeps something of another shape for a kernel that becomes sparse
        (the factored moments of adafactor), which has no counterpart.
      TypeError: not a ``TrainState``, or its ``apply_fn`` is another function and ``module`` is None.

    >>> import optax
    >>> from flax.training.train_state import TrainState
    >>> module, x = nn.Dense(4), jnp.ones((2, 4))
    >>> params = module.init(jax.random.key(0), x)["params"]
    >>> state = TrainState.create(apply_fn=module.apply, params=params, tx=optax.adam(1e-3))
    >>> masks = {"": jnp.eye(4, dtype=bool)}
    >>> state, report = sparsify_train_state(state, masks, sample_input=x, min_sparsity=0.5, policy="always")
    >>> state.params["kernel"].shape, state.opt_state[0].mu["kernel"].shape
    ((4,), (4,))
    """
    _check_state("sparsify_train_state", state)
    old: Any = state
    dense = module or _module_of(old)
    variables = {"params": old.params, **_collections(old)}
    options: dict[str, Any] = {"min_sparsity": min_sparsity, "policy": policy, "skip": skip}
    sparse, _, report = sparsify(dense, variables, masks, sample_input=sample_input, **options)
    plan = plan_of(sparse) or Plan(())
    carried = _carried("sparsify_train_state", old, plan, lambda layer: (layer.dense_shape, layer.gather))
    return carried.replace(apply_fn=sparse.apply), report


def densify_train_state(state: State) -> State:
    """Undo ``sparsify_train_state``: dense kernels, zeros where nothing was stored, for all that is kept per weight.

    Args:
      state: what ``sparsify_train_state`` returned, trained or not. It is not changed.

    Returns:
      A state for the dense module, which shares no array with the old one.

    Raises:
      TypeError: not a ``TrainState`` whose ``apply_fn`` is that of a sparse module.

    >>> import optax
    >>> from flax.training.train_state import TrainState
    >>> module, x = nn.Dense(4), jnp.ones((2, 4))
    >>> params = module.init(jax.random.key(0), x)["params"]
    >>> state = TrainState.create(apply_fn=module.apply, params=params, tx=optax.adam(1e-3))
    >>> options = {"sample_input": x, "min_sparsity": 0.5, "policy": "always"}
    >>> state, _ = sparsify_train_state(state, {"": jnp.eye(4, dtype=bool)}, **options)
    >>> densify_train_state(state).opt_state[0].mu["kernel"].shape
    (4, 4)
    """
    _check_state("densify_train_state", state)
    old: Any = state
    module = getattr(old.apply_fn, "__self__", None)
    plan = plan_of(module)
    if module is None or plan is None:
        rule = "that of a module that sparsify_train_state made"
        fail("densify_train_state", "state.apply_fn", f"value {old.apply_fn!r}", rule, error=TypeError)
    carried = _carried("densify_train_state", old, plan, lambda layer: (layer.stored_shape, layer.scatter))
    return carried.replace(apply_fn=dense_module(module).apply)


def _carried(
    function: str, state: Any, plan: Plan, change: Callable[[StoredLayer], tuple[tuple[int, ...], Callable[..., Any]]]
) -> Any:
    """Return a state whose arrays of sparse kernels have the other form, and copies of all others.

    The path of an array in the state is one inside the state, then that of a parameter; the longest match counts.
    """
    keys, _ = jax.tree_util.tree_flatten_with_path(state.params, is_leaf=_is_boxed)
    parameters = {_names(path) for path, _ in keys}
    changes: dict[Path, Any] = {(*layer.path, "kernel"): change(layer) for layer in plan.layers}

    def carry(keys: Any, leaf: Any) -> Any:
        path = _names(keys)
        parameter = next((path[start:] for start in range(len(path)) if path[start:] in parameters), None)
        if parameter is None or parameter not in changes:
            return jnp.copy(leaf) if isinstance(leaf, jax.Array) else leaf
        shape, convert = changes[parameter]
        return _converted(function, "/".join(path), leaf, shape, convert)

    return jax.tree_util.tree_map_with_path(carry, state, is_leaf=_is_packed)


def _converted(function: str, where: str, leaf: Any, shape: tuple[int, ...], convert: Callable[..., Any]) -> Any:
    if _is_packed(leaf):
        return leaf.map(lambda mask: _converted(function, where, mask, shape, convert))
    if jnp.shape(leaf) == shape:
        return convert(jnp.asarray(leaf))
    if jnp.size(leaf) == 1:  # one number per parameter, or a placeholder
        return leaf
    hint = "Start a new optimizer state: TrainState.create with the sparse module's parameters."
    fail(function, f"'{where}'", f"shape {jnp.shape(leaf)}", f"shape {shape}, that of the kernel", hint)


def _is_packed(node: Any) -> bool:
    """Whether a node is a ``PackedMask`` of ``sparsejax.pruning``, which this package does not import."""
    return type(node).__name__ == "PackedMask"


def _is_boxed(node: Any) -> bool:
    return isinstance(node, nn.meta.AxisMetadata)


def _names(keys: Any) -> Path:
    """Names of a key path, whatever the kinds of its nodes."""
    attributes = ("key", "name", "idx")
    return tuple(str(next(getattr(key, a) for a in attributes if hasattr(key, a))) for key in keys)


def _collections(state: Any) -> dict[str, Any]:
    """The fields of a subclass that hold collections of variables."""
    base = {"step", "apply_fn", "params", "tx", "opt_state"}
    fields = {field.name: getattr(state, field.name) for field in dataclasses.fields(state) if field.name not in base}
    return {name: value for name, value in fields.items() if isinstance(value, Mapping)}


def _module_of(state: Any) -> nn.Module:
    module = getattr(state.apply_fn, "__self__", None)
    if not isinstance(module, nn.Module):
        hint = "Pass module=...; call apply_fn.__self__ in your own function."
        name = getattr(state.apply_fn, "__name__", repr(state.apply_fn))
        rule = "apply of a Linen module"
        fail("sparsify_train_state", "state.apply_fn", f"value {name}", rule, hint, TypeError)
    return module


def _check_state(function: str, state: Any) -> None:
    if all(hasattr(state, name) for name in ("apply_fn", "params", "opt_state", "replace")):
        return
    hint = ""
    if isinstance(state, nn.Module):
        hint = f"Call sparsejax.nn.linen.{function.removesuffix('_train_state')}(module, variables, ...)."
    fail(function, "state", f"type {type(state).__name__}", "a flax TrainState", hint, TypeError)
