"""A study: adversaries x learners x methods x seeds, resumable, in parallel through joblib."""

from __future__ import annotations

import hashlib
import json
import operator
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import jax
import numpy as np

from sparsejax._checks import fail
from sparsejax._files import write_atomically
from sparsejax._folder_lock import folder_lock
from sparsejax.analysis._frames import one_of, read_stored
from sparsejax.analysis._parallel import Backend, run_jobs
from sparsejax.analysis.multisource._adversaries import ADVERSARIES, TrainingSet, choose_sources, manipulate
from sparsejax.analysis.multisource._inputs import Labels, encode_labels
from sparsejax.analysis.multisource._sklearn import accepted_arguments
from sparsejax.analysis.multisource.data._table import TabularDataset, assign_sources
from sparsejax.analysis.multisource.filter._flea import FLEA
from sparsejax.analysis.multisource.filter._konstantinov import KonstantinovFilter
from sparsejax.analysis.multisource.filter._select import number_to_keep, select_sources
from sparsejax.analysis.multisource.study._methods import (
    ABLATIONS,
    CLASSIFIERS,
    LEARNERS,
    METHODS,
    PUBLISHED,
    Hyperparameters,
    check_hyperparameters,
    learners_of,
    make_method,
    version_of,
)
from sparsejax.analysis.multisource.study._metrics import evaluate_decisions

if TYPE_CHECKING:
    import pandas as pd

_LEGACY = "as published, 2"  # in the name of a cell; raised when the defects that are repeated change


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
    n_keep: int | float | None = None,
    aggregation: Literal["sum", "max"] = "sum",
    ablation: bool = False,
    hyperparameters: Hyperparameters = PUBLISHED,
    backend: Backend | None = None,
    address: str | None = None,
) -> pd.DataFrame:
    """Run every cell that the folder does not have yet, and return all results.

    Args:
      data: the whole table; each seed splits it, assigns training rows to sources, and draws the malicious ones.
      out: folder; one JSON file per adversary and seed, written when that cell is complete.
      adversaries, learners, methods: names to run. Learners that do not apply to a method are left out; see
        `learners_of`.
      classifier: "linear" or "xgboost".
      n_sources, n_malicious: of each run.
      seeds: number of seeds, from 0.
      legacy: give "hterm" and "dro" the defects of the published numbers; see `HierarchicalTERM`, `RobustLearner`.
      n_jobs: processes, as in joblib.
      source: source of each row of ``data``, such as the state of `census`; None splits the training part into
        ``n_sources`` equal blocks.
      n_keep: how many sources FLEA keeps, as in `FLEA`; None for n_sources - n_malicious.
      aggregation: of FLEA's distances, as in `FLEA`.
      ablation: run FLEA with each of the eight subsets of its distances, and nothing else; learner "reg" on linear
        classifiers and "resample" on trees. ``methods`` and ``learners`` are ignored.
      hyperparameters: of the learners.
      backend: "loky" (processes of this machine), "dask" or "ray" (a cluster, with ``out`` on a shared disk); None is
        what an enclosing ``joblib.parallel_config`` says, or loky.
      address: of the Dask scheduler or the Ray cluster; None starts one on this machine with ``n_jobs`` workers.

    Returns:
      Data frame with columns dataset, n_sources, n_malicious, classifier, adversary, seed, learner, method, metric,
      value, version. The version of "hterm" and "dro" is "corrected" unless ``legacy``, and tables show it.

    Raises:
      ValueError: an unknown name; ``n_malicious`` is not below half of the sources; no seed; a hyperparameter that no
        learner can use; a source without a row in the training part; or a damaged file in the folder, which is named.
      OSError: another process writes to the folder, or it cannot be written to.
    """
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
    check_hyperparameters("run_study", hyperparameters)
    if ablation:
        methods, learners = tuple(ABLATIONS), ("reg" if classifier == "linear" else "resample",)
    setting = {"learners": list(learners), "methods": list(methods), "classifier": classifier}
    setting |= {"dataset": data.name, "n_sources": n_sources, "n_malicious": n_malicious}
    setting |= {"legacy": _LEGACY if legacy else False}
    keep = n_sources - n_malicious if n_keep is None else number_to_keep(n_keep, n_sources)
    # What is as published is not part of a cell's name, so that folders of earlier versions are read.
    setting |= {"n_keep": keep} if keep != n_sources - n_malicious else {}
    setting |= {"aggregation": aggregation} if aggregation != "sum" else {}
    setting |= {"hyperparameters": list(hyperparameters)} if hyperparameters != PUBLISHED else {}
    with folder_lock(out, "multisource") as folder:
        root = folder.resolve()  # workers may start elsewhere
        cells = [(data, source, root, setting, list(adversaries), seed) for seed in range(seeds)]
        parts = run_jobs("run_study", _seed, cells, n_jobs=n_jobs, backend=backend, address=address)
    rows = [row for part in parts for row in part]
    table = pd.DataFrame(rows)
    if len(table):
        table["version"] = [version_of(method, legacy) for method in table["method"]]
    return table


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
    lost = setting["n_sources"] - len(np.unique(origin))
    if lost:
        got = f"{lost} of {setting['n_sources']} sources without a row in the training part of seed {seed}"
        fail("run_study", "source", got, "rows of each", "Drop small sources, or merge them.")
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
    pools, rows, flea = {}, [], None
    keep = setting.get("n_keep", setting["n_sources"] - setting["n_malicious"])
    aggregation = setting.get("aggregation", "sum")
    for method in setting["methods"]:
        pools[method] = bad
        kept = {}
        if method in ("original", "oracle"):
            pools[method] = clean if method == "original" else clean.rows(~np.isin(clean.source, chosen))
        elif method == "konstantinov":
            konstantinov = KonstantinovFilter(setting["n_malicious"])
            konstantinov.fit(bad.X, bad.y, sensitive_features=bad.a, source=bad.source)
            pools[method], kept = bad.rows(konstantinov.support_), {"selected": konstantinov.kept_sources_}
        elif method == "flea" or method in ABLATIONS:
            if flea is None:
                flea = FLEA(n_keep=keep, aggregation=aggregation)
                flea.fit(bad.X, bad.y, sensitive_features=bad.a, source=bad.source)
            kept = {"flea": flea.kept_sources_ if method == "flea" else _kept_by(flea, ABLATIONS[method], keep)}
            pools[method] = bad.rows(np.isin(bad.source, kept["flea"]))
            if method == "flea":
                kept |= {name[:4]: labels for name, labels in flea.kept_by_.items()}  # disc, disp, disb
        for name, labels in kept.items():
            share = float(np.isin(labels, chosen).mean())
            rows.append({"learner": "-", "method": method, "metric": f"fraction_malicious_{name}", "value": share})
    return pools, rows


def _kept_by(flea: FLEA, chosen: Sequence[str], keep: int) -> np.ndarray:
    """Return the labels that the chosen distances of a fitted filter keep."""
    matrices = {"disc": flea.discrepancy_, "disp": flea.disparity_, "disb": flea.disbalance_}
    stacked = np.stack([matrices[name] for name in chosen] or [np.zeros_like(flea.d_scores_)])
    scores = stacked.sum(0) if flea.aggregation == "sum" else stacked.max(0)
    return flea.sources_[select_sources(scores, keep)]


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
        model = make_method(
            method,
            learner,
            setting["classifier"],
            seed,
            malicious,
            bool(setting["legacy"]),
            Hyperparameters(*setting.get("hyperparameters", ())),
        )
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
