"""The wrapper: any Optax optimizer, with weights outside a mask kept at exactly zero."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from sparsejax._checks import fail
from sparsejax.pruning._filters import KERNELS, Predicate, selected
from sparsejax.pruning._masks import apply_mask
from sparsejax.pruning._method import Method, View
from sparsejax.pruning._state import Change, PrunedState, get_mask, total
from sparsejax.pruning._structures import Structure, unstructured
from sparsejax.pruning._tree import PyTree, flatten_like, is_masked_node, leaf_names, only, spread

_UNSTRUCTURED = unstructured()


@dataclass(frozen=True)
class _Wrapper:
    """The two functions behind ``pruned``."""

    inner: optax.GradientTransformationExtraArgs
    method: Method
    where: Predicate
    structure: Structure

    def init(self, params: PyTree) -> PrunedState:
        leaves, treedef = jax.tree.flatten(params)
        chosen = selected("pruned.init", self.where, params)
        weights = [jnp.asarray(leaf) for leaf in only(chosen, leaves)]
        ones = [jnp.ones_like(weight, bool) for weight in weights]
        names = only(chosen, leaf_names(params))
        masks, aux = self.method.init(View(names, weights, ones, 0, (), self.structure))
        return PrunedState(
            step=jnp.zeros((), jnp.int32),
            mask=jax.tree.unflatten(treedef, spread(chosen, masks)),
            nnz=jax.tree.unflatten(treedef, spread(chosen, [_count(mask) for mask in masks])),
            inner=self.inner.init(params),
            aux=aux,
            change=Change(*(jnp.zeros((), jnp.int32) for _ in Change._fields)),
        )

    def update(
        self, updates: PyTree, state: Any, params: PyTree | None = None, **extra: Any
    ) -> tuple[PyTree, PrunedState]:
        chosen, masks = _masks_of(state, params)
        weights, treedef = only(chosen, jax.tree.leaves(params)), jax.tree.structure(params)

        grads = flatten_like("pruned.update", "updates", updates, params)
        kept = [jnp.where(m, g, jnp.zeros_like(g)) for m, g in zip(masks, only(chosen, grads), strict=True)]
        grads = jax.tree.unflatten(treedef, _replace(chosen, grads, kept))
        proposed, inner_state = self.inner.update(grads, state.inner, params, **extra)
        deltas = flatten_like("pruned.update", "the result of inner.update", proposed, params)
        candidates: Any = optax.apply_updates(weights, only(chosen, deltas))

        step = jnp.asarray(optax.safe_increment(state.step))
        new_state = lax.cond(
            self.method.refresh(step),
            lambda: self._refreshed(state, step, inner_state, params, candidates),
            lambda: state._replace(step=step, inner=inner_state),
        )
        # Survivors, not the new mask: a grown weight enters at 0, whatever inner still holds for it.
        survivors = _survivors(masks, _masks_of(new_state, params)[1])
        changed = [_constrain(*args) for args in zip(survivors, only(chosen, deltas), weights, strict=True)]
        return jax.tree.unflatten(treedef, _replace(chosen, deltas, changed)), new_state

    def _refreshed(
        self,
        state: PrunedState,
        step: jax.Array,
        inner_state: Any,
        params: PyTree,
        candidates: list[jax.Array],
    ) -> PrunedState:
        """Return the state after a step that chooses a new mask."""
        chosen, old = _masks_of(state, params)
        treedef = jax.tree.structure(params)
        names = only(chosen, leaf_names(params))
        new, aux = self.method.update(View(names, candidates, old, step, state.aux, self.structure))
        survivors = _survivors(old, new)
        counts = [_count(mask) for mask in new]
        stayed = total([_count(mask) for mask in survivors])
        return PrunedState(
            step=step,
            mask=jax.tree.unflatten(treedef, spread(chosen, new)),
            nnz=jax.tree.unflatten(treedef, spread(chosen, counts)),
            inner=_zero_moments(self.inner, inner_state, params, spread(chosen, survivors)),
            aux=aux,
            change=Change(step, dropped=total(state.nnz) - stayed, grown=total(counts) - stayed),
        )


def pruned(
    inner: optax.GradientTransformation,
    method: Method,
    *,
    where: Predicate = KERNELS,
    structure: Structure = _UNSTRUCTURED,
) -> optax.GradientTransformationExtraArgs:
    """Wrap an Optax optimizer so that it prunes.

    g <- g * mask;  u <- inner(g);  at a refresh: mask' <- method(w + u), moments outside mask * mask' <- 0;
    u <- u where mask and mask', else -w

    After ``optax.apply_updates`` every weight outside the mask is exactly 0: w + (-w) = 0 in floating point.
    The mask for the forward pass after t steps is chosen within step t, so the loss never sees a weight that
    should be gone. Transforms that change updates (clipping, noise, decay) belong inside, in ``inner``;
    outside go only ``MultiSteps``, ``apply_if_finite``, ``partition``, ``masked`` and ``inject_hyperparams``.

    Args:
      inner: optimizer.
      method: when and how the mask is chosen: ``magnitude``, ``one_shot``, ``fixed``, ....
      where: which leaves may be pruned: a filter, or any function of (path, leaf).
      structure: which shapes the kept weights may take.

    Returns:
      ``optax.GradientTransformationExtraArgs`` with state ``PrunedState``. ``update`` needs ``params``.

    Raises:
      TypeError: an argument is not what it should be.
      ValueError: from ``init`` and ``update``, if ``where`` selects nothing, parameters are missing, or
        parameters and state do not match.

    Cost: three elementwise passes over the prunable weights per step; a selection at refreshes only, under
    ``lax.cond`` (which ``vmap`` turns into always). The whole schedule is one compilation.
    Source: masks as in Peste et al. 2021, "AC/DC"; constraint by update as ``optax.keep_params_nonnegative``.

    >>> from sparsejax.pruning import one_shot
    >>> tx = pruned(optax.sgd(0.5), one_shot(0.5, at=1))
    >>> params = {"kernel": jnp.array([[1.0, -2.0], [3.0, -4.0]])}
    >>> updates, state = tx.update(params, tx.init(params), params)
    >>> optax.apply_updates(params, updates)["kernel"].tolist()
    [[0.0, 0.0], [1.5, -2.0]]
    """
    _check_arguments(inner, method, where, structure)
    wrapper = _Wrapper(optax.with_extra_args_support(inner), method, where, structure)
    return optax.GradientTransformationExtraArgs(wrapper.init, wrapper.update)


def init(tx: optax.GradientTransformation, params: PyTree) -> tuple[PyTree, PyTree]:
    """Make the optimizer state, and set the weights to zero that its mask leaves out from the start.

    state <- tx.init(params);  params <- params * mask

    Needed only by methods that start sparse (``fixed``, ``one_shot`` at step 0): without it the first
    gradient would be that of the dense model.

    Args:
      tx: optimizer that contains ``pruned``.
      params: parameters.

    Returns:
      Masked parameters, and the optimizer state.

    Raises:
      ValueError: ``tx`` contains no ``pruned``.

    Source: the convention of all methods with a mask at initialisation (Evci et al. 2020, "RigL", section 3).

    >>> from sparsejax.pruning import one_shot
    >>> params, state = init(pruned(optax.sgd(0.1), one_shot(0.5)), {"kernel": jnp.array([[1.0, -2.0]])})
    >>> params
    {'kernel': Array([[ 0., -2.]], dtype=float32)}
    """
    state = tx.init(params)
    return apply_mask("init", params, get_mask(state)), state


def _check_arguments(inner: Any, method: Any, where: Any, structure: Any) -> None:
    for operand, value, needed, rule in (
        ("inner", inner, ("init", "update"), "an optax.GradientTransformation such as optax.adam(1e-3)"),
        ("method", method, ("init", "refresh", "update"), "a method such as one_shot(0.9)"),
        ("structure", structure, ("select",), "a structure such as unstructured()"),
        ("where", where, ("__call__",), "a filter such as kernels(), or a function of (path, leaf)"),
    ):
        if isinstance(value, type) or not all(hasattr(value, name) for name in needed):
            fail("pruned", operand, f"type {type(value).__name__}", rule, error=TypeError)


def _masks_of(state: PrunedState, params: PyTree | None) -> tuple[list[bool], list[jax.Array]]:
    """Return which leaves of ``params`` are prunable, and their masks."""
    if params is None:
        fail("pruned.update", "params", "value None", "the parameters", "Call tx.update(grads, state, params).")
    nodes = flatten_like("pruned.update", "state.mask", state.mask, params)
    chosen = [not is_masked_node(node) for node in nodes]
    masks = only(chosen, nodes)
    for mask, weight in zip(masks, only(chosen, jax.tree.leaves(params)), strict=True):
        if mask.shape != jnp.shape(weight):
            fail(
                "pruned.update",
                "a leaf of state.mask",
                f"shape {mask.shape}",
                f"the shape of its parameter, {jnp.shape(weight)}",
                "Does the optimizer state belong to another model?",
            )
    return chosen, masks


def _replace(chosen: Sequence[bool], leaves: Sequence[Any], values: Sequence[Any]) -> list[Any]:
    """Return ``leaves`` with ``values``, in order, where ``chosen`` is True."""
    rest = iter(values)
    return [next(rest) if is_chosen else leaf for is_chosen, leaf in zip(chosen, leaves, strict=True)]


def _count(mask: jax.Array) -> jax.Array:
    return jnp.sum(mask, dtype=jnp.int32)


def _survivors(old: Sequence[jax.Array], new: Sequence[jax.Array]) -> list[jax.Array]:
    return [before & after for before, after in zip(old, new, strict=True)]


def _constrain(survives: jax.Array, delta: jax.Array, weight: jax.Array) -> jax.Array:
    # The wider dtype of the two holds -weight exactly, whatever inner returned.
    dtype = jnp.promote_types(jnp.result_type(delta), jnp.result_type(weight))
    return jnp.where(survives, delta.astype(dtype), -jnp.asarray(weight, dtype))


def _zero_moments(inner: optax.GradientTransformation, state: Any, params: PyTree, survivors: Sequence[Any]) -> Any:
    """Zero the moments, traces and accumulators of weights that did not survive; all else stays."""
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]]
    masks = {p: mask for p, mask in zip(paths, survivors, strict=True) if not is_masked_node(mask)}

    def zero_moment(path: tuple[Any, ...], moment: Any) -> Any:
        # Factored or reshaped statistics (Adafactor, SM3) have no entry for a single weight.
        if path not in masks or jnp.shape(moment) != masks[path].shape:
            return moment
        return jnp.where(masks[path], moment, jnp.zeros_like(moment))

    def zero(moments: PyTree) -> PyTree:
        return jax.tree_util.tree_map_with_path(zero_moment, moments)

    # Each copy of the parameter tree arrives whole: partition cuts subtrees out, SM3 hangs some on leaves.
    return optax.tree_utils.tree_map_params(inner, zero, state, is_leaf=lambda _: True)
