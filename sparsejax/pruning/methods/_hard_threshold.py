"""Iterative hard thresholding: projected gradient steps onto the sparse vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.pruning._method import Method, View
from sparsejax.pruning.allocation._distributions import as_fraction
from sparsejax.pruning.allocation._scopes import Scope, ScopeLike, as_scope


@dataclass(frozen=True)
class HardThreshold(Method):
    """The method object behind ``hard_threshold``."""

    enters = "candidate"

    sparsity: float
    scope: Scope

    def init(self, view: View) -> tuple[list[jax.Array], Any]:
        """Project the first weights."""
        return self.update(view)

    def refresh(self, step: Any) -> Any:
        """Fire in every step."""
        return step >= 0

    def update(self, view: View) -> tuple[list[jax.Array], Any]:
        """Keep the largest of the weights that the dense step proposes."""
        level = as_fraction("hard_threshold", "sparsity", self.sparsity)
        counts = self.scope.counts("hard_threshold", view.structure, view.names, view.shapes, level)
        scores = [jnp.abs(weight) for weight in view.weights]
        return self.scope.choose(view.structure, scores, np.array(counts)), ()

    def trained(self, view: View) -> list[jax.Array]:
        """All weights take the dense step."""
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
