"""STR: weights behind a soft threshold that is trained with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sparsejax.pruning._filters import KERNELS, Predicate, selected
from sparsejax.pruning._leaves import PyTree, flatten_like, is_masked_node, only, spread


class STRParams(NamedTuple):
    """What trains.

    Attributes:
      weights: parameters; those of prunable leaves stand behind their threshold.
      thresholds: scalar theta per prunable leaf; ``optax.MaskedNode()`` for others.
    """

    weights: PyTree
    thresholds: PyTree


@dataclass(frozen=True)
class STR:
    """A reparametrisation; built by ``str_``. Train what ``init`` returns, use what ``forward`` returns."""

    where: Predicate
    initial: float

    def init(self, params: PyTree) -> STRParams:
        """Add the thresholds."""
        chosen = selected("str_", self.where, params)
        thetas = [jnp.asarray(self.initial, leaf.dtype) for leaf in only(chosen, jax.tree.leaves(params))]
        return STRParams(params, jax.tree.unflatten(jax.tree.structure(params), spread(chosen, thetas)))

    def forward(self, trained: STRParams) -> PyTree:
        """Return the parameters of the network; differentiable in weights and thresholds."""
        leaves, treedef = jax.tree.flatten(trained.weights)
        thetas = flatten_like("str_", "thresholds", trained.thresholds, trained.weights)
        return jax.tree.unflatten(treedef, [_soft(*pair) for pair in zip(leaves, thetas, strict=True)])

    def export(self, trained: STRParams) -> tuple[PyTree, PyTree]:
        """Return the final parameters and their masks, for ``fixed`` and ``sparsify``."""
        params = self.forward(trained)
        leaves, treedef = jax.tree.flatten(params)
        thetas = flatten_like("str_", "thresholds", trained.thresholds, trained.weights)
        pairs = zip(leaves, thetas, strict=True)
        masks = [theta if is_masked_node(theta) else leaf != 0 for leaf, theta in pairs]
        return params, jax.tree.unflatten(treedef, masks)


def _soft(weight: jax.Array, theta: Any) -> jax.Array:
    if is_masked_node(theta):
        return weight
    return jnp.sign(weight) * jax.nn.relu(jnp.abs(weight) - jax.nn.sigmoid(theta))


def str_(*, where: Predicate = KERNELS, initial: float = -3200.0) -> STR:
    """Soft threshold reparametrisation: the network finds its own thresholds, one per layer.

    w~ = sign(w) * relu(|w| - sigmoid(theta_l));  dL/dtheta = -sigmoid'(theta) * sum of sign(w) * g over
    |w| > sigmoid(theta)

    The sparsity follows from weight decay, which acts on theta too and pulls it towards 0; it is not set. Not an
    optimizer wrapper: give the optimizer ``STRParams``.

    Args:
      where: filter of the leaves with a threshold.
      initial: theta at the start; published -3200 (ResNet-50, 90 %, with weight decay 2.25e-5 and learning rate 0.256
        over 100 epochs), at which the threshold is 0 and only decay moves theta.

    Returns:
      Object with ``init``, ``forward``, ``export``.

    Raises:
      ValueError: from ``init``, if ``where`` selects nothing.

    Source: Kusupati et al. 2020, "Soft threshold weight reparameterization for learnable sparsity", equations 4 and 6.

    >>> method = str_(initial=0.0)
    >>> trained = method.init({"kernel": jnp.array([[0.25, -1.0]])})
    >>> method.forward(trained)["kernel"].tolist()
    [[0.0, -0.5]]
    """
    return STR(where, float(initial))
