"""Top-KAST: a sparse forward pass, and a less sparse set of weights that train."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax._checks import fail
from sparsejax.pruning._method import Method, View
from sparsejax.pruning._numbers import check_integer, check_weight
from sparsejax.pruning.allocation._distributions import as_fraction
from sparsejax.pruning.allocation._scopes import Scope, ScopeLike, kept_weights
from sparsejax.pruning.methods._regrow import layer_scope


@dataclass(frozen=True)
class TopKAST(Method):
    """The method object behind ``top_kast``; ``aux`` holds the masks of the weights that train."""

    outside = "keep"

    forward: float
    backward: float
    period: int
    penalty: float
    scope: Scope

    def init(self, view: View) -> tuple[list[jax.Array], Any]:
        """Choose both sets."""
        return self.update(view)

    def refresh(self, step: Any) -> Any:
        """Fire every ``period`` steps."""
        return step % self.period == 0

    def update(self, view: View) -> tuple[list[jax.Array], Any]:
        """Choose both sets by magnitude."""
        scores = [jnp.abs(weight) for weight in view.weights]
        forward = self.scope.choose(view.structure, scores, np.array(self._counts(view, self.forward)))
        backward = self.scope.choose(view.structure, scores, np.array(self._counts(view, self.backward)))
        return forward, backward

    def trained(self, view: View) -> list[jax.Array]:
        """The backward set trains."""
        return view.aux

    def gradients(self, view: View) -> list[jax.Array]:
        """The gradient on the backward set, with that of the exploration penalty."""
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


def top_kast(
    sparsity: float,
    backward_sparsity: float,
    *,
    period: int = 1,
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
      period: steps between choices of the sets; published: 1 to 100 make little difference.
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
    check_integer("top_kast", "period", period)
    check_weight("top_kast", "penalty", penalty)
    scope_ = layer_scope("top_kast", scope)
    return TopKAST(float(sparsity), float(backward_sparsity), period, float(penalty), scope_)
