"""Sparse from the first step, with a fixed number of weights that move: SET, RigL, MEST."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from sparsejax._checks import check_weight, fail
from sparsejax._surface import former_arguments
from sparsejax._typing import PyTree
from sparsejax.pruning._method import Method, View
from sparsejax.pruning.allocation._distributions import as_fraction
from sparsejax.pruning.allocation._scopes import ScopeLike
from sparsejax.pruning.methods._cadence import cadence
from sparsejax.pruning.methods._exchange import (
    Exchange,
    as_drop,
    exchange,
    gradient_magnitudes,
    layer_scope,
    magnitudes,
    random_scores,
    unit_counts,
)
from sparsejax.pruning.schedules import Schedule, constant, cosine_drop

_FORMER = "sparsejax.pruning.methods._deprecated"


class SET(Exchange):
    """The method object behind ``sparse_evolutionary_training``."""

    name = "sparse_evolutionary_training"

    def scores(self, view: View) -> tuple[list[jax.Array], list[jax.Array]]:
        """Keep large weights, grow random ones."""
        return magnitudes(view), random_scores(view, self.seed, view.step)


@former_arguments("every", "end", use="update_every, start, stop", former=f"{_FORMER}.sparse_evolutionary_training")
def sparse_evolutionary_training(
    sparsity: float,
    *,
    update_every: int,
    start: int = 0,
    stop: int,
    drop: Schedule | float = 0.3,
    scope: ScopeLike = "erk",
    seed: int = 0,
) -> Method:
    """Drop the smallest weights and grow random ones (SET, sparse evolutionary training).

    at each update, in each layer:  drop floor(f * k) kept weights of smallest |w|, grow as many at random, at 0

    A weight just dropped may be drawn again; it then keeps its value. (The original drops the smallest positive and
    the largest negative weights, each a fraction of its own sign.)

    Args:
      sparsity: fraction of zeros, in [0, 1).
      update_every: period in steps; published: an epoch.
      start: first update. The mask at step 0 is random in any case.
      stop: last update, at least 1.
      drop: fraction f of the kept weights that is replaced, a number in (0, 1] or a schedule; published 0.3.
      scope: as for ``static``; published: Erdos-Renyi.
      seed: of masks and growth.

    Returns:
      Method for ``pruned``; use ``init`` to start. The number of kept weights of each layer never changes.

    Raises:
      ValueError: a value out of range.

    Source: Mocanu et al. 2018, "Scalable training of artificial neural networks with adaptive sparse connectivity
      inspired by network science" (SET), algorithm 1.

    >>> method = sparse_evolutionary_training(0.9, update_every=100, stop=900)
    >>> method.refresh(100), method.refresh(1000)
    (True, False)
    """
    function = "sparse_evolutionary_training"
    as_fraction(function, "sparsity", sparsity)
    steps = cadence(function, update_every, start, stop, first=1)
    return SET(float(sparsity), layer_scope(function, scope), steps, as_drop(function, drop), seed)


@dataclass(frozen=True)
class RigL(Exchange):
    """The method object behind ``rigl``."""

    name = "rigl"
    skips_inner = True

    grow_grad_steps: int
    drop_noise: float

    def first_aux(self, view: View) -> PyTree:
        """Return sums of gradients, if more than one step's are used."""
        if self.grow_grad_steps == 1:
            return ()
        return [jnp.zeros(shape, jnp.float32) for shape in view.shapes]

    def observe(self, view: View) -> PyTree:
        """Add up the gradients of the last steps before an update."""
        if self.grow_grad_steps == 1:
            return ()
        left = self.cadence.until_next(jnp.asarray(view.step) + 1)
        goes_on = (left < self.grow_grad_steps - 1) & ~jnp.asarray(self.cadence(view.step))
        counts = left < self.grow_grad_steps
        pairs = zip(view.aux, view.grads, strict=True)
        return [jnp.where(goes_on, total, 0) + jnp.where(counts, grad, 0) for total, grad in pairs]

    def scores(self, view: View) -> tuple[list[jax.Array], list[jax.Array]]:
        """Keep large weights, grow those of large gradient."""
        sizes = magnitudes(view)
        if self.drop_noise:
            key = jax.random.fold_in(jax.random.key(self.seed), view.step)
            keys = jax.random.split(key, len(sizes))
            sizes = [s + self.drop_noise * jax.random.normal(k, s.shape) for s, k in zip(sizes, keys, strict=True)]
        return sizes, gradient_magnitudes(view.grads if self.grow_grad_steps == 1 else view.aux)


@former_arguments("every", "end", use="update_every, start, stop", former=f"{_FORMER}.rigl")
def rigl(
    sparsity: float,
    *,
    update_every: int = 100,
    start: int = 0,
    stop: int,
    drop: Schedule | float | None = None,
    scope: ScopeLike = "erk",
    seed: int = 0,
    grow_grad_steps: int = 1,
    drop_noise: float = 0.0,
) -> Method:
    """Drop the smallest weights and grow those of the largest gradient (RigL).

    at each update t, in each layer:  drop floor(f(t) * k) kept weights of smallest |w|; grow as many of largest |g|
    among the rest, at 0, with moments 0;  f(t) = 0.15 * (1 + cos(pi * t / (stop + update_every)))

    g is the dense gradient of that step, at the masked weights; the step makes no optimizer step. A weight just
    dropped may return, with value and moments. With ``row_balanced()`` as structure every unit keeps its fan-in (SRigL
    without neuron ablation).

    Args:
      sparsity: fraction of zeros, in [0, 1).
      update_every: period in steps; published 100.
      start: first update. The mask at step 0 is random in any case.
      stop: last update, at least 1; published: the last one before 75 % of training.
      drop: fraction of the kept weights that is replaced, a number in (0, 1] or a schedule; None is the published
        cosine from 0.3, ``cosine_drop(0.3, stop + update_every)``: it is 0 where the next update would be.
      scope: as for ``static``; published: ERK and uniform.
      seed: of the first masks.
      grow_grad_steps: steps before an update whose gradients are averaged; helps with small batches.
      drop_noise: standard deviation of noise on |w| when dropping; the authors' code has 1e-5, against ties.

    Returns:
      Method for ``pruned``; use ``init`` to start. The number of kept weights of each layer never changes.

    Raises:
      ValueError: a value out of range.

    Source: Evci et al. 2020, "Rigging the lottery: making all tickets winners", section 3 and algorithm 1.

    >>> method = rigl(0.9, stop=900)
    >>> method.refresh(900), method.refresh(1000)
    (True, False)
    """
    as_fraction("rigl", "sparsity", sparsity)
    steps = cadence("rigl", update_every, start, stop, first=1)
    if not 1 <= grow_grad_steps <= update_every:
        fail("rigl", "grow_grad_steps", f"value {grow_grad_steps}", f"1 to update_every = {update_every}")
    fraction = cosine_drop(0.3, stop + update_every) if drop is None else as_drop("rigl", drop)
    scope_ = layer_scope("rigl", scope)
    return RigL(float(sparsity), scope_, steps, fraction, seed, grow_grad_steps, float(drop_noise))


@dataclass(frozen=True)
class MEST(Exchange):
    """The method object behind ``mest``."""

    name = "mest"

    grad_weight: float
    lower: float

    def scores(self, view: View) -> tuple[list[jax.Array], list[jax.Array]]:
        """Keep weights that are large or still moving, grow random ones."""
        pairs = zip(magnitudes(view), gradient_magnitudes(view.grads), strict=True)
        return [size + self.grad_weight * grad for size, grad in pairs], random_scores(view, self.seed, view.step)

    def update(self, view: View) -> tuple[list[jax.Array], PyTree]:
        """Prune to the lower count, then grow to the upper one again; at the last update only prune."""
        upper = unit_counts(self.name, self.sparsity, self.scope, view)
        lower = unit_counts(self.name, self.lower, self.scope, view)
        last = view.step == self.cadence.stop
        leaves = zip(view.masks, *self.scores(view), strict=True)
        masks = [
            exchange(view.structure, mask, stay, grow, lower[i], jnp.where(last, 0, upper[i] - lower[i]))
            for i, (mask, stay, grow) in enumerate(leaves)
        ]
        return masks, view.aux


class HardMEST(MEST):
    """``mest`` with the same count at all times."""

    def update(self, view: View) -> tuple[list[jax.Array], PyTree]:
        """Exchange weights in every layer."""
        return Exchange.update(self, view)


@former_arguments("every", "end", use="update_every, start, stop", former=f"{_FORMER}.mest")
def mest(
    sparsity: float,
    *,
    update_every: int,
    start: int = 0,
    stop: int,
    grad_weight: float,
    bound: float | None = None,
    drop: Schedule | float = 0.3,
    scope: ScopeLike = "erk",
    seed: int = 0,
) -> Method:
    """Drop weights that are small and no longer move, grow random ones, within a memory bound (MEST).

    at each update, in each layer:  drop by lowest |w| + grad_weight * |g|, down to the lower count; grow at random up
    to the upper count; at ``stop`` only drop

    With ``bound`` (soft memory bound) the network trains with the larger count, and grown weights compete for the
    smaller one at the next update. Without it the lower count is (1 - drop) of the upper one and the last
    update does not prune (hard bound). Only gradients of kept weights are used.

    Args:
      sparsity: fraction of zeros that the run ends with, in [0, 1).
      update_every: period in steps.
      start: first update. The mask at step 0 is random in any case.
      stop: last update, at least 1.
      grad_weight: weight of |g| in the score, at least 0.
      bound: sparsity during training, below ``sparsity``; published example 0.88 for 0.9. None is the hard bound.
      drop: fraction replaced at each update under the hard bound, a number in (0, 1] or a schedule.
      scope: as for ``static``.
      seed: of masks and growth.

    Returns:
      Method for ``pruned``; use ``init`` to start.

    Raises:
      ValueError: a value out of range.

    Source: Yuan et al. 2021, "MEST: accurate and fast memory-economic sparse training framework on the edge",
      section 3.

    >>> mest(0.9, update_every=10, stop=100, grad_weight=0.01, bound=0.88).refresh(100)
    True
    """
    as_fraction("mest", "sparsity", sparsity)
    steps = cadence("mest", update_every, start, stop, first=1)
    check_weight("mest", "grad_weight", grad_weight)
    scope_, fraction = layer_scope("mest", scope), as_drop("mest", drop)
    if bound is None:
        return HardMEST(float(sparsity), scope_, steps, fraction, seed, float(grad_weight), 0.0)
    if not as_fraction("mest", "bound", bound) < as_fraction("mest", "sparsity", sparsity):
        fail("mest", "bound", f"value {bound}", f"a sparsity below {sparsity}")
    return MEST(float(bound), scope_, steps, constant(0.0), seed, float(grad_weight), float(sparsity))
