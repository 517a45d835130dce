"""A study: adversaries x learners x methods x seeds, resumable, in parallel through joblib."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sparsejax._checks import fail
from sparsejax.analysis.multisource._adversarial import AdversarialLearner
from sparsejax.analysis.multisource._adversaries import ADVERSARIES, TrainingSet, choose_sources, manipulate
from sparsejax.analysis.multisource._baselines import Ensemble, KonstantinovFilter
from sparsejax.analysis.multisource._dataset import Dataset, blocks
from sparsejax.analysis.multisource._filter import FLEA
from sparsejax.analysis.multisource._learners import PlainLearner, PostprocessedLearner, RegularisedLearner
from sparsejax.analysis.multisource._metrics import evaluate
from sparsejax.analysis.multisource._resample import ResampledLearner, boosted_trees

LEARNERS = ("none", "reg", "pp", "adv", "resample")
TREE_LEARNERS = ("none", "resample")
METHODS = ("original", "oracle", "naive", "flea", "konstantinov", "ensemble")


def make_learner(learner: str, classifier: str, seed: int) -> Any:
    """Return the learner of the study with this name, on "linear" or "xgboost"."""
    if classifier == "xgboost":
        return boosted_trees() if learner == "none" else ResampledLearner(boosted_trees(), random_state=seed)
    return {
        "none": PlainLearner(),
        "reg": RegularisedLearner(),
        "pp": PostprocessedLearner(),
        "adv": AdversarialLearner(),
        "resample": ResampledLearner(random_state=seed),
    }[learner]


def run_study(
    data: Dataset,
    out: str | Path,
    *,
    adversaries: Sequence[str] = ADVERSARIES,
    learners: Sequence[str] = LEARNERS,
    methods: Sequence[str] = METHODS,
    classifier: str = "linear",
    n_sources: int = 5,
    n_malicious: int = 2,
    seeds: int = 10,
    n_jobs: int = 1,
) -> Any:
    """Run what is not in the folder yet, and return all of it.

    Args:
      data: the whole table; each seed splits it, deals the training part to sources, and chooses the malicious ones.
      out: folder; one JSON file per adversary and seed, written when that cell is complete.
      adversaries, learners, methods: names to run.
      classifier: "linear" or "xgboost" (learners none and resample).
      n_sources, n_malicious: of each run; FLEA keeps n_sources - n_malicious.
      seeds: number of seeds, from 0.
      n_jobs: processes, as in joblib.

    Returns:
      Data frame with columns dataset, n_sources, n_malicious, adversary, seed, learner, classifier, method, metric,
      value.

    Raises:
      ValueError: an unknown name.
    """
    import joblib
    import pandas as pd

    wanted = {"adversaries": (adversaries, ADVERSARIES), "methods": (methods, METHODS)}
    wanted["learners"] = (learners, LEARNERS if classifier == "linear" else TREE_LEARNERS)
    wanted["classifier"] = ([classifier], ("linear", "xgboost"))
    for operand, (names, known) in wanted.items():
        for name in names:
            if name not in known:
                fail("run_study", operand, f"value {name!r}", f"one of {', '.join(known)}")
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    setting = {"learners": list(learners), "methods": list(methods), "classifier": classifier}
    setting |= {"dataset": data.name, "n_sources": n_sources, "n_malicious": n_malicious}
    jobs = [joblib.delayed(_seed)(data, folder, setting, list(adversaries), seed) for seed in range(seeds)]
    rows = [row for part in joblib.Parallel(n_jobs=n_jobs)(jobs) for row in part]  # pyright: ignore[reportOptionalIterable]
    return pd.DataFrame(rows)


def _seed(data: Dataset, folder: Path, setting: dict[str, Any], adversaries: list[str], seed: int) -> list[dict]:
    """Every adversary of one seed. Training sets that occur twice, such as a perfectly filtered one, train once."""
    rows, memory = [], {}
    for adversary in adversaries:
        key = hashlib.sha256(json.dumps([setting, adversary, seed], sort_keys=True).encode()).hexdigest()[:16]
        file = folder / f"{data.name}-{adversary.replace('#', '_')}-{seed}-{key}.json"
        if not file.exists():
            cell = _cell(data, setting, adversary, seed, memory)
            partial = file.with_suffix(f".{os.getpid()}.partial")
            partial.write_text(json.dumps(cell))
            partial.replace(file)
        rows += json.loads(file.read_text())
    return rows


def _cell(data: Dataset, setting: dict[str, Any], adversary: str, seed: int, memory: dict) -> list[dict]:
    train, test = data.split(seed)
    source = blocks(len(train.y), setting["n_sources"])
    clean = TrainingSet(train.X, train.y, train.a, source, train.protected)
    chosen = choose_sources(setting["n_sources"], setting["n_malicious"], seed)
    bad = manipulate(adversary, clean, chosen, jax.random.key(seed))
    head = {k: setting[k] for k in ("dataset", "n_sources", "n_malicious", "classifier")}
    head |= {"adversary": adversary, "seed": seed}
    pools, rows = {}, []
    for method in setting["methods"]:
        if method == "flea":
            keep = setting["n_sources"] - setting["n_malicious"]
            found = FLEA(n_keep=keep).fit(bad.X, bad.y, sensitive_features=bad.a, source=bad.source)
            pools[method] = bad.rows(found.support_)
            rows += [{**head, "learner": "-", "method": method, **share} for share in _shares(found, chosen)]
        elif method == "konstantinov":
            found = KonstantinovFilter(setting["n_malicious"])
            found.fit(bad.X, bad.y, sensitive_features=bad.a, source=bad.source)
            pools[method] = bad.rows(found.support_)
        elif method in ("original", "oracle"):
            pools[method] = clean if method == "original" else clean.rows(~np.isin(source, chosen))
        else:
            pools[method] = bad
    for method, pool in pools.items():
        for learner in setting["learners"]:
            scores = _train(pool, test, learner, setting["classifier"], method == "ensemble", seed, memory)
            rows += [{**head, "learner": learner, "method": method, "metric": m, "value": v} for m, v in scores.items()]
    return rows


def _shares(found: FLEA, chosen: np.ndarray) -> list[dict[str, Any]]:
    """Share of malicious sources among the kept ones, of all distances together and of each alone."""
    short = {"discrepancy": "disc", "disparity": "disp", "disbalance": "disb"}
    kept = {"flea": found.kept_sources_} | {short[name]: labels for name, labels in found.kept_by_.items()}
    return [
        {"metric": f"fraction_malicious_{name}", "value": float(np.isin(labels, chosen).mean())}
        for name, labels in kept.items()
    ]


def _train(
    pool: TrainingSet, test: Dataset, learner: str, classifier: str, ensemble: bool, seed: int, memory: dict
) -> dict[str, float]:
    content = b"".join(np.ascontiguousarray(part).tobytes() for part in (pool.X, pool.y, pool.a))
    key = hashlib.sha256(content).digest(), learner, ensemble
    if key not in memory:
        model = make_learner(learner, classifier, seed)
        if ensemble:
            model = Ensemble(model).fit(pool.X, pool.y, sensitive_features=pool.a, source=pool.source)
        elif learner == "none" and classifier == "xgboost":
            model.fit(pool.X, pool.y)
        else:
            model.fit(pool.X, pool.y, sensitive_features=pool.a)
        options = {"sensitive_features": test.a} if learner == "pp" else {}
        predicted = model.predict(test.X, **options)
        score = model.predict_proba(test.X, **options)[:, 1]
        memory[key] = evaluate(test.y, predicted, sensitive_features=test.a, y_score=score)
    return memory[key]
