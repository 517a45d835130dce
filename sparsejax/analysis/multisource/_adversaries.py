"""Manipulations of sources, to test filters with.

Each is a pure function: it takes the training set, which sources are manipulated, and a JAX key, and returns a new
training set. They are a test suite; a real adversary may do anything else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from numpy.typing import ArrayLike

from sparsejax._checks import fail
from sparsejax.analysis.multisource._inputs import check_features, positions_of, read_labels, read_zeros_and_ones


class TrainingSet(NamedTuple):
    """Rows of all sources.

    Attributes:
      X: features, float64[n, d].
      y: labels 0 or 1, int[n].
      a: protected attribute 0 or 1, int[n].
      source: of each row, int[n].
      protected: column of X that holds the attribute and changes with it, or None.
    """

    X: np.ndarray
    y: np.ndarray
    a: np.ndarray
    source: np.ndarray
    protected: int | None = None

    def rows(self, chosen: np.ndarray) -> TrainingSet:
        """Return the rows of a mask or of indices."""
        return self._replace(X=self.X[chosen], y=self.y[chosen], a=self.a[chosen], source=self.source[chosen])

    def with_groups(self, a: np.ndarray) -> TrainingSet:
        """Set the attribute, and its column."""
        X = self.X.copy()
        if self.protected is not None:
            X[:, self.protected] = a
        return self._replace(X=X, a=a)


Manipulation = Callable[[TrainingSet, TrainingSet, np.random.Generator], TrainingSet]


def _resample(part: TrainingSet, pool: TrainingSet, rng: np.random.Generator) -> TrainingSet:
    """Replace rows (a=1, y=0) by rows (1, 1) of the pool, then rows (0, 1) by rows (0, 0): afterwards y = a."""
    for a, y in ((1, 0), (0, 1)):
        out = (part.a == a) & (part.y == y)
        candidates = np.flatnonzero((pool.a == a) & (pool.y == 1 - y))
        if out.any() and len(candidates):
            new = pool.rows(_draw_rows(candidates, int(out.sum()), rng))
            old = part.rows(~out)
            part = part._replace(**{f: np.concatenate([getattr(old, f), getattr(new, f)]) for f in ("X", "y", "a")})
    return part


def _draw_rows(candidates: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw without replacement; if more rows are needed than exist, all of them are repeated first."""
    copies, rest = divmod(count, len(candidates))
    return np.concatenate([np.tile(candidates, copies), rng.choice(candidates, rest, replace=False)])


def _random_anchor(part: TrainingSet, pool: TrainingSet, value: int, rng: np.random.Generator) -> TrainingSet:
    """Replace a source by rows near two anchors.

    Rows with a = ``value`` are called disadvantaged. One anchor is drawn among the advantaged rows of the source with
    y = 0; the nearest advantaged pool rows with y = 1, as many as the source has with y = 0, are taken. Another is
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


_MANIPULATIONS: dict[str, Manipulation] = {
    "none": lambda part, pool, rng: part,
    "flip#protected": lambda part, pool, rng: part.with_groups(1 - part.a),
    "flip#target": lambda part, pool, rng: part._replace(y=1 - part.y),
    "flip#protected#target": lambda part, pool, rng: part._replace(y=1 - part.y).with_groups(1 - part.a),
    "shuffle#protected": lambda part, pool, rng: part.with_groups(rng.permutation(part.a)),
    "copy#protected#target": lambda part, pool, rng: part.with_groups(part.y),
    "copy#target#protected": lambda part, pool, rng: part._replace(y=part.a),
    "resample#1": _resample,
    "randomanchor#0": lambda part, pool, rng: _random_anchor(part, pool, 0, rng),
    "randomanchor#1": lambda part, pool, rng: _random_anchor(part, pool, 1, rng),
}
ADVERSARIES = (*_MANIPULATIONS, "random")
# The names in the figures of the paper.
PAPER_LABELS = dict(
    zip(ADVERSARIES, ["ID", "FP", "FL", "FB", "SP", "OP", "OL", "RP", "RA0", "RA1", "RND"], strict=True)
)


def choose_sources(n_sources: int, n_malicious: int, seed: int) -> np.ndarray:
    """Draw which sources are manipulated, as the study did: a uniform draw without replacement.

    >>> choose_sources(5, 2, seed=0)
    array([3, 4])
    """
    if not 0 <= n_malicious <= n_sources:
        fail("choose_sources", "n_malicious", f"value {n_malicious}", f"0 to {n_sources}, the number of sources")
    return np.sort(np.random.default_rng(seed).choice(range(n_sources), n_malicious, replace=False))


def manipulate(name: str, data: TrainingSet, chosen: ArrayLike, key: jax.Array) -> TrainingSet:
    """Manipulate the chosen sources; the other ones stay as they are, row by row.

    | name | what happens to a chosen source |
    | --- | --- |
    | none | nothing |
    | flip#protected, flip#target, flip#protected#target | a := 1 - a; y := 1 - y; both |
    | shuffle#protected | a is permuted |
    | copy#protected#target, copy#target#protected | a := y; y := a |
    | resample#1 | rows that contradict y = a are replaced by rows of the pool that obey it |
    | randomanchor#0, randomanchor#1 | replaced by rows near two anchors: group v only y = 0, the other only y = 1 |
    | random | one of the others but none, drawn for each source |

    Args:
      name: one of `ADVERSARIES`.
      data: the training set; the pool to draw from is the whole of it.
      chosen: sources to manipulate.
      key: JAX key; the same key gives the same result, each source draws from a separate stream.

    Returns:
      A new training set with rows ordered by source. randomanchor may change the size of a source.

    Raises:
      ValueError: unknown name, a source that the training set does not have, or rows that are missing or not binary.

    Source: Iofinova et al. 2022, section on experiments; random anchor after Mehrabi et al. 2021, algorithm 2.
    """
    if name not in ADVERSARIES:
        fail("manipulate", "name", f"value {name!r}", f"one of {', '.join(ADVERSARIES)}")
    data = _read_training_set(data)
    names = np.unique(data.source)
    chosen = names[np.unique(positions_of("manipulate", "chosen", chosen, names))] if np.size(chosen) else names[:0]
    parts = []
    for index, source in enumerate(names):
        part = data.rows(data.source == source)
        if source in chosen:
            rng = np.random.default_rng(np.asarray(jax.random.key_data(jax.random.fold_in(key, index))))
            kind = str(rng.choice(ADVERSARIES[1:-1])) if name == "random" else name
            part = _MANIPULATIONS[kind](part, data, rng)
        parts.append(part._replace(source=np.full(len(part.y), source)))
    joined = {field: np.concatenate([getattr(part, field) for part in parts]) for field in ("X", "y", "a", "source")}
    return data._replace(**joined)


def _read_training_set(data: TrainingSet) -> TrainingSet:
    X = check_features("manipulate", data.X)
    y, a = (read_zeros_and_ones("manipulate", name, getattr(data, name), len(X)) for name in ("y", "a"))
    return TrainingSet(X, y, a, read_labels("manipulate", "source", data.source, len(X)), data.protected)
