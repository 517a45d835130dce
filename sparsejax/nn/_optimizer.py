"""``carry_optimizer``: the state of an ``nnx.Optimizer`` across ``sparsify`` and ``densify``."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from sparsejax._checks import fail
from sparsejax.nn._graph import modules_of, path_string
from sparsejax.nn._layer import SparseLayer
from sparsejax.nn._registry import gather, registered_classes, scatter


@dataclasses.dataclass(frozen=True)
class _Change:
    """How the kernel of one layer is stored before and after: by a sparse layer, or None for dense."""

    shape: tuple[int, ...]
    before: SparseLayer | None
    after: SparseLayer | None

    def apply(self, values: jax.Array) -> jax.Array:
        """Bring values from the one form to the other; zero where there was none."""
        dense = values if self.before is None else scatter(self.before, values)
        return dense if self.after is None else gather(self.after, dense)


def carry_optimizer(optimizer: nnx.Optimizer[Any], old_model: nnx.Module, new_model: nnx.Module) -> nnx.Optimizer[Any]:
    """Return an optimizer for the converted model that continues from the state of the old one.

    Whatever the optimizer keeps per weight (momentum, second moments, accumulated gradients, masks) is
    gathered at the stored weights, or scattered to a dense kernel with zeros elsewhere; step counters,
    hyperparameters and the state of other parameters are kept. Works in all directions: dense to sparse,
    sparse to dense, pattern to pattern.

    Args:
      optimizer: of ``old_model``. It is not changed.
      old_model: before ``sparsify`` or ``densify``.
      new_model: after it.

    Returns:
      A new optimizer with the same ``tx`` and ``wrt``, for ``new_model``.

    Raises:
      ValueError: the state holds something of another shape for a converted kernel (the factored moments of
        adafactor), which has no counterpart.
      TypeError: an ``nnx.ModelAndOptimizer``, which holds the old model.

    Source: Nikdan et al. 2023 (SparseProp) lose this state when the mask changes; see their section on
      gradual pruning.

    >>> import optax
    >>> from sparsejax.nn import sparsify
    >>> dense = nnx.Linear(4, 4, rngs=nnx.Rngs(0))
    >>> optimizer = nnx.Optimizer(dense, optax.adam(1e-3), wrt=nnx.Param)
    >>> sparse, _ = sparsify(dense, min_sparsity=0.0, policy="always")
    >>> carry_optimizer(optimizer, dense, sparse).opt_state[0].mu["kernel"].shape
    (16,)
    """
    if isinstance(optimizer, nnx.ModelAndOptimizer):
        fail("carry_optimizer", "optimizer", "type ModelAndOptimizer", "an nnx.Optimizer", error=TypeError)
    changes = _changes(old_model, new_model)
    optimizer = nnx.clone(optimizer, graph=True)
    for path, variable in nnx.iter_graph(optimizer.opt_state, graph=True):
        if isinstance(variable, nnx.Variable):
            change = _change_at(path, changes)
            if change is not None:
                # A tree map, because optax.partition leaves empty nodes in place of arrays.
                variable.set_value(jax.tree.map(partial(_converted, path, change), variable.get_value()))
    _check_structure(optimizer, new_model)
    return optimizer


def _check_structure(optimizer: nnx.Optimizer[Any], model: nnx.Module) -> None:
    """Refuse a state that the optimizer would not have for the model: it looks at the shapes of parameters.

    An optimizer that starts on dense weights only, such as one of ``pruning.pruned``, cannot say what it would have.
    """
    params = nnx.as_pure(nnx.state(model, optimizer.wrt))
    leaves, treedef = jax.tree.flatten(jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params))
    expected = _fresh_shapes(optimizer.tx.init, treedef, tuple(leaves))
    result = _shapes(nnx.as_pure(optimizer.opt_state))
    different = sorted(path for path, shape in expected.items() if result.get(path) != shape)
    if different:
        path = different[0]
        got = f"shape {result[path]}" if path in result else "no value"
        hint = "The optimizer looks at shapes. Start a new one, of sparsejax.nn.dense_view(tx, model)."
        fail("carry_optimizer", f"state '{path}'", got, f"shape {expected[path]}", hint)


@functools.lru_cache(maxsize=64)
def _fresh_shapes(init: Callable[..., Any], treedef: Any, leaves: tuple[Any, ...]) -> dict[str, tuple[int, ...]]:
    """The shapes of the state that an optimizer starts with; none where it refuses these parameters.

    Kept, so that changing the masks again and again traces nothing.
    """
    try:
        return _shapes(jax.eval_shape(init, jax.tree.unflatten(treedef, leaves)))
    except ValueError:
        return {}


def _shapes(state: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): jnp.shape(leaf) for path, leaf in leaves}


def _changes(old_model: nnx.Module, new_model: nnx.Module) -> dict[str, _Change]:
    """The layers that are stored in another form, by path."""
    old, new = (_layers(model) for model in (old_model, new_model))
    if old.keys() != new.keys():
        difference = ", ".join(sorted(old.keys() ^ new.keys()))
        fail("carry_optimizer", "new_model", f"other layers than old_model ({difference})", "the same layers")
    changes = {}
    for path, layer in old.items():
        before, after = (each if isinstance(each, SparseLayer) else None for each in (layer, new[path]))
        if before is not None or after is not None:
            changes[path] = _Change(layer.kernel.shape, before, after)
    return changes


def _layers(model: nnx.Module) -> dict[str, Any]:
    return modules_of(model, (*registered_classes(), SparseLayer))


def _change_at(path: tuple[Any, ...], changes: dict[str, _Change]) -> _Change | None:
    """The change of the layer whose kernel this piece of optimizer state belongs to.

    The path in the state is one inside the optimizer, then that of the parameter; the longest match is the
    layer.
    """
    if path[-1:] != ("kernel",):
        return None
    for start in range(len(path)):
        change = changes.get(path_string(path[start:-1]))
        if change is not None:
            return change
    return None


def _converted(path: tuple[Any, ...], change: _Change, values: jax.Array) -> jax.Array:
    if values.shape == change.shape:
        return change.apply(values)
    if values.size == 1:  # one number per parameter, or a placeholder
        return values
    where = f"state '{path_string(path)}'"
    hint = "It does not belong to single weights. Start a new optimizer, of sparsejax.nn.dense_view(tx, model)."
    fail("carry_optimizer", where, f"shape {values.shape}", f"shape {change.shape}, that of the kernel", hint)
