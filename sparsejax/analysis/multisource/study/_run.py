"""A study: adversaries x learners x methods x seeds, resumable, in parallel through joblib."""

from __future__ import annotations

import hashlib
import json
import operator
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from sparsejax._checks import fail
from sparsejax._files import write_atomically
from sparsejax.analysis._frames import one_of, read_stored
from sparsejax.analysis.multisource._adversaries import ADVERSARIES, TrainingSet, choose_sources, manipulate
from sparsejax.analysis.multisource._inputs import Labels, encode_labels
from sparsejax.analysis.multisource._sklearn import accepted_arguments
from sparsejax.analysis.multisource.data._table import TabularDataset, assign_sources
from sparsejax.analysis.multisource.filter._flea import FLEA
from sparsejax.analysis.multisource.filter._konstantinov import KonstantinovFilter
from sparsejax.analysis.multisource.study._methods import CLASSIFIERS, LEARNERS, METHODS, learners_of, make_method
from sparsejax.analysis.multisource.study._metrics import evaluate_decisions

if TYPE_CHECKING:
    import pandas as pd


def run_study(
    data: TabularDataset,
    out: str | Path,
    *,
    adversaries: Sequence[str] = ADVERSARIES,
    learners: Sequence[str] = LEARNERS,
    methods: Sequence[str] = METHODS,
    classifier: str = "linear",
    n_sources: int = 5,
    n_malicious: int = 2,
    seeds: int = 10,
    legacy: bool = False,
    n_jobs: int = 1,
    source: Labels = None,
) -> pd.DataFrame:
    """Run every cell that the folder does not have yet, and return all results.

    Args:
      data: the whole table; each seed splits it, assigns training rows to sources, and draws the malicious ones.
      out: folder; one JSON file per adversary and seed, written when that cell is complete.
      adversaries, learners, methods: names to run. Learners that do not apply to a method are left out; see
        `learners_of`.
      classifier: "linear" or "xgboost".
      n_sources, n_malicious: of each run; FLEA keeps n_sources - n_malicious.
      seeds: number of seeds, from 0.
      legacy: give "hterm" and "dro" the defects of the published numbers; see `HierarchicalTERM`, `RobustLearner`.
      n_jobs: processes, as in joblib.
      source: source of each row of ``data``, such as the state of `census`; None splits the training part into
        ``n_sources`` equal blocks.

    Returns:
      Data frame with columns dataset, n_sources, n_malicious, classifier, adversary, seed, learner, method, metric,
      value.

    Raises:
      ValueError: an unknown name; ``n_malicious`` is not below half of the sources; no seed; or a damaged file in the
        folder, which is named.
    """
    import joblib
    import pandas as pd

    named = {"adversaries": (adversaries, ADVERSARIES), "methods": (methods, METHODS)}
    named |= {"learners": (learners, LEARNERS), "classifier": ([classifier], CLASSIFIERS)}
    for operand, (names, known) in named.items():
        for name in names:
            one_of("run_study", operand, name, known)
    if source is not None:
        names, source = encode_labels("run_study", "source", source, len(data.y))
        n_sources = len(names)
    n_sources, n_malicious, seeds = map(operator.index, (n_sources, n_malicious, seeds))  # those of NumPy and JAX too
    if seeds < 1:
        fail("run_study", "seeds", f"value {seeds}", "at least 1")
    if not 0 <= n_malicious < n_sources / 2:
        fail("run_study", "n_malicious", f"value {n_malicious}", f"less than half of {n_sources}, the sources")
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    setting = {"learners": list(learners), "methods": list(methods), "classifier": classifier, "legacy": legacy}
    setting |= {"dataset": data.name, "n_sources": n_sources, "n_malicious": n_malicious}
    jobs = [joblib.delayed(_seed)(data, source, folder, setting, list(adversaries), seed) for seed in range(seeds)]
    rows = [row for part in joblib.Parallel(n_jobs=n_jobs)(jobs) for row in part]  # pyright: ignore[reportOptionalIterable]
    return pd.DataFrame(rows)


def _seed(
    data: TabularDataset,
    source: np.ndarray | None,
    folder: Path,
    setting: dict[str, Any],
    adversaries: list[str],
    seed: int,
) -> list[dict[str, Any]]:
    """Run every adversary of one seed. Equal training sets, such as perfectly filtered ones, train once."""
    rows, memory = [], {}
    for adversary in adversaries:
        key = hashlib.sha256(json.dumps([setting, adversary, seed], sort_keys=True).encode()).hexdigest()[:16]
        file = folder / f"{data.name}-{adversary.replace('#', '_')}-{seed}-{key}.json"
        if not file.exists():
            cell = _cell(data, source, setting, adversary, seed, memory)
            write_atomically(file, json.dumps(cell))
        rows += read_stored("run_study", file)
    return rows


def _cell(
    data: TabularDataset,
    source: np.ndarray | None,
    setting: dict[str, Any],
    adversary: str,
    seed: int,
    memory: dict[Any, Any],
) -> list[dict[str, Any]]:
    train, test = data.split(seed)
    # Labels of sources are split with the rows, in the place of the labels.
    split = None if source is None else data._replace(y=source).split(seed)[0].y
    origin = assign_sources(len(train.y), setting["n_sources"]) if split is None else split
    clean = TrainingSet(train.X, train.y, train.a, origin, train.protected)
    chosen = choose_sources(setting["n_sources"], setting["n_malicious"], seed)
    bad = manipulate(adversary, clean, chosen, jax.random.key(seed))
    head = {k: setting[k] for k in ("dataset", "n_sources", "n_malicious", "classifier")}
    head |= {"adversary": adversary, "seed": seed}
    pools, rows = _pools(setting, clean, bad, chosen)
    for method, pool in pools.items():
        for learner in (x for x in setting["learners"] if x in learners_of(method, setting["classifier"])):
            scores = _train(pool, test, setting, method, learner, seed, chosen, memory)
            rows += [{"learner": learner, "method": method, "metric": m, "value": v} for m, v in scores.items()]
    return [{**head, **row} for row in rows]


def _pools(
    setting: dict[str, Any], clean: TrainingSet, bad: TrainingSet, chosen: np.ndarray
) -> tuple[dict[str, TrainingSet], list[dict[str, Any]]]:
    """Return the training set of each method, and the share of malicious sources among those that filters kept."""
    pools, rows = {}, []
    for method in setting["methods"]:
        pools[method] = bad
        kept = {}
        if method in ("original", "oracle"):
            pools[method] = clean if method == "original" else clean.rows(~np.isin(clean.source, chosen))
        elif method in ("flea", "konstantinov"):
            keep = setting["n_sources"] - setting["n_malicious"]
            source_filter = FLEA(n_keep=keep) if method == "flea" else KonstantinovFilter(setting["n_malicious"])
            source_filter.fit(bad.X, bad.y, sensitive_features=bad.a, source=bad.source)
            pools[method] = bad.rows(source_filter.support_)
            kept = {"flea" if method == "flea" else "selected": source_filter.kept_sources_}
            if isinstance(source_filter, FLEA):
                kept |= {name[:4]: labels for name, labels in source_filter.kept_by_.items()}  # disc, disp, disb
        for name, labels in kept.items():
            share = float(np.isin(labels, chosen).mean())
            rows.append({"learner": "-", "method": method, "metric": f"fraction_malicious_{name}", "value": share})
    return pools, rows


def _train(
    pool: TrainingSet,
    test: TabularDataset,
    setting: dict[str, Any],
    method: str,
    learner: str,
    seed: int,
    chosen: np.ndarray,
    memory: dict[Any, Any],
) -> dict[str, float]:
    content = b"".join(np.ascontiguousarray(part).tobytes() for part in pool[:4])
    kind = method if method in ("ensemble", "hterm", "dro") else "one model"
    key = hashlib.sha256(content).digest(), kind, learner
    if key not in memory:
        malicious = setting["n_malicious"] / setting["n_sources"]
        model = make_method(method, learner, setting["classifier"], seed, malicious, setting["legacy"])
        by_source = {"source": pool.source} if kind in ("ensemble", "hterm") else {}
        model.fit(pool.X, pool.y, **accepted_arguments(model, sensitive_features=pool.a, **by_source))
        options = {"sensitive_features": test.a} if learner == "pp" else {}
        predicted = model.predict(test.X, **options)
        score = model.predict_proba(test.X, **options)[:, 1]
        memory[key] = evaluate_decisions(test.y, predicted, sensitive_features=test.a, y_score=score)
        if kind == "ensemble":
            deciding = model.sources_[model.deciding_source(test.X, **options)]
            memory[key]["fraction_decisions_malicious"] = float(np.isin(deciding, chosen).mean())
    return memory[key]
