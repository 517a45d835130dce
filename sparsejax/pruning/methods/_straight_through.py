"""Straight-through methods: dense weights train, the forward pass uses the masked ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.pruning._method import Method, View
from sparsejax.pruning._numbers import check_integer, check_weight
from sparsejax.pruning.allocation._distributions import as_fraction
from sparsejax.pruning.allocation._scopes import Scope, ScopeLike, as_scope


@dataclass(frozen=True)
class StraightThrough(Method):
    """The method object behind ``straight_through``."""

    outside = "train"

    sparsity: float
    period: int
    decay: float
    scope: Scope

    def init(self, view: View) -> tuple[list[jax.Array], Any]:
        """Keep the largest weights."""
        return self._choose(view), ()

    def refresh(self, step: Any) -> Any:
        """Fire every ``period`` steps."""
        return step % self.period == 0

    def update(self, view: View) -> tuple[list[jax.Array], Any]:
        """Keep the largest weights."""
        return self._choose(view), view.aux

    def trained(self, view: View) -> list[jax.Array]:
        """All weights train."""
        return [jnp.ones_like(mask) for mask in view.masks]

    def gradients(self, view: View) -> list[jax.Array]:
        """The dense gradient, plus the decay of pruned weights."""
        if not self.decay:
            return view.grads
        leaves = zip(view.grads, view.masks, view.weights, strict=True)
        return [grad + jnp.where(mask, 0, self.decay * weight).astype(grad.dtype) for grad, mask, weight in leaves]

    def _choose(self, view: View) -> list[jax.Array]:
        level = as_fraction("straight_through", "sparsity", self.sparsity)
        counts = self.scope.counts("straight_through", view.structure, view.names, view.shapes, level)
        return self.scope.choose(view.structure, [jnp.abs(weight) for weight in view.weights], np.array(counts))


def straight_through(sparsity: float, *, period: int = 1, decay: float = 0.0, scope: ScopeLike = "layer") -> Method:
    """Use the largest weights in the forward pass, and train all of them with its gradient.

    forward: w * mask;  w <- w - lr * (g + decay * (1 - mask) * w), g at the masked point;  mask <- top-k of |w|

    The loss must use ``forward_params(params, opt_state)``; so must evaluation and export, with the state that the
    network was last trained with: a mask chosen anew after the last step meets batch statistics of another network.

    Args:
      sparsity: fraction of zeros in the forward pass, in [0, 1).
      period: steps between choices of the mask; published: 1 (DNW), 16 (DPF).
      decay: pulls pruned weights to 0, at least 0; published: 2e-4 with ``n_of_m`` structure (SR-STE).
      scope: as for ``magnitude``.

    Returns:
      Method for ``pruned``. Weights and moments stay dense.

    Raises:
      ValueError: a value out of range.

    Source: Wortsman et al. 2019, "Discovering neural wirings" (period 1); Lin et al. 2020, "Dynamic model pruning
      with feedback" (DPF, period 16); Zhou et al. 2021, "Learning N:M fine-grained structured sparse neural networks
      from scratch" (SR-STE, equation 9).

    >>> import optax
    >>> from sparsejax.pruning import forward_params, n_of_m, pruned
    >>> tx = pruned(optax.sgd(0.1), straight_through(0.5, decay=2e-4), structure=n_of_m(2, 4))
    >>> params = {"kernel": jnp.arange(8.0).reshape(4, 2)}
    >>> forward_params(params, tx.init(params))["kernel"].tolist()
    [[0.0, 0.0], [0.0, 0.0], [4.0, 5.0], [6.0, 7.0]]
    """
    as_fraction("straight_through", "sparsity", sparsity)
    check_integer("straight_through", "period", period)
    check_weight("straight_through", "decay", decay)
    return StraightThrough(float(sparsity), period, float(decay), as_scope("straight_through", scope))
