"""The wrapper: any Optax optimizer, with weights outside a mask kept at exactly zero."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Generator, Sequence
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp
import optax

from sparsejax._checks import fail
from sparsejax._compat import is_concrete, is_traced
from sparsejax._typing import PyTree
from sparsejax.pruning._arithmetic import both, constrain, count, pinned, zeroed
from sparsejax.pruning._axes import WHOLE, over_automatic_axes, shardings_of
from sparsejax.pruning._filters import KERNELS, Predicate, select_leaves
from sparsejax.pruning._inner_errors import naming_inner
from sparsejax.pruning._leaves import Leaves
from sparsejax.pruning._masks import masked_leaves
from sparsejax.pruning._method import Method, Rule, View, as_method, branch
from sparsejax.pruning._state import Change, PackedMask, PrunedState, nodes_of, pack, total, unpack
from sparsejax.pruning.allocation._structures import Structure, unstructured

_UNSTRUCTURED = unstructured()
_INITS: ContextVar[list[tuple[Wrapper, PyTree, PrunedState]] | None] = ContextVar("_INITS", default=None)


@dataclasses.dataclass(frozen=True)
class Wrapper:
    """The two functions behind ``pruned``.

    With ``restarts_apart`` a changed mask leaves the restart of the inner optimizer to the caller.
    """

    inner: optax.GradientTransformationExtraArgs
    method: Method
    where: Predicate
    structure: Structure
    packed: bool
    restarts_apart: bool = False

    def init(self, params: PyTree) -> PrunedState:
        """Return the first state; see ``optax.GradientTransformation``."""
        leaves = select_leaves("pruned.init", self.where, params)
        weights = [jnp.asarray(leaf) for leaf in leaves.prunable]
        _check_leaves(self.structure, leaves.prunable_names, weights)
        ones = [jnp.ones_like(weight, bool) for weight in weights]

        def first(weights: list[Any], ones: list[Any]) -> tuple[list[jax.Array], Any]:
            return self.method.init(View(leaves.prunable_names, weights, ones, 0, (), self.structure, []))

        masks, aux = over_automatic_axes(first, weights, ones, shardings=lambda: (shardings_of(weights), WHOLE))
        state = PrunedState(
            step=jnp.zeros((), jnp.int32),
            mask=self._mask_tree(leaves, masks),
            nnz=leaves.masked_tree([count(mask) for mask in masks]),
            inner=self._first_inner(leaves, params),
            aux=aux,
            change=Change(*(jnp.zeros((), jnp.int32) for _ in Change._fields)),
        )
        if (inits := _INITS.get()) is not None:
            inits.append((self, params, state))
        return state

    def update(
        self, updates: PyTree, state: Any, params: PyTree | None = None, *, refresh: bool | None = None, **extra: Any
    ) -> tuple[PyTree, PrunedState]:
        """Return the updates and the next state; see ``pruned``."""
        leaves, masks = _leaves_of(state, params)
        grads = leaves.beside("pruned.update", "updates", updates, exact=True)
        # Outside jit the two parts are programs that are compiled once; the optimizer runs there as Optax's do.
        is_compiled = is_concrete((leaves.values, grads, state, refresh))
        before, after = self._programs if is_compiled else (self._before, self._after)
        seen_by_inner, aux = before(leaves, masks, grads, state)
        state = state._replace(aux=aux)
        with naming_inner("pruned.update", self.inner):
            proposed, inner_state = self.inner.update(leaves.unflatten(seen_by_inner), state.inner, params, **extra)
        proposed = leaves.beside("pruned.update", "the result of inner.update", proposed)
        refresh = bool(refresh) if is_compiled and refresh is not None else refresh
        deltas, new_state = after(leaves, masks, grads, state, proposed, inner_state, refresh)
        if is_compiled and self.method.restarts(0) is not None and int(new_state.change.step) == int(new_state.step):
            fires = self.method.restarts(int(new_state.step))
            new_state = new_state._replace(inner=self._restarted(leaves, new_state.inner, fires))
        return leaves.unflatten(deltas), new_state

    @functools.cached_property
    def _programs(self) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """The two parts of ``update`` that surround the inner optimizer, compiled.

        Wrappers of one method share them, because ``optax.inject_hyperparams`` makes a wrapper in every step. So the
        inner optimizer is not in them: what the method restarts is restarted after them.
        """
        with contextlib.suppress(TypeError):  # a method that cannot be hashed
            return _shared_programs(self.method, self.structure, self.packed)
        return _compiled(self)

    def _before(
        self, leaves: Leaves, masks: list[jax.Array], grads: list[Any], state: PrunedState
    ) -> tuple[list[Any], PyTree]:
        """Return the gradients that the inner optimizer is to see, and the new state of the method."""

        def before(leaves: Leaves, masks: list[jax.Array], grads: list[Any], state: PrunedState) -> Any:
            old = self._view(leaves, masks, state, leaves.short(grads))
            aux = self.method.observe(old)
            return leaves.spread(self.method.gradients(old._replace(aux=aux)), grads), aux

        like = (grads, state.aux)
        return over_automatic_axes(before, leaves, masks, grads, state, shardings=lambda: shardings_of(like))

    def _after(
        self,
        leaves: Leaves,
        masks: list[jax.Array],
        grads: list[Any],
        state: PrunedState,
        proposed: list[Any],
        inner_state: Any,
        refresh: bool | None,
    ) -> tuple[list[Any], PrunedState]:
        """Return the updates and the next state, from what the inner optimizer proposes."""
        after = functools.partial(self._chosen, refresh=refresh)
        like = (list(leaves.values), state._replace(inner=inner_state))
        args = (leaves, masks, grads, state, proposed, inner_state)
        return over_automatic_axes(after, *args, shardings=lambda: shardings_of(like))

    def _chosen(
        self,
        leaves: Leaves,
        masks: list[jax.Array],
        grads: list[Any],
        state: PrunedState,
        proposed: list[Any],
        inner_state: Any,
        *,
        refresh: bool | None,
    ) -> tuple[list[Any], PrunedState]:
        """Choose the mask and apply it; see ``_after``."""
        old = self._view(leaves, masks, state, leaves.short(grads))
        step = jnp.asarray(optax.safe_increment(state.step))
        fires = self.method.refresh(step) if refresh is None else refresh
        if self.method.skips_inner:
            # Selects, not a branch: the optimizer then rounds as it does in a program without one.
            proposed = [jnp.where(fires, jnp.zeros_like(update), update) for update in proposed]
            inner_state = jax.tree.map(lambda a, b: jnp.where(fires, a, b), state.inner, inner_state)
        deltas = pinned(proposed, leaves.values)
        candidates: Any = optax.apply_updates(old.weights, leaves.short(deltas))
        state = state._replace(step=step, inner=inner_state)

        def refreshed() -> PrunedState:
            seen = old._replace(weights=candidates, step=step)
            new_masks, aux = self.method.update(seen)
            return self._changed(state, leaves, seen, new_masks, aux)

        new_state = branch(fires, refreshed, lambda: state)
        changed = self._constrained(old, _masks_of(new_state, leaves), leaves.short(deltas))
        return leaves.spread(changed, deltas), new_state

    def impose(
        self, state: PrunedState, params: PyTree, masks: dict[str, Any], deltas: dict[str, Any]
    ) -> tuple[dict[str, jax.Array], PrunedState]:
        """Put masks in force, and nothing else; see ``prune``.

        Args:
          state: state of this wrapper.
          params: the parameters that this wrapper sees.
          masks: a mask for each of its prunable leaves, by name.
          deltas: what to add to the weights that stay, by name.

        Returns:
          The new weights of its prunable leaves by name, and the new state.
        """
        leaves, old_masks = _leaves_of(state, params, "prune")
        new_masks = [_checked_mask(name, masks.get(name), weight) for name, weight in leaves.prunable_items]
        zeros = [jnp.zeros_like(weight) for weight in leaves.prunable]
        added = [deltas.get(name, zero) for name, zero in zip(leaves.prunable_names, zeros, strict=True)]

        def imposed(leaves: Leaves, old_masks: Any, state: PrunedState, new_masks: Any, added: Any) -> Any:
            old = self._view(leaves, old_masks, state, [])
            new_state = self._changed(state, leaves, old, new_masks, state.aux)
            weights: Any = optax.apply_updates(old.weights, self._constrained(old, new_masks, added))
            return dict(zip(leaves.prunable_names, weights, strict=True)), new_state

        like = (dict(leaves.prunable_items), state)
        args = (leaves, old_masks, state, new_masks, added)
        return over_automatic_axes(imposed, *args, shardings=lambda: shardings_of(like))

    def _first_inner(self, leaves: Leaves, params: PyTree) -> Any:
        """Return the first state of the inner optimizer; refuse one without moments of single weights."""
        with naming_inner("pruned.init", self.inner):
            state = self.inner.init(params)
        if nodes_of(state, optax.LookaheadState):
            rule = "an optimizer of one tree of parameters"
            fail("pruned.init", "inner", "optax.lookahead, which trains two copies of the parameters", rule)
        others = jax.tree.leaves(leaves.map_copies(lambda node, part: None, leaves.names, state))
        size = sum(jnp.size(leaf) for leaf in leaves.values)
        flat = [part for part in others if jnp.issubdtype(jnp.result_type(part), jnp.floating)]
        if size > 1 and any(jnp.shape(part) == (size,) for part in flat):
            got = "a state with all parameters in one vector, as optax.flatten makes it"
            fail("pruned.init", "inner", got, "a state with the shapes of the parameters")
        return state

    def _view(self, leaves: Leaves, masks: list[jax.Array], state: PrunedState, grads: list[Any]) -> View:
        """Return the method's view before the step."""
        return View(leaves.prunable_names, leaves.prunable, masks, state.step, state.aux, self.structure, grads)

    def _changed(self, state: PrunedState, leaves: Leaves, seen: View, masks: list[jax.Array], aux: Any) -> PrunedState:
        """Return the state with new masks, and moments as they follow."""
        counts = [count(mask) for mask in masks]
        stayed = total([count(mask) for mask in both(seen.masks, masks)])
        inner = state.inner
        if self.method.reset == "dropped":
            trained = both(self.method.trained(seen), self.method.trained(seen._replace(masks=masks, aux=aux)))
            inner = leaves.map_copies(zeroed, leaves.spread(trained), inner)
        if not self.restarts_apart:
            inner = self._restarted(leaves, inner, self.method.restarts(state.step))
        return PrunedState(
            step=state.step,
            mask=self._mask_tree(leaves, masks),
            nnz=leaves.masked_tree(counts),
            inner=inner,
            aux=aux,
            change=Change(state.step, dropped=total(state.nnz) - stayed, grown=total(counts) - stayed),
        )

    def _restarted(self, leaves: Leaves, inner: Any, fires: Any) -> Any:
        """Return the inner state, moments as at the start if ``fires``; counters, schedules, hyperparameters go on."""

        def restart() -> Any:
            first = self.inner.init(leaves.unflatten(leaves.values))
            same = lambda _, old, new: jnp.asarray(new, jnp.result_type(old))  # noqa: E731
            return leaves.map_copies(same, leaves.values, inner, first)

        return inner if fires is None else branch(fires, restart, lambda: inner)

    def _constrained(self, old: View, masks: list[jax.Array], deltas: list[Any]) -> list[jax.Array]:
        """Return the updates of the prunable leaves that leave the right weights at zero."""
        if self.method.outside == "train":
            return deltas
        if self.method.outside == "keep":
            pairs = zip(self.method.trained(old), deltas, strict=True)
            return [jnp.where(trains, delta, jnp.zeros_like(delta)) for trains, delta in pairs]
        # Survivors, not the new mask: a grown weight enters at 0, whatever inner still keeps for it.
        stays = masks if self.method.enters == "candidate" else both(old.masks, masks)
        return [constrain(*args) for args in zip(stays, deltas, old.weights, strict=True)]

    def _mask_tree(self, leaves: Leaves, masks: list[jax.Array]) -> PyTree:
        return leaves.masked_tree([pack(mask) for mask in masks] if self.packed else masks)


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
      TypeError: an argument is of another kind.
      ValueError: from ``init`` and ``update``, if ``where`` selects nothing, parameters are missing, parameters and
        state do not match, or ``inner`` keeps all parameters in one vector (``optax.flatten``) or two copies of
        them (``optax.lookahead``). An error of an inner transform has a note that names it.

    Cost: three elementwise passes over the prunable weights per step; a selection at refreshes only, under
    ``lax.cond`` (which ``vmap`` turns into always). The whole schedule is one compilation, under ``jit`` as part of the
    step, outside it at the first update.
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
    wrapper = Wrapper(optax.with_extra_args_support(inner), method, where, structure, packed)
    return optax.GradientTransformationExtraArgs(wrapper.init, wrapper.update)


@functools.lru_cache(maxsize=64)
def _shared_programs(
    method: Method, structure: Structure, packed: bool
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    return _compiled(Wrapper(optax.with_extra_args_support(optax.identity()), method, KERNELS, structure, packed))


def _compiled(wrapper: Wrapper) -> tuple[Callable[..., Any], Callable[..., Any]]:
    apart = dataclasses.replace(wrapper, restarts_apart=True)
    return jax.jit(apart._before), jax.jit(apart._after, static_argnums=6)


@contextlib.contextmanager
def recorded_inits() -> Generator[list[tuple[Wrapper, PyTree, PrunedState]]]:
    """Collect every wrapper whose ``init`` is called inside, with the parameters that it saw and its state."""
    inits: list[tuple[Wrapper, PyTree, PrunedState]] = []
    token = _INITS.set(inits)
    try:
        yield inits
    finally:
        _INITS.reset(token)


def _check_arguments(inner: Any, method: Any, where: Any, structure: Any) -> None:
    for operand, value, needed, rule in (
        ("inner", inner, ("init", "update"), "an optax.GradientTransformation such as optax.adam(1e-3)"),
        ("method", method, ("init", "refresh", "update", "observe"), "a method such as one_shot(0.9)"),
        ("structure", structure, ("grid", "to_units"), "a structure such as unstructured()"),
        ("where", where, ("__call__",), "a filter such as is_kernel(), or a function of (path, leaf)"),
    ):
        if isinstance(value, type) or not all(hasattr(value, name) for name in needed):
            fail("pruned", operand, f"type {type(value).__name__}", rule, error=TypeError)


def _check_leaves(structure: Structure, names: Sequence[str], weights: Sequence[jax.Array]) -> None:
    for name, weight in zip(names, weights, strict=True):
        structure.grid(name, weight.shape)
        if not is_traced(weight) and not isinstance(weight, jax.ShapeDtypeStruct) and bool(jnp.isnan(weight).any()):
            fail("pruned.init", f"leaf {name!r}", "NaN among its weights", "numbers, which can be ranked")


def _leaves_of(
    state: PrunedState, params: PyTree | None, function: str = "pruned.update"
) -> tuple[Leaves, list[jax.Array]]:
    """Return the leaves of ``params``, those with a mask as the prunable ones, and these masks."""
    if params is None:
        fail(function, "params", "value None", "the parameters", "Call tx.update(grads, state, params).")
    leaves, nodes = masked_leaves(function, params, state.mask, "state.mask", exact=True)
    masks = [unpack(node) for node in nodes]
    for mask, weight in zip(masks, leaves.prunable, strict=True):
        if mask.shape != jnp.shape(weight):
            got, expected = f"shape {mask.shape}", f"the shape of its parameter, {jnp.shape(weight)}"
            hint = "Does the optimizer state belong to another model?"
            fail(function, "a leaf of state.mask", got, expected, hint)
    return leaves, masks


def _masks_of(state: PrunedState, leaves: Leaves) -> list[jax.Array]:
    return [unpack(node) for node in leaves.short(leaves.beside("pruned.update", "state.mask", state.mask))]


def _checked_mask(name: str, mask: Any, weight: jax.Array) -> jax.Array:
    if mask is None:
        fail("prune", "mask", f"no entry for {name!r}", "one for every prunable leaf")
    mask = unpack(mask) if isinstance(mask, PackedMask) else jnp.asarray(mask)
    if mask.dtype != jnp.bool_ or mask.shape != jnp.shape(weight):
        got = f"dtype {mask.dtype} and shape {mask.shape}"
        fail("prune", f"mask[{name!r}]", got, f"bool, True keeps the weight, and the weight's shape {weight.shape}")
    return mask
