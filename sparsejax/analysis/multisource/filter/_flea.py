"""FLEA: keep the sources that a majority of sources agrees with."""

from __future__ import annotations

import sys
import warnings
from typing import Literal, Self

import numpy as np
from numpy.typing import ArrayLike

from sparsejax._checks import fail, message
from sparsejax.analysis.multisource._inputs import Labels, Sources, refuse_single_rows
from sparsejax.analysis.multisource.filter._base import SourceFilter
from sparsejax.analysis.multisource.filter._diagnosis import diagnose
from sparsejax.analysis.multisource.filter._distances import distances
from sparsejax.analysis.multisource.filter._select import number_to_keep, quantiles, select_sources

_UNEVEN = 10.0  # ratio of the largest to the smallest source from which a warning is given
_BALANCED = 0.05  # distance of a group's share from 1/2 below which flipped groups leave no trace in the disbalance


class SourceWarning(UserWarning):
    """The sources make the filter's verdict less certain; the message says why."""


class FLEA(SourceFilter):
    """Filter of unreliable data sources for fair learning.

    For each pair of sources (S, T), over linear classifiers f:

        discrepancy = max_f |R_S(f) - R_T(f)|           R: share of wrong decisions
        disparity   = max_f |Gamma_S(f) - Gamma_T(f)|   Gamma: difference of the groups' positive rates
        disbalance  = |P_S(a=1) - P_T(a=1)|
        D           = their sum

    A source's q is its K-th smallest D, itself counted; the K sources with the smallest q are kept. If fewer than
    half of the sources are manipulated, in whatever way, each kept source agrees with at least one clean source on
    accuracy, fairness and group share of every classifier, so that learning from the kept ones is safe; any learner
    may follow. Clean sources are assumed to be samples of similar distributions.

    Args:
      n_keep: K; a number of sources, a share in (0.5, 1], or None for the smallest majority. If the number
        of manipulated sources is known, N minus that number keeps all clean ones.
      disparity: "absolute" is the published method: Gamma is an absolute value. It cannot see a source whose groups
        are swapped if the attribute is not a feature and the groups are of the same size, and pooling such a source
        hides unfairness. "signed" drops the absolute value, sees this, and is convex and faster.
      aggregation: "sum" (published) or "max" of the three distances.
      ties: "first" keeps exactly K; "all" keeps every source as good as the K-th.
      max_iter: most iterations of one absolute disparity.
      tol: on the largest entry of its gradient.
      batch_size: pairs fitted side by side; None takes as many as stay in cache.
      n_jobs: threads, as in scikit-learn; -1 is all processors. Results do not depend on it.
      verbose: 1 shows progress on stderr.

    Attributes:
      sources_, kept_sources_: labels.
      support_: row mask of the training set.
      discrepancy_, disparity_, disbalance_: float64[N, N] in the order of ``sources_``; ranges [0, 1], and [0, 2] for
        a signed disparity. 0 means that no linear classifier tells the sources apart.
      d_scores_: their sum or maximum.
      q_values_: float64[N]; small is trustworthy.
      kept_by_: for each single distance, the labels it alone would keep.
      converged_, n_iter_: of the longest fit of each pair.
      diagnosis_: data frame with one row per source; see `diagnose`.

    A source with one class is compared as it is: discrepancy is defined. A source with one group has the largest
    possible disparity to all others, with a warning, since its fairness cannot be estimated.

    All arithmetic is in 64 bit, and nothing is random. Cost: (N - 1) passes over all rows for each of some tens of
    iterations, for each of the three fits of a pair.

    Source: Iofinova, Konstantinov, Lampert 2022, "FLEA: Provably Robust Fair Multisource Learning from Unreliable
    Training Data", TMLR, algorithm 1 and the estimators of the authors' code.

    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(500, 3))
    >>> y, a, source = X[:, 0] > 0, X[:, 1] > 0.5, np.repeat(list("abcde"), 100)
    >>> y[source == "d"] = ~y[source == "d"]  # the manipulated source
    >>> FLEA(n_keep=4, disparity="signed").fit(X, y, sensitive_features=a, source=source).kept_sources_.tolist()
    ['a', 'b', 'c', 'e']
    """

    def __init__(
        self,
        n_keep: int | float | None = None,
        *,
        disparity: Literal["absolute", "signed"] = "absolute",
        aggregation: Literal["sum", "max"] = "sum",
        ties: Literal["first", "all"] = "first",
        max_iter: int = 500,
        tol: float = 1e-4,
        batch_size: int | None = None,
        n_jobs: int | None = -1,
        verbose: int = 0,
    ):
        self.n_keep = n_keep
        self.disparity = disparity
        self.aggregation = aggregation
        self.ties = ties
        self.max_iter = max_iter
        self.tol = tol
        self.batch_size = batch_size
        self.n_jobs = n_jobs
        self.verbose = verbose

    def fit(self, X: ArrayLike, y: ArrayLike, *, sensitive_features: Labels = None, source: Labels = None) -> Self:
        """Measure the distances of all pairs and decide which sources to keep.

        Args:
          X: features, [n, d]; the protected attribute should be one of them.
          y: labels, two distinct values.
          sensitive_features: the protected attribute, two distinct values.
          source: label of the source of each row.

        Raises:
          ValueError: fewer than two sources, or one with a single row; labels or attribute that are not binary; values
            missing; ``n_keep`` not above half of the sources; an option that does not exist.
        """
        self._check_options()
        data = self._inputs(X, y, sensitive_features, source)
        keep = number_to_keep(self.n_keep, len(data.names))
        refuse_single_rows("FLEA.fit", "source", data.names[data.source])
        _warn(data, self.disparity)
        result = distances(
            data.X,
            data.y,
            data.a,
            data.source,
            signed=self.disparity == "signed",
            max_iter=self.max_iter,
            tol=self.tol,
            batch_size=self.batch_size,
            n_jobs=self.n_jobs,
            progress=_show if self.verbose else None,
        )
        self.discrepancy_, self.disparity_, self.disbalance_, self.converged_, self.n_iter_ = result
        parts = {"discrepancy": result.discrepancy, "disparity": result.disparity, "disbalance": result.disbalance}
        stacked = np.stack(list(parts.values()))
        self.d_scores_ = stacked.sum(0) if self.aggregation == "sum" else stacked.max(0)
        self.q_values_ = quantiles(self.d_scores_, keep)
        kept = select_sources(self.d_scores_, keep, self.ties)
        alone = {name: select_sources(matrix, keep, self.ties) for name, matrix in parts.items()}
        self.kept_by_ = {name: data.names[chosen] for name, chosen in alone.items()}
        self._keep(data, kept)
        self.diagnosis_ = diagnose(data, parts, self.q_values_, kept, alone)
        return self

    def _check_options(self) -> None:
        choices = {"disparity": ("absolute", "signed"), "aggregation": ("sum", "max"), "ties": ("first", "all")}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                fail("FLEA.fit", name, f"value {getattr(self, name)!r}", " or ".join(map(repr, allowed)))
        for name in ("max_iter", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                fail("FLEA.fit", name, f"value {value}", "at least 1")


def _warn(data: Sources, disparity: str) -> None:
    sizes = np.bincount(data.source)
    shares = np.bincount(data.source, data.a) / sizes
    if sizes.max() > _UNEVEN * sizes.min():
        hint = "Distances of small sources are noisy and large, so clean small sources may be dropped."
        expected = f"sources within a factor {_UNEVEN:g} of each other"
        _say("source", f"sizes from {sizes.min()} to {sizes.max()} rows", expected, hint)
    for index in np.flatnonzero((shares == 0) | (shares == 1)):
        hint = "Its fairness cannot be judged; it counts as far from every other source."
        _say("sensitive_features", f"one group only in source {data.names.tolist()[index]!r}", "both groups", hint)
    a_is_feature = bool(((data.a[:, None] == data.X).all(0) | (1 - data.a[:, None] == data.X).all(0)).any())
    if disparity == "absolute" and not a_is_feature and abs(data.a.mean() - 0.5) < _BALANCED:
        hint = 'A source with its groups swapped would pass unseen: use disparity="signed".'
        _say("X", "no column equal to the protected attribute, of balanced groups", "one with the default", hint)


def _say(operand: str, got: str, expected: str, hint: str) -> None:
    warnings.warn(message("FLEA.fit", operand, got, expected, hint), SourceWarning, stacklevel=4)


def _show(name: str, done: int, total: int) -> None:
    end = "\n" if done == total else ""
    print(f"\r{name.replace('_', ' ')}: {done} of {total} pairs", end=end, file=sys.stderr, flush=True)
