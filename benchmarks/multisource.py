"""``python -m sparsejax_bench.multisource``: the batched FLEA filter against fitting the same pairs one after another.

The baseline fits discrepancy with scikit-learn's logistic regression and disparity with SciPy's BFGS and an exact
NumPy gradient, as the published estimators say. It runs on one thread: its products are small, and take several times
longer with more. The whole takes some minutes.
"""

from __future__ import annotations

import argparse
import itertools
import time
from typing import Any

import numpy as np

from sparsejax.analysis.multisource import (
    FLEA,
    TrainingSet,
    assign_sources,
    choose_sources,
    load_dataset,
    manipulate,
    select_sources,
)

_CLIP = 20.0


def main() -> None:
    """Time both on a real table, print the ratio, and fail if they keep different sources."""
    import jax
    from threadpoolctl import threadpool_limits

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--path", required=True, help="folder with the tables of the study")
    parser.add_argument("--data", default="adult")
    parser.add_argument("-n", type=int, default=51, help="sources (default 51)")
    parser.add_argument("-N", type=int, default=20, help="manipulated ones (default 20)")
    options = parser.parse_args()
    data, _ = load_dataset(options.data, options.path).split(0)
    clean = TrainingSet(data.X, data.y, data.a, assign_sources(len(data.y), options.n), data.protected)
    malicious = choose_sources(options.n, options.N, 0)
    bad = manipulate("flip#protected", clean, malicious, jax.random.key(0))
    flea = FLEA(n_keep=options.n - options.N)
    times = []
    for _ in range(2):
        start = time.perf_counter()
        flea.fit(bad.X, bad.y, sensitive_features=bad.a, source=bad.source)
        times.append(time.perf_counter() - start)
    with threadpool_limits(limits=1):
        start = time.perf_counter()
        scores = one_by_one(bad, options.n)
        alone = time.perf_counter() - start
    kept = select_sources(scores, options.n - options.N)
    largest = np.abs(scores - flea.d_scores_).max()
    print(f"one after another {alone:.1f} s; batched, first call {times[0]:.1f} s, next {times[1]:.1f} s")
    print(f"{alone / times[0]:.1f} and {alone / times[1]:.1f} times faster")
    wrong = np.isin(flea.kept_sources_, malicious).sum()
    print(f"{len(kept)} sources kept, {wrong} of them manipulated; D-scores differ by at most {largest:.3f}")
    if kept.tolist() != flea.kept_sources_.tolist():  # sources are numbered from 0
        raise SystemExit(f"different sources kept: {kept.tolist()} and {flea.kept_sources_.tolist()}")


def one_by_one(data: TrainingSet, count: int) -> np.ndarray:
    """D-scores of all pairs, one fit after another."""
    parts = [data.rows(data.source == s) for s in range(count)]
    disc, disp = np.zeros((count, count)), np.zeros((count, count))
    for i, j in itertools.permutations(range(count), 2):
        both = np.concatenate([parts[i].X, parts[j].X])
        deviation = both.std(0)
        both = (both - both.mean(0)) / np.where(deviation == 0, 1, deviation)
        S, T = both[: len(parts[i].y)], both[len(parts[i].y) :]
        if i < j:
            disc[i, j] = disc[j, i] = _discrepancy(S, T, parts[i].y, parts[j].y)
        disp[i, j] = _disparity(S, T, parts[i].a, parts[j].a)
    share = np.array([part.a.mean() for part in parts])
    return disc + np.maximum(disp, disp.T) + np.abs(share[:, None] - share)


def _discrepancy(S: np.ndarray, T: np.ndarray, y_S: np.ndarray, y_T: np.ndarray) -> float:
    from sklearn.linear_model import LogisticRegression

    weight = np.repeat([1 / len(S), 1 / len(T)], [len(S), len(T)])
    target = np.concatenate([y_S, 1 - y_T])
    model = LogisticRegression(C=np.inf, max_iter=700).fit(np.concatenate([S, T]), target, weight)
    return abs((model.predict(S) != y_S).mean() - (model.predict(T) != y_T).mean())


def _disparity(S: np.ndarray, T: np.ndarray, a_S: np.ndarray, a_T: np.ndarray) -> float:
    from scipy.optimize import minimize
    from sklearn.linear_model import LogisticRegression

    start = LogisticRegression(C=1.0, max_iter=500).fit(S, a_S == 0)
    S, T = (np.column_stack([part, np.ones(len(part))]) for part in (S, T))
    balance = 0.5 * np.where(a_S == 1, 1 / a_S.sum(), 1 / (1 - a_S).sum())
    contrast = np.where(a_T == 0, 1 / (1 - a_T).sum(), -1 / a_T.sum())

    def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
        raw_S, raw_T = S @ theta, T @ theta
        logits = np.clip(raw_S, -_CLIP, _CLIP)
        p, r = _sigmoid(logits), _sigmoid(np.clip(raw_T, -_CLIP, _CLIP))
        gap = contrast @ r
        root = np.sqrt(gap**2 + 1e-8)
        slope = gap * (gap**2 + 2e-8) / root**3
        value = balance @ (np.logaddexp(0, logits) - (1 - a_S) * logits) + gap**2 / root
        of_S = balance * (p - (1 - a_S)) * (np.abs(raw_S) <= _CLIP)
        of_T = slope * contrast * r * (1 - r) * (np.abs(raw_T) <= _CLIP)
        return value, of_S @ S + of_T @ T

    theta0 = np.append(start.coef_[0], start.intercept_)
    result: Any = minimize(objective, theta0, jac=True, method="BFGS", options={"gtol": 1e-4, "maxiter": 500})
    gaps = []
    for part, a in ((S, a_S), (T, a_T)):
        positive = part @ result.x >= 0
        gaps.append(abs(positive[a == 1].mean() - positive[a == 0].mean()))
    return abs(gaps[0] - gaps[1])


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * logits))


if __name__ == "__main__":
    main()
