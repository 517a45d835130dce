"""What is done to parameters outside the optimizer step: masks applied or imposed, statistics estimated again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jax import lax

from sparsejax._checks import fail
from sparsejax._typing import PyTree
from sparsejax.pruning._leaves import Leaves, filled, is_masked_node, known_names, unboxed
from sparsejax.pruning._masks import apply_mask, masked_leaves
from sparsejax.pruning._state import PrunedState, get_mask, nodes_of, pruned_states
from sparsejax.pruning._wrapper import Wrapper, recorded_inits

Transformation: TypeAlias = optax.GradientTransformation | optax.MultiSteps

_FAR = 1024.0  # larger than statistics are, and half precision can hold it


def init(tx: Transformation, params: PyTree) -> tuple[PyTree, PyTree]:
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
      ValueError: ``tx`` contains no ``pruned``, or it is inside ``optax.lookahead``.
      TypeError: ``tx`` is not an Optax transformation.

    Source: the convention of all methods with a mask at initialisation (Evci et al. 2020, "RigL", section 3).

    >>> from sparsejax.pruning import one_shot, pruned
    >>> params, state = init(pruned(optax.sgd(0.1), one_shot(0.5)), {"kernel": jnp.array([[1.0, -2.0]])})
    >>> params
    {'kernel': Array([[ 0., -2.]], dtype=float32)}
    """
    _check_transformation("init", tx)
    state = tx.init(params)
    return apply_mask("init", params, get_mask(state)), state


def forward_params(params: PyTree, opt_state: PyTree) -> PyTree:
    """Return the parameters for the forward pass.

    w * mask

    The identity for methods that keep pruned weights at zero. Straight-through methods, Top-KAST and movement pruning
    store other weights than they use: differentiate ``loss(forward_params(params, opt_state))``. The gradient with
    respect to ``params`` is straight-through: the dense gradient at the masked point. Also masks parameters again that
    something else wrote (an average of weights, a loaded checkpoint).

    Args:
      params: parameters; of an NNX model ``nnx.state(model)`` or ``nnx.state(model, nnx.Param)``.
      opt_state: optimizer state that contains one of ``pruned``; of an ``nnx.Optimizer`` its ``opt_state``.

    Returns:
      Parameters, exactly 0 outside the mask.

    Raises:
      ValueError: there is no such state.

    Source: Jayakumar et al. 2020, "Top-KAST", section 2; Wortsman et al. 2019, "Discovering neural wirings".

    >>> from sparsejax.pruning import pruned, straight_through
    >>> params = {"kernel": jnp.array([[1.0, -2.0]])}
    >>> state = pruned(optax.sgd(0.1), straight_through(0.5)).init(params)
    >>> forward_params(params, state)
    {'kernel': Array([[ 0., -2.]], dtype=float32)}
    """
    leaves, masks = masked_leaves("forward_params", params, get_mask(opt_state), "the mask in opt_state")

    def used(weight: jax.Array, keep: jax.Array) -> jax.Array:
        # w + (w * mask - w) is w or exactly 0, and the derivative with respect to w is 1 everywhere.
        return weight + lax.stop_gradient(jnp.where(keep, weight, jnp.zeros_like(weight)) - weight)

    return leaves.replaced([used(*pair) for pair in zip(leaves.prunable, masks, strict=True)])


def prune(
    tx: Transformation,
    params: PyTree,
    opt_state: PyTree,
    mask: PyTree,
    compensation: PyTree | None = None,
) -> tuple[PyTree, PyTree]:
    """Impose a mask that was made outside the optimizer, in the middle of a run.

    w <- (w + compensation) * mask;  moments of dropped weights <- 0;  grown weights enter at 0

    For masks from scores over data (``mask_from_scores``), with the compensation of second-order methods. The method
    of ``tx`` goes on from there; with ``fixed`` or ``external`` the mask then stays.

    Args:
      tx: optimizer that contains ``pruned``, also inside ``MultiSteps``, ``partition`` and the like.
      params: parameters; of an NNX model ``nnx.state(model)`` or ``nnx.state(model, nnx.Param)``.
      opt_state: its state; of an ``nnx.Optimizer`` with ``optimizer.tx`` its ``opt_state``.
      mask: tree of bool arrays as ``mask_from_scores`` returns it.
      compensation: tree of the amounts to add to the weights that stay; None adds nothing.

    Returns:
      Parameters and optimizer state, in the containers of the arguments. No optimizer step is made or counted, and no
      micro step of ``MultiSteps``.

    Raises:
      ValueError: mask, parameters and state do not match.
      TypeError: ``tx`` is not an Optax transformation.

    Cost: ``tx.init`` runs once, to see which wrapper has which state.

    Source: Singh & Alistarh 2020, "WoodFisher", section 4 (scores and compensation at given epochs).

    >>> from sparsejax.pruning import external, mask_from_scores, pruned
    >>> params = {"kernel": jnp.array([[1.0, -2.0]])}
    >>> tx = pruned(optax.sgd(0.1), external())
    >>> mask = mask_from_scores({"kernel": jnp.array([[2.0, 1.0]])}, 0.5)
    >>> prune(tx, params, tx.init(params), mask)[0]
    {'kernel': Array([[1., 0.]], dtype=float32)}
    """
    _check_transformation("prune", tx)
    leaves, state = Leaves.of(params), unboxed(opt_state)
    masks = _named(leaves, "mask", mask)
    deltas = {} if compensation is None else _named(leaves, "compensation", compensation)
    weights: dict[str, jax.Array] = {}
    changed = []
    for wrapper, seen, old in _wrappers(tx, leaves, state):
        new, new_state = wrapper.impose(old, seen, masks, deltas)
        weights |= new
        changed.append(new_state)
    if unknown := masks.keys() - weights.keys():
        fail("prune", "mask", f"an entry for {min(unknown)!r}", f"entries only for {list(weights)}")
    rest = iter(changed)
    is_state = lambda node: isinstance(node, PrunedState)  # noqa: E731
    state = jax.tree.map(lambda node: next(rest) if is_state(node) else node, state, is_leaf=is_state)
    pairs = zip(leaves.names, leaves.values, strict=True)
    params = leaves.unflatten([weights.get(name, leaf) for name, leaf in pairs])
    return params, jax.tree.unflatten(jax.tree.structure(opt_state), jax.tree.leaves(state))


def _named(leaves: Leaves, operand: str, tree: PyTree) -> dict[str, Any]:
    """Return the nodes of a tree by the names of the leaves."""
    pairs = zip(leaves.names, leaves.beside("prune", operand, tree), strict=True)
    return {name: node for name, node in pairs if not is_masked_node(node)}


def _wrappers(tx: Transformation, leaves: Leaves, state: PyTree) -> list[tuple[Wrapper, PyTree, PrunedState]]:
    """Return every ``pruned`` in ``tx`` with the parameters that it sees and its state in ``state``.

    The transforms around them (``MultiSteps``, ``partition``, ...) take no step. They only make a first state, which
    tells by identity where each wrapper keeps its state.
    """
    states = pruned_states("prune", state)
    # A tree of all NNX variables has more leaves than the optimizer was made for.
    known = {name for each in states for name in known_names(leaves, each.mask)}
    optimized = leaves.choose([name in known for name in leaves.names])
    with recorded_inits() as inits:
        first = tx.init(optimized.masked_tree(optimized.prunable))
    wrappers = {id(made): (wrapper, Leaves.of(params).names) for wrapper, params, made in inits}
    made = nodes_of(first, PrunedState)
    if len(made) != len(states) or any(id(each) not in wrappers for each in made):
        fail("prune", "opt_state", f"{len(states)} states of pruned(...)", f"the {len(made)} of tx")
    values = dict(zip(leaves.names, leaves.values, strict=True))
    result = []
    for each, old in zip(made, states, strict=True):
        wrapper, names = wrappers[id(each)]
        result.append((wrapper, filled(old.mask, {name: values[name] for name in names}), old))
    return result


def _check_transformation(function: str, tx: object) -> None:
    if not (hasattr(tx, "init") and hasattr(tx, "update")):
        got, rule = f"type {type(tx).__name__}", "an optax.GradientTransformation"
        fail(function, "tx", got, rule, "For an nnx.Optimizer it is optimizer.tx.", TypeError)


def check(params: PyTree, opt_state: PyTree) -> None:
    """Check that every weight outside the mask is 0; for debugging, outside ``jit``.

    Args:
      params: parameters, after a step; NNX variables as for ``forward_params``.
      opt_state: optimizer state that contains one of ``pruned`` with a method that keeps pruned weights at zero.

    Raises:
      ValueError: some weight outside the mask is not 0: a transform outside ``pruned`` changed its update, or
        something else wrote the parameters.

    Source: the invariant of this package, see ``pruned``.

    >>> from sparsejax.pruning import init, one_shot, pruned
    >>> check(*init(pruned(optax.sgd(0.1), one_shot(0.5)), {"kernel": jnp.ones((2, 2))}))
    """
    leaves, masks = masked_leaves("check", params, get_mask(opt_state), "the mask in opt_state")
    for (name, weight), mask in zip(leaves.prunable_items, masks, strict=True):
        if alive := int(jnp.sum(~mask & (weight != 0))):
            hint = "Transforms that change updates go inside: pruned(optax.chain(...), ...); see forward_params."
            fail("check", f"leaf {name!r}", f"{alive} weights outside the mask that are not 0", "exact zeros", hint)


def recalibrate(update: Callable[[Any, Any], Any], statistics: PyTree, batches: Iterable[Any]) -> PyTree:
    """Replace the running statistics of batch norms by the mean of those of some batches.

    s <- mean over batches b of s_b,  where a forward pass in training mode does s <- r * s + (1 - r) * s_b

    A network pruned without training afterwards, or one whose mask was chosen again after its last step, has running
    statistics of another network: judge its accuracy after this. Not done by any method here, as it is not by the
    authors of AC/DC.

    Args:
      update: ``(statistics, batch) -> statistics``, a forward pass in training mode of the pruned network. Linen:
        ``lambda s, x: model.apply({"params": p, "batch_stats": s}, x, mutable=["batch_stats"])[1]["batch_stats"]``.
      statistics: tree of running means and variances; leaves that are not floating stay as they are.
      batches: what ``update`` takes, a few hundred examples in all; batches count equally.

    Returns:
      Statistics. The decay r of each leaf is estimated by a second pass over the first batch; no setting is needed.

    Raises:
      ValueError: no batch, or a leaf that ``update`` does not change (a forward pass that is not in training mode).

    Source: the authors' code of Peste et al. 2022, "CrAM: a compression-aware minimizer" (1000 samples after one-shot
      pruning).

    >>> def update(s, x):
    ...     return {"mean": 0.75 * s["mean"] + 0.25 * x.mean()}
    >>> float(recalibrate(update, {"mean": jnp.float32(7.0)}, [jnp.array([1.0, 3.0]), jnp.array([6.0])])["mean"])
    4.0
    """
    floating = jax.tree.map(lambda leaf: jnp.issubdtype(jnp.result_type(leaf), jnp.floating), statistics)

    def filled(value: float) -> PyTree:
        return jax.tree.map(lambda leaf, is_one: jnp.full_like(leaf, value) if is_one else leaf, statistics, floating)

    step = jax.jit(update)
    total = share = None
    count = 0
    for batch in batches:
        fresh = step(filled(0.0), batch)
        if share is None:
            # Each leaf is r * s + (1 - r) * s_b: from two s follows r, to the precision of s beside s_b.
            far = step(filled(_FAR), batch)
            share = jax.tree.map(lambda other, zero: 1 - (other - zero) / _FAR, far, fresh)
            _check_shares(share, floating)
        total = fresh if total is None else jax.tree.map(jnp.add, total, fresh)
        count += 1
    if total is None:
        fail("recalibrate", "batches", "no element", "at least one batch")
    return jax.tree.map(
        lambda leaf, is_one, summed, part: (summed / (count * part)).astype(leaf.dtype) if is_one else leaf,
        statistics,
        floating,
        total,
        share,
    )


def _check_shares(share: PyTree, floating: PyTree) -> None:
    pairs = zip(jax.tree.leaves(share), jax.tree.leaves(floating), strict=True)
    if any(is_one and not bool(jnp.all(part > 1e-6)) for part, is_one in pairs):
        fail("recalibrate", "update", "a running statistic that it leaves alone", "a forward pass in training mode")
