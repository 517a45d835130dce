"""The random anchor attack, and drawing rows from a pool."""

from __future__ import annotations

from typing import Any

import numpy as np


def draw(candidates: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw without replacement; where more are needed than there are, complete copies come first."""
    copies, rest = divmod(count, len(candidates))
    return np.concatenate([np.tile(candidates, copies), rng.choice(candidates, rest, replace=False)])


def random_anchor(part: Any, pool: Any, value: int, rng: np.random.Generator) -> Any:
    """Replace a source by rows near two anchors.

    Rows with a = ``value`` are called disadvantaged. One anchor is drawn among the advantaged rows of the source with
    y = 0: as many pool rows as the source has with y = 0, advantaged with y = 1, nearest to it, come in. Another is
    drawn among the disadvantaged rows with y = 1: as many as the source has with y = 1, disadvantaged with y = 0.
    Nearness is Euclidean, of the unscaled features. Where the pool has too few such rows, all of it is repeated in
    complete copies, and the source grows.

    A cell without an anchor or without candidates adds nothing.

    Source: Mehrabi et al. 2021, "Exacerbating Algorithmic Bias through Fairness Attacks", algorithm 2.
    """
    advantaged, disadvantaged = 1 - value, value
    taken = []
    for group, label in ((advantaged, 0), (disadvantaged, 1)):
        anchors = np.flatnonzero((part.a == group) & (part.y == label))
        candidates = np.flatnonzero((pool.a == group) & (pool.y == 1 - label))
        count = int((part.y == label).sum())
        if len(anchors) and len(candidates):
            anchor = part.X[rng.choice(anchors)]
            taken.append(_nearest(candidates, ((pool.X[candidates] - anchor) ** 2).sum(1), count))
    return pool.rows(np.concatenate(taken)) if taken else part


def _nearest(candidates: np.ndarray, distance: np.ndarray, count: int) -> np.ndarray:
    if count > len(candidates):
        return np.tile(candidates, -(-count // len(candidates)))
    return candidates[np.argsort(distance, kind="stable")[:count]]
