"""Fixed masks: train inside a support that never changes, or that only the caller changes."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from sparsejax._checks import fail
from sparsejax._typing import PyTree
from sparsejax.pruning._leaves import Leaves
from sparsejax.pruning._method import Method, View
from sparsejax.pruning.allocation._distributions import as_fraction
from sparsejax.pruning.allocation._scopes import Capacity, Scope, ScopeLike, capacities
from sparsejax.pruning.methods._cadence import Fires, Step
from sparsejax.pruning.methods._exchange import layer_scope, random_masks


@dataclass(frozen=True, eq=False)
class Fixed(Method):
    """The method object behind ``fixed``."""

    mask: PyTree

    def init(self, view: View) -> tuple[list[jax.Array], PyTree]:
        """Return the masks, matched to the prunable leaves by path."""
        masks = self._by_name()
        hint = "Build the mask with mask_from_zeros(params, where=...) and give pruned the same where."
        for name in sorted(masks.keys() - set(view.names)):
            fail("fixed", "mask", f"an entry for {name!r}", f"entries only for {view.names}", hint)
        for name, weight in zip(view.names, view.weights, strict=True):
            if name not in masks:
                fail("fixed", "mask", f"no entry for {name!r}", "one for every prunable leaf", hint)
            _check_mask(name, masks[name], weight)
        return [jnp.asarray(masks[name]) for name in view.names], ()

    def refresh(self, step: Step) -> Fires:
        """Never fire."""
        return step < 0

    def update(self, view: View) -> tuple[list[jax.Array], PyTree]:
        """Keep the mask."""
        return view.masks, view.aux

    def capacity(self, view: View) -> list[Capacity]:
        """Return the number of kept weights."""
        masks = self._by_name()
        return [Capacity("fixed", int(jnp.sum(masks[name]))) for name in view.names]

    def _by_name(self) -> dict[str, jax.Array]:
        leaves = Leaves.of(self.mask)
        return dict(zip(leaves.names, leaves.values, strict=True))


def _check_mask(name: str, mask: ArrayLike, weight: jax.Array) -> None:
    if jnp.result_type(mask) != jnp.bool_:
        fail("fixed", f"mask[{name!r}]", f"dtype {jnp.result_type(mask)}", "bool, True keeps the weight")
    if jnp.shape(mask) != weight.shape:
        fail("fixed", f"mask[{name!r}]", f"shape {jnp.shape(mask)}", f"the weight's, {weight.shape}")


def fixed(mask: PyTree) -> Method:
    """Train inside a mask that never changes: transfer of a sparse model, fine-tuning of a lottery ticket.

    w stays 0 where mask is False, always

    Args:
      mask: tree with the paths of the parameters; for each prunable leaf a bool array of its shape, True
        keeps the weight; ``optax.MaskedNode()`` (or nothing) for all others, as ``mask_from_zeros`` and
        ``get_mask`` return. Containers need not be of the same type as those of the parameters.

    Returns:
      Method for ``pruned``.

    Raises:
      ValueError: when the optimizer state is made, if a prunable leaf has no mask, a mask no prunable leaf,
        or dtype or shape are wrong.

    Source: Iofinova et al. 2022, "How well do sparse ImageNet models transfer?", full fine-tuning.

    >>> import optax
    >>> from sparsejax.pruning import mask_from_zeros, pruned
    >>> params = {"kernel": jnp.array([[0.0, 1.0], [2.0, 0.0]])}
    >>> tx = pruned(optax.sgd(0.5), fixed(mask_from_zeros(params)))
    >>> updates, _ = tx.update({"kernel": jnp.ones((2, 2))}, tx.init(params), params)
    >>> optax.apply_updates(params, updates)["kernel"].tolist()
    [[0.0, 0.5], [1.5, 0.0]]
    """
    return Fixed(mask)


class External(Method):
    """The method object behind ``external``."""

    def init(self, view: View) -> tuple[list[jax.Array], PyTree]:
        """Keep all weights."""
        return view.masks, ()

    def refresh(self, step: Step) -> Fires:
        """Never fire."""
        return step < 0

    def update(self, view: View) -> tuple[list[jax.Array], PyTree]:
        """Keep the mask."""
        return view.masks, view.aux


def external() -> Method:
    """Start dense and change the mask only from outside, by ``prune``.

    Returns:
      Method for ``pruned``.

    Source: masks from scores over data, as in Singh & Alistarh 2020, "WoodFisher".

    >>> external().refresh(7)
    False
    """
    return External()


@dataclass(frozen=True)
class Static(Method):
    """The method object behind ``static``."""

    sparsity: float
    scope: Scope
    seed: int

    def init(self, view: View) -> tuple[list[jax.Array], PyTree]:
        """Draw the masks."""
        return random_masks("static", self.sparsity, self.scope, view, self.seed), ()

    def refresh(self, step: Step) -> Fires:
        """Never fire."""
        return step < 0

    def update(self, view: View) -> tuple[list[jax.Array], PyTree]:
        """Keep the masks."""
        return view.masks, view.aux

    def capacity(self, view: View) -> list[Capacity]:
        """Return the same number for all masks."""
        level = as_fraction("static", "sparsity", self.sparsity)
        return capacities("static", self.scope, view, level, "fixed")


def static(sparsity: float, *, scope: ScopeLike = "erk", seed: int = 0) -> Method:
    """Train inside a random mask that never changes: the baseline of all sparse training.

    mask = k random weights of each layer, at all steps

    Args:
      sparsity: fraction of zeros, in [0, 1).
      scope: how it is shared: ``"erk"``, ``"er"``, ``"layer"`` or ``per_layer(...)``.
      seed: of the masks.

    Returns:
      Method for ``pruned``. Use ``init`` to start.

    Raises:
      ValueError: a value out of range.

    Source: Evci et al. 2020, "RigL", section 4 (static); initial weights: see ``rescale_by_density``.

    >>> import optax
    >>> from sparsejax.pruning import metrics, pruned
    >>> state = pruned(optax.sgd(0.1), static(0.75)).init({"kernel": jnp.ones((4, 4))})
    >>> int(metrics(state)["nnz"])
    4
    """
    as_fraction("static", "sparsity", sparsity)
    return Static(float(sparsity), layer_scope("static", scope), seed)
