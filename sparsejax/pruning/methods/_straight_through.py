"""Dense weights train, the forward pass uses the largest: straight-through, Top-KAST, hard thresholding."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax._checks import check_weight, fail
from sparsejax._surface import renamed_arguments
from sparsejax._typing import PyTree
from sparsejax.pruning._method import Method, View
from sparsejax.pruning.allocation._distributions import as_fraction
from sparsejax.pruning.allocation._scopes import Scope, ScopeLike, as_scope, kept_weights
from sparsejax.pruning.methods._cadence import Cadence, Fires, Step, cadence
from sparsejax.pruning.methods._exchange import layer_scope


@dataclass(frozen=True)
class StraightThrough(Method):
    """The method object behind ``straight_through``."""

    outside = "train"

    sparsity: float
    cadence: Cadence
    decay: float
    scope: Scope

    def init(self, view: View) -> tuple[list[jax.Array], PyTree]:
        """Keep the largest weights."""
        return self._choose(view), ()

    def refresh(self, step: Step) -> Fires:
        """Follow the cadence."""
        return self.cadence(step)

    def update(self, view: View) -> tuple[list[jax.Array], PyTree]:
        """Keep the largest weights."""
        return self._choose(view), view.aux

    def trained(self, view: View) -> list[jax.Array]:
        """Train all weights."""
        return [jnp.ones_like(mask) for mask in view.masks]

    def gradients(self, view: View) -> list[jax.Array]:
        """Return the dense gradient, plus the decay of pruned weights."""
        if not self.decay:
            return view.grads
        leaves = zip(view.grads, view.masks, view.weights, strict=True)
        return [grad + jnp.where(mask, 0, self.decay * weight).astype(grad.dtype) for grad, mask, weight in leaves]

    def _choose(self, view: View) -> list[jax.Array]:
        level = as_fraction("straight_through", "sparsity", self.sparsity)
        counts = self.scope.counts("straight_through", view.structure, view.names, view.shapes, level)
        return self.scope.choose(view.structure, [jnp.abs(weight) for weight in view.weights], np.array(counts))


@renamed_arguments(period="update_every")
def straight_through(
    sparsity: float,
    *,
    update_every: int = 1,
    start: int = 0,
    stop: int | None = None,
    decay: float = 0.0,
    scope: ScopeLike = "layer",
) -> Method:
    """Use the largest weights in the forward pass, and train all of them with its gradient.

    forward: w * mask;  w <- w - lr * (g + decay * (1 - mask) * w), g at the masked point;  mask <- top-k of |w|

    The loss must use ``forward_params(params, opt_state)``; so must evaluation and export, with the state that the
    network was last trained with: a mask chosen after the last step would meet the batch statistics of another network.

    Args:
      sparsity: fraction of zeros in the forward pass, in [0, 1).
      update_every: steps from one update of the mask to the next; published: 1 (DNW), 16 (DPF).
      start: first update after the mask of step 0.
      stop: last update; None is never, as published.
      decay: pulls pruned weights to 0, at least 0; published: 2e-4 with ``n_of_m`` structure (SR-STE).
      scope: as for ``magnitude``.

    Returns:
      Method for ``pruned``. Weights and moments stay dense.

    Raises:
      ValueError: a value out of range.

    Source: Wortsman et al. 2019, "Discovering neural wirings" (every step); Lin et al. 2020, "Dynamic model pruning
      with feedback" (DPF, every 16 steps); Zhou et al. 2021, "Learning N:M fine-grained structured sparse neural
      networks from scratch" (SR-STE, equation 9).

    >>> import optax
    >>> from sparsejax.pruning import forward_params, n_of_m, pruned
    >>> tx = pruned(optax.sgd(0.1), straight_through(0.5, decay=2e-4), structure=n_of_m(2, 4))
    >>> params = {"kernel": jnp.arange(8.0).reshape(4, 2)}
    >>> forward_params(params, tx.init(params))["kernel"].tolist()
    [[0.0, 0.0], [0.0, 0.0], [4.0, 5.0], [6.0, 7.0]]
    """
    as_fraction("straight_through", "sparsity", sparsity)
    steps = cadence("straight_through", update_every, start, stop)
    check_weight("straight_through", "decay", decay)
    return StraightThrough(float(sparsity), steps, float(decay), as_scope("straight_through", scope))


@dataclass(frozen=True)
class TopKAST(Method):
    """The method object behind ``top_kast``; ``aux`` holds the masks of the weights that train."""

    outside = "keep"

    forward: float
    backward: float
    cadence: Cadence
    penalty: float
    scope: Scope

    def init(self, view: View) -> tuple[list[jax.Array], PyTree]:
        """Choose both sets."""
        return self.update(view)

    def refresh(self, step: Step) -> Fires:
        """Follow the cadence."""
        return self.cadence(step)

    def update(self, view: View) -> tuple[list[jax.Array], PyTree]:
        """Choose both sets by magnitude."""
        scores = [jnp.abs(weight) for weight in view.weights]
        forward = self.scope.choose(view.structure, scores, np.array(self._counts(view, self.forward)))
        backward = self.scope.choose(view.structure, scores, np.array(self._counts(view, self.backward)))
        return forward, backward

    def trained(self, view: View) -> list[jax.Array]:
        """Train the backward set."""
        return view.aux

    def gradients(self, view: View) -> list[jax.Array]:
        """Return the gradient on the backward set, with that of the exploration penalty."""
        units = self._counts(view, self.forward)
        kept = kept_weights(view.structure, view.names, view.shapes, units)
        leaves = zip(view.grads, view.masks, view.aux, view.weights, kept, strict=True)
        grads = []
        for grad, forward, backward, weight, count in leaves:
            pull = 2 * self.penalty * weight * jnp.where(forward, 1.0, weight.size / count)
            grads.append(jnp.where(backward, grad + pull.astype(grad.dtype), jnp.zeros_like(grad)))
        return grads

    def _counts(self, view: View, sparsity: float) -> list[int]:
        level = as_fraction("top_kast", "sparsity", sparsity)
        return self.scope.counts("top_kast", view.structure, view.names, view.shapes, level)


@renamed_arguments(period="update_every")
def top_kast(
    sparsity: float,
    backward_sparsity: float,
    *,
    update_every: int = 1,
    start: int = 0,
    stop: int | None = None,
    penalty: float = 0.0,
    scope: ScopeLike = "layer",
) -> Method:
    """Use the largest weights in the forward pass, and train a larger set.

    A = top-D of |w| in each layer (forward), B = top-(D + M) (trains), A in B;
    loss + penalty * (|w_A|^2 + |w_{B\\A}|^2 / D) with D the layer's forward density

    Weights outside B keep their value and do nothing; their moments are zero. The loss must use
    ``forward_params(params, opt_state)``.

    Args:
      sparsity: fraction of zeros in the forward pass, 1 - D, in [0, 1).
      backward_sparsity: fraction of weights that do not train, at most ``sparsity``; published 0.8 or 0.9 with 0.9,
        0.95 or 0.98.
      update_every: steps from one update of the sets to the next; published: 1 to 100 make little difference.
      start: first update after the sets of step 0.
      stop: last update; None is never, as published.
      penalty: of the exploration regulariser, at least 0; its gradient is added here, not in your loss.
      scope: as for ``static``; published: the same in each layer, first and last dense.

    Returns:
      Method for ``pruned``.

    Raises:
      ValueError: a value out of range.

    Source: Jayakumar et al. 2020, "Top-KAST: top-K always sparse training", section 2.

    >>> import optax
    >>> from sparsejax.pruning import pruned
    >>> state = pruned(optax.sgd(0.1), top_kast(0.75, 0.5)).init({"kernel": jnp.arange(4.0).reshape(2, 2)})
    >>> state.mask["kernel"].tolist(), state.aux[0].tolist()
    ([[False, False], [False, True]], [[False, False], [True, True]])
    """
    forward = as_fraction("top_kast", "sparsity", sparsity)
    if as_fraction("top_kast", "backward_sparsity", backward_sparsity) > forward:
        fail("top_kast", "backward_sparsity", f"value {backward_sparsity}", f"at most the forward one, {sparsity}")
    steps = cadence("top_kast", update_every, start, stop)
    check_weight("top_kast", "penalty", penalty)
    scope_ = layer_scope("top_kast", scope)
    return TopKAST(float(sparsity), float(backward_sparsity), steps, float(penalty), scope_)


@dataclass(frozen=True)
class HardThreshold(Method):
    """The method object behind ``hard_threshold``."""

    enters = "candidate"

    sparsity: float
    scope: Scope

    def init(self, view: View) -> tuple[list[jax.Array], PyTree]:
        """Project the first weights."""
        return self.update(view)

    def refresh(self, step: Step) -> Fires:
        """Fire in every step."""
        return step >= 0

    def update(self, view: View) -> tuple[list[jax.Array], PyTree]:
        """Keep the largest of the weights that the dense step proposes."""
        level = as_fraction("hard_threshold", "sparsity", self.sparsity)
        counts = self.scope.counts("hard_threshold", view.structure, view.names, view.shapes, level)
        scores = [jnp.abs(weight) for weight in view.weights]
        return self.scope.choose(view.structure, scores, np.array(counts)), ()

    def trained(self, view: View) -> list[jax.Array]:
        """Let all weights take the dense step."""
        return [jnp.ones_like(mask) for mask in view.masks]


def hard_threshold(sparsity: float, *, scope: ScopeLike = "global") -> Method:
    """Project onto the k-sparse weights after every dense step (IHT).

    w <- T_k(w + u),  u the inner optimizer's update for the dense gradient,  T_k keeps the k largest in absolute value

    With ``optax.sgd`` this is w <- T_k(w - lr * g). Moments of the inner optimizer stay dense.

    Args:
      sparsity: fraction of zeros, in [0, 1).
      scope: as for ``magnitude``; with an ``n_of_m`` or ``block`` structure it is projected SGD onto those sets.

    Returns:
      Method for ``pruned``; use ``init`` to start.

    Raises:
      ValueError: a value out of range.

    Source: Blumensath & Davies 2009, "Iterative hard thresholding for compressed sensing"; stochastic version in
      Peste et al. 2021, "AC/DC", section 3.

    >>> import optax
    >>> from sparsejax.pruning import init, pruned
    >>> tx = pruned(optax.sgd(1.0), hard_threshold(0.5))
    >>> params, state = init(tx, {"kernel": jnp.array([[3.0, 1.0]])})
    >>> updates, state = tx.update({"kernel": jnp.array([[2.5, 2.0]])}, state, params)
    >>> optax.apply_updates(params, updates)["kernel"].tolist()
    [[0.0, -2.0]]
    """
    as_fraction("hard_threshold", "sparsity", sparsity)
    return HardThreshold(float(sparsity), as_scope("hard_threshold", scope))
