"""The wrapper: any Optax optimizer, with weights outside a mask kept at exactly zero."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from sparsejax._checks import fail
from sparsejax._compat import is_traced
from sparsejax.pruning._filters import KERNELS, Predicate, selected
from sparsejax.pruning._leaves import PyTree, flatten_like, is_masked_node, leaf_names, only, spread
from sparsejax.pruning._method import Method, Rule, View, as_method
from sparsejax.pruning._state import Change, PrunedState, pack, total, unpack
from sparsejax.pruning.allocation._structures import Structure, unstructured

_UNSTRUCTURED = unstructured()


@dataclass(frozen=True)
class _Wrapper:
    """The two functions behind ``pruned``."""

    inner: optax.GradientTransformationExtraArgs
    method: Method
    where: Predicate
    structure: Structure
    packed: bool

    def init(self, params: PyTree) -> PrunedState:
        leaves, treedef = jax.tree.flatten(params)
        chosen = selected("pruned.init", self.where, params)
        weights = [jnp.asarray(leaf) for leaf in only(chosen, leaves)]
        names = only(chosen, leaf_names(params))
        _check_leaves(self.structure, names, weights)
        ones = [jnp.ones_like(weight, bool) for weight in weights]
        masks, aux = self.method.init(View(names, weights, ones, 0, (), self.structure, []))
        return PrunedState(
            step=jnp.zeros((), jnp.int32),
            mask=self._tree(treedef, chosen, masks),
            nnz=jax.tree.unflatten(treedef, spread(chosen, [_count(mask) for mask in masks])),
            inner=self.inner.init(params),
            aux=aux,
            change=Change(*(jnp.zeros((), jnp.int32) for _ in Change._fields)),
        )

    def update(
        self,
        updates: PyTree,
        state: Any,
        params: PyTree | None = None,
        *,
        refresh: bool | None = None,
        mask: PyTree | None = None,
        compensation: PyTree | None = None,
        **extra: Any,
    ) -> tuple[PyTree, PrunedState]:
        old = self._view(state, params, updates)
        if mask is not None:
            return self._given(old, state, params, mask, compensation)
        old = old._replace(aux=self.method.observe(old))
        state = state._replace(aux=old.aux)
        chosen, treedef = _chosen(state, params), jax.tree.structure(params)
        grads = _replace(chosen, jax.tree.leaves(updates), self.method.gradients(old))
        proposed, inner_state = self.inner.update(jax.tree.unflatten(treedef, grads), state.inner, params, **extra)

        step = jnp.asarray(optax.safe_increment(state.step))
        fires = self.method.refresh(step) if refresh is None else refresh
        if self.method.skips_inner:
            # Selects, not a branch: the optimizer then rounds as it does in a program without one.
            proposed = jax.tree.map(lambda u: jnp.where(fires, jnp.zeros_like(u), u), proposed)
            inner_state = jax.tree.map(lambda a, b: jnp.where(fires, a, b), state.inner, inner_state)
        deltas = pinned(flatten_like("pruned.update", "the result of inner.update", proposed, params), params)
        candidates: Any = optax.apply_updates(old.weights, only(chosen, deltas))
        state = state._replace(step=step, inner=inner_state)

        def refreshed() -> PrunedState:
            seen = old._replace(weights=candidates, step=step)
            masks, aux = self.method.update(seen)
            return self._changed(state, params, seen, masks, aux)

        # A Python bool takes one branch while tracing; a traced one is a branch of the program.
        new_state = _branch(fires, refreshed, lambda: state)
        changed = self._constrained(old, _masks_of(new_state, params), only(chosen, deltas))
        return jax.tree.unflatten(treedef, _replace(chosen, deltas, changed)), new_state

    def _view(self, state: Any, params: PyTree | None, updates: PyTree) -> View:
        """What the method sees before the step."""
        masks, chosen = _masks_of(state, params), _chosen(state, params)
        grads = only(chosen, flatten_like("pruned.update", "updates", updates, params))
        names, weights = only(chosen, leaf_names(params)), only(chosen, jax.tree.leaves(params))
        return View(names, weights, masks, state.step, state.aux, self.structure, grads)

    def _given(
        self, old: View, state: PrunedState, params: PyTree, mask: PyTree, compensation: PyTree | None
    ) -> tuple[PyTree, PrunedState]:
        """Put a given mask in force, and nothing else: see ``prune``."""
        chosen, treedef = _chosen(state, params), jax.tree.structure(params)
        masks = [unpack(node) for node in only(chosen, flatten_like("prune", "mask", mask, params))]
        zeros = [jnp.zeros_like(leaf) for leaf in jax.tree.leaves(params)]
        deltas = zeros if compensation is None else flatten_like("prune", "compensation", compensation, params)
        new_state = self._changed(state, params, old, masks, state.aux)
        changed = self._constrained(old, masks, only(chosen, deltas))
        return jax.tree.unflatten(treedef, _replace(chosen, zeros, changed)), new_state

    def _changed(self, state: PrunedState, params: PyTree, seen: View, masks: list[jax.Array], aux: Any) -> PrunedState:
        """Return the state with new masks, and moments as they follow."""
        chosen, treedef = _chosen(state, params), jax.tree.structure(params)
        counts = [_count(mask) for mask in masks]
        stayed = total([_count(mask) for mask in _both(seen.masks, masks)])
        inner = state.inner
        if self.method.reset == "dropped":
            trained = _both(self.method.trained(seen), self.method.trained(seen._replace(masks=masks, aux=aux)))
            inner = zero_moments(self.inner, inner, params, spread(chosen, trained))
        restarts = self.method.restarts(state.step)
        if restarts is not None:
            inner = restart_moments(self.inner, inner, params, restarts)
        return PrunedState(
            step=state.step,
            mask=self._tree(treedef, chosen, masks),
            nnz=jax.tree.unflatten(treedef, spread(chosen, counts)),
            inner=inner,
            aux=aux,
            change=Change(state.step, dropped=total(state.nnz) - stayed, grown=total(counts) - stayed),
        )

    def _constrained(self, old: View, masks: list[jax.Array], deltas: list[Any]) -> list[jax.Array]:
        """Return the updates of the prunable leaves that leave the right weights at zero."""
        if self.method.outside == "train":
            return deltas
        if self.method.outside == "keep":
            pairs = zip(self.method.trained(old), deltas, strict=True)
            return [jnp.where(trains, delta, jnp.zeros_like(delta)) for trains, delta in pairs]
        # Survivors, not the new mask: a grown weight enters at 0, whatever inner still holds for it.
        stays = masks if self.method.enters == "candidate" else _both(old.masks, masks)
        return [_constrain(*args) for args in zip(stays, deltas, old.weights, strict=True)]

    def _tree(self, treedef: Any, chosen: Sequence[bool], masks: list[jax.Array]) -> PyTree:
        stored = [pack(mask) for mask in masks] if self.packed else masks
        return jax.tree.unflatten(treedef, spread(chosen, stored))


def pruned(
    inner: optax.GradientTransformation,
    method: Method | Sequence[Rule],
    *,
    where: Predicate = KERNELS,
    structure: Structure = _UNSTRUCTURED,
    packed: bool = False,
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
      method: when and how the mask is chosen: ``magnitude``, ``acdc``, ``rigl``, ``fixed``, ...; or a list of rules
        ``(where, method, structure)``, of which the first that matches a leaf decides. A leaf that ``where`` selects
        and no rule matches is an error.
      where: which leaves may be pruned: a filter, or any function of (path, leaf).
      structure: which shapes the kept weights may take.
      packed: store masks as bits, an eighth of the memory; they are unpacked in every step.

    Returns:
      ``optax.GradientTransformationExtraArgs`` with state ``PrunedState``. ``update`` needs ``params``. It also takes
      ``refresh``, a Python bool that replaces the method's own decision whether the mask changes in this step: a host
      loop that passes ``bool(method.refresh(step + 1))`` compiles two programs without a branch (under ``vmap`` a
      branch would run always), and ends with the same bits.

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
    method, where = as_method(method, where)
    _check_arguments(inner, method, where, structure)
    wrapper = _Wrapper(optax.with_extra_args_support(inner), method, where, structure, packed)
    return optax.GradientTransformationExtraArgs(wrapper.init, wrapper.update)


def _branch(fires: Any, yes: Callable[[], Any], no: Callable[[], Any]) -> Any:
    if isinstance(fires, bool):
        return yes() if fires else no()
    return lax.cond(fires, yes, no)


def _check_arguments(inner: Any, method: Any, where: Any, structure: Any) -> None:
    for operand, value, needed, rule in (
        ("inner", inner, ("init", "update"), "an optax.GradientTransformation such as optax.adam(1e-3)"),
        ("method", method, ("init", "refresh", "update", "observe"), "a method such as one_shot(0.9)"),
        ("structure", structure, ("grid", "to_units"), "a structure such as unstructured()"),
        ("where", where, ("__call__",), "a filter such as kernels(), or a function of (path, leaf)"),
    ):
        if isinstance(value, type) or not all(hasattr(value, name) for name in needed):
            fail("pruned", operand, f"type {type(value).__name__}", rule, error=TypeError)


def _check_leaves(structure: Structure, names: Sequence[str], weights: Sequence[jax.Array]) -> None:
    for name, weight in zip(names, weights, strict=True):
        structure.grid(name, weight.shape)
        if not is_traced(weight) and not isinstance(weight, jax.ShapeDtypeStruct) and bool(jnp.isnan(weight).any()):
            fail("pruned.init", f"leaf {name!r}", "NaN among its weights", "numbers, which can be ranked")


def _chosen(state: PrunedState, params: PyTree | None) -> list[bool]:
    """Return which leaves of ``params`` are prunable."""
    if params is None:
        fail("pruned.update", "params", "value None", "the parameters", "Call tx.update(grads, state, params).")
    nodes = flatten_like("pruned.update", "state.mask", state.mask, params)
    return [not is_masked_node(node) for node in nodes]


def _masks_of(state: PrunedState, params: PyTree | None) -> list[jax.Array]:
    """Return the masks of the prunable leaves."""
    chosen = _chosen(state, params)
    nodes = flatten_like("pruned.update", "state.mask", state.mask, params)
    masks = [unpack(node) for node in only(chosen, nodes)]
    for mask, weight in zip(masks, only(chosen, jax.tree.leaves(params)), strict=True):
        if mask.shape != jnp.shape(weight):
            fail(
                "pruned.update",
                "a leaf of state.mask",
                f"shape {mask.shape}",
                f"the shape of its parameter, {jnp.shape(weight)}",
                "Does the optimizer state belong to another model?",
            )
    return masks


def _replace(chosen: Sequence[bool], leaves: Sequence[Any], values: Sequence[Any]) -> list[Any]:
    """Return ``leaves`` with ``values``, in order, where ``chosen`` is True."""
    rest = iter(values)
    return [next(rest) if is_chosen else leaf for is_chosen, leaf in zip(chosen, leaves, strict=True)]


def _count(mask: jax.Array) -> jax.Array:
    return jnp.sum(mask, dtype=jnp.int32)


def _both(old: Sequence[jax.Array], new: Sequence[jax.Array]) -> list[jax.Array]:
    return [before & after for before, after in zip(old, new, strict=True)]


def _constrain(survives: jax.Array, delta: jax.Array, weight: jax.Array) -> jax.Array:
    # The wider dtype of the two holds -weight exactly, whatever inner returned.
    dtype = jnp.promote_types(jnp.result_type(delta), jnp.result_type(weight))
    return jnp.where(survives, delta.astype(dtype), -jnp.asarray(weight, dtype))


def zero_moments(inner: optax.GradientTransformation, state: Any, params: PyTree, keep: Sequence[Any]) -> Any:
    """Zero the moments, traces and accumulators of weights outside ``keep``; all else stays.

    Args:
      inner: the optimizer.
      state: its state.
      params: parameters.
      keep: bool array for each leaf of ``params``, or ``optax.MaskedNode()``.
    """
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]]
    masks = {p: mask for p, mask in zip(paths, keep, strict=True) if not is_masked_node(mask)}

    def zero_moment(path: tuple[Any, ...], moment: Any) -> Any:
        # Factored or reshaped statistics (Adafactor, SM3) have no entry for a single weight.
        if path not in masks or jnp.shape(moment) != masks[path].shape:
            return moment
        return jnp.where(masks[path], moment, jnp.zeros_like(moment))

    def zero(moments: PyTree) -> PyTree:
        return jax.tree_util.tree_map_with_path(zero_moment, moments)

    # Each copy of the parameter tree arrives whole: partition cuts subtrees out, SM3 hangs some on leaves.
    return optax.tree_utils.tree_map_params(inner, zero, state, is_leaf=lambda _: True)


def restart_moments(inner: optax.GradientTransformation, state: Any, params: PyTree, restarts: Any) -> Any:
    """Set all that is kept per parameter, of every parameter, to its first value where ``restarts`` is True.

    Counters, schedules and injected hyperparameters go on.
    """
    per_parameter = optax.tree_utils.tree_map_params(
        inner,
        lambda moments: jax.tree.map(lambda _: True, moments),
        state,
        transform_non_params=lambda _: False,
        is_leaf=lambda _: True,
    )
    return jax.tree.map(
        lambda is_moment, old, first: jnp.where(restarts, first, old) if is_moment else old,
        per_parameter,
        state,
        inner.init(params),
    )


def pinned(updates: Sequence[Any], params: PyTree) -> list[Any]:
    """Return the updates as they are, in a form that the compiler cannot contract.

    An optimizer ends in a product, ``apply_updates`` is a sum, and a compiler may make the two one operation that
    rounds once; whether it does depends on what surrounds them. A select in between rounds the product in every
    program, so that masks, packed masks and stored values, loops and scans end with the same bits.
    """
    pairs = zip(updates, jax.tree.leaves(params), strict=True)
    return [jnp.where(weight == weight, update, jnp.zeros_like(update)) for update, weight in pairs]
