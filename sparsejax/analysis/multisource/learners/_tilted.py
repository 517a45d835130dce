"""Hierarchical tilted empirical risk: groups within sources, sources within the training set."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from sparsejax.analysis.multisource._inputs import Labels, encode_labels
from sparsejax.analysis.multisource.learners._base import (
    LinearClassifier,
    cross_entropy,
    logistic_start,
    minimise,
    sigmoid,
)


class HierarchicalTERM(LinearClassifier):
    """Logistic regression that gives more weight to the worse group of each source and less to bad sources; "hterm".

        L_s = 1/tau ln sum_g n_sg/n_s exp(tau loss_sg)      loss_sg: mean cross-entropy of group g in source s
        L   = 1/t ln sum_s n_s/n exp(t L_s) + l2/2 |w|^2

    Args:
      tau: tilt over groups; positive: towards the worst.
      t: tilt over sources; negative: towards the best.
      l2: penalty on the weights, the intercept left out.
      legacy: use the loss of the published numbers, which applies the sigmoid twice: the cross-entropy takes the
        probability for a logit.
      max_iter: most iterations of BFGS, and of the logistic regression (C = 1) that it starts from.
      tol: on the largest entry of the gradient.

    Source: Li et al. 2021, "Tilted Empirical Risk Minimization", equation 4, as used by Iofinova et al. 2022.
    """

    def __init__(
        self,
        tau: float = 2.0,
        t: float = -2.0,
        l2: float = 0.0,
        *,
        legacy: bool = False,
        max_iter: int = 500,
        tol: float = 1e-4,
    ):
        self.tau = tau
        self.t = t
        self.l2 = l2
        self.legacy = legacy
        self.max_iter = max_iter
        self.tol = tol

    def fit(self, X: ArrayLike, y: ArrayLike, *, sensitive_features: Labels = None, source: Labels = None) -> Self:
        """Fit.

        Raises:
          ValueError: labels or attribute not binary, missing values, or no source labels.
        """
        matrix, labels, a = self._inputs(X, y, sensitive_features)
        origin = encode_labels("HierarchicalTERM.fit", "source", source, len(labels))[1]
        objective = tilted_loss(labels, a, origin, self.tau, self.t, self.legacy)
        start = logistic_start(matrix, labels, 1.0, self.max_iter)
        self._set(minimise(objective, matrix, start.theta, self.max_iter, self.tol, self.l2))
        return self


def tilted_loss(y: np.ndarray, a: np.ndarray, source: np.ndarray, tau: float, t: float, legacy: bool) -> Any:
    """Return the function from logits to the loss of `HierarchicalTERM` without its penalty, and its gradient."""
    count = int(source.max()) + 1
    cell = 2 * source + a
    sizes = np.bincount(cell, minlength=2 * count).astype(float)
    mean = 1 / sizes[cell]  # a mean over the cell is a sum with these weights
    in_source = sizes.reshape(count, 2) / sizes.reshape(count, 2).sum(1, keepdims=True)
    share = sizes.reshape(count, 2).sum(1) / len(y)

    def objective(logits: np.ndarray) -> tuple[float, np.ndarray]:
        p = sigmoid(logits)
        scores = p if legacy else logits
        loss = np.bincount(cell, mean * cross_entropy(scores, y), 2 * count).reshape(count, 2)
        of_source, over_groups = _tilt(loss, in_source, tau)
        total, over_sources = _tilt(of_source, share, t)
        slope = (over_sources[:, None] * over_groups).ravel()[cell] * mean * (sigmoid(scores) - y)
        return float(total), slope * p * (1 - p) if legacy else slope

    return objective


def _tilt(loss: np.ndarray, weight: np.ndarray, tilt: float) -> tuple[np.ndarray, np.ndarray]:
    """1/tilt ln sum_k weight_k exp(tilt loss_k) over the last axis, and its derivative."""
    highest = (tilt * loss).max(-1, keepdims=True)  # no overflow
    terms = weight * np.exp(tilt * loss - highest)
    total = terms.sum(-1, keepdims=True)
    return ((highest + np.log(total)) / tilt)[..., 0], terms / total
