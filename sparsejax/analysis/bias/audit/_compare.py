"""The entry point: dense against sparse outputs, with every metric."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from sparsejax._checks import fail
from sparsejax.analysis._arrays import ArrayLike, ColumnsLike, NumberLike, read_integer, read_number
from sparsejax.analysis.bias.audit._audit import BiasAudit
from sparsejax.analysis.bias.audit._comparison import EvaluatedRun, ScoreMeasures, Settings
from sparsejax.analysis.bias.audit._evaluate import Resampled, cover, evaluate, measure_scores, with_changes
from sparsejax.analysis.bias.audit._frame import Frame, build_frame
from sparsejax.analysis.bias.audit._inputs import (
    FUNCTION,
    Inputs,
    ModelOutputs,
    SparseLike,
    names_or_default,
    read_images,
    read_labels,
    read_models,
    read_training,
    read_validation,
)
from sparsejax.analysis.bias.metrics._arrays import same_length
from sparsejax.analysis.bias.metrics._bootstrap import read_clusters
from sparsejax.analysis.bias.metrics._flips import FlipCoverage
from sparsejax.analysis.bias.metrics._groups import read_groups
from sparsejax.analysis.bias.metrics._thresholds import calibrate_thresholds, check_thresholds


def compare(
    dense: ArrayLike,
    sparse: SparseLike,
    labels: ArrayLike,
    groups: ColumnsLike | None = None,
    *,
    kind: str = "logits",
    train_labels: ArrayLike | None = None,
    train_groups: ColumnsLike | None = None,
    val: Mapping[str, Any] | None = None,
    attribute_names: Iterable[Any] | None = None,
    group_names: Iterable[Any] | None = None,
    sample_ids: Iterable[Any] | None = None,
    images: ArrayLike | None = None,
    threshold: str | ArrayLike = "default",
    uncertainty_band: NumberLike = 0.4,
    min_count: NumberLike = 10,
    min_rel_gap: NumberLike = 0.1,
    n_bins: int = 10,
    n_boot: int = 0,
    clusters: ArrayLike | None = None,
    random_state: int = 0,
    missing: NumberLike | None = None,
    sparsity: NumberLike | None = None,
    seeds: Iterable[Any] | None = None,
) -> BiasAudit:
    """Audit the effect of pruning on the outputs of a model.

    Arrays are lists, or NumPy, masked, JAX or pandas objects; they are read by position, whatever their index is.

    Args:
      dense: outputs of the dense model on the evaluation split: [n], [n, K], or [R, n, K] for R seeds. With two or
        more seeds the flips between dense models ("churn") are the control for those between dense and sparse.
      sparse: the same for the sparse model, or a mapping from its sparsity, a fraction of zeros in [0, 1), or from
        (strategy, sparsity), to the outputs. Give the measured sparsity. Run r is compared with dense run r.
      labels: true labels [n] or [n, K] in {0, 1}, {-1, 1} or bool; NaN, None and pandas.NA are left
        out.
      groups: group attributes: mapping name -> [n], data frame, [n], or [n, G]; binary or categorical. Ground truth.
        A missing value is an error.
      kind: of the outputs, "logits" or "probs". Probabilities are clipped at 1e-7.
      train_labels: labels of the training split, which give the direction of bias amplification and the rarer value;
        without them the evaluation split does, and the report says so.
      train_groups: groups of the training split.
      val: dict(dense=, sparse=, labels=) of the validation split, in the forms above: enables calibrated thresholds,
        the risk ranking and the countermeasures that need them.
      attribute_names: K names.
      group_names: names of the columns of ``groups`` if it is an array.
      sample_ids: n names of the samples, for the gallery.
      images: uint8[n, H, W] or [n, H, W, 3], or floats in [0, 1], for the gallery. Nothing is shown without them.
      threshold: "default" (0, p = 0.5), "calibrated" (needs ``val``), a number or float[K] on the scale of the
        outputs. With ``val`` the calibrated thresholds are evaluated as well in any case.
      uncertainty_band: half width of the uncertain band of probabilities around 0.5.
      min_count: samples below which a rate or a bias amplification is not formed.
      min_rel_gap: relative gap of the training frequencies below which an association has no direction.
      n_bins: buckets of the reliability table.
      n_boot: resamples for 95 % intervals; 0 for none. Of everything that is a ratio of counts, and of its change
        with dense and sparse on the same resamples; AUC, calibration error and interdependence get none.
      clusters: [n], samples that belong together (a person, a source image) and are resampled together.
      random_state: seed of the resamples and of the gallery.
      missing: a value that marks a missing label, such as -1.
      sparsity: of ``sparse`` if it is not a mapping.
      seeds: names of the R runs.

    Returns:
      `BiasAudit`. An interval is about these models on other samples; a claim about a pruning *method* needs several
      seeds. No cell is tested for significance.

    Raises:
      ValueError: lengths differ, outputs are NaN or not of the kind, labels are not labels, or settings are out of
        range.

    Source: Iofinova, Peste & Alistarh 2023, "Bias in Pruned Vision Models: In-Depth Analysis and Countermeasures".

    >>> rng = np.random.default_rng(0)
    >>> t = rng.integers(0, 2, (200, 2))
    >>> dense = 4.0 * t - 2 + rng.normal(size=t.shape)
    >>> report = compare(dense, {0.9: dense + rng.normal(size=t.shape)}, t, {"side": rng.integers(0, 2, 200)})
    >>> [round(value, 4) for value in report.overall.where(metric="accuracy")["value"]]
    [0.9825, 0.8975]
    """
    settings = Settings(
        uncertainty_band=read_number(FUNCTION, "uncertainty_band", uncertainty_band, 1e-9, 0.5),
        min_count=read_number(FUNCTION, "min_count", min_count, 0),
        min_rel_gap=read_number(FUNCTION, "min_rel_gap", min_rel_gap, 0),
        n_bins=read_integer(FUNCTION, "n_bins", n_bins, 1, 1000),
        n_boot=read_integer(FUNCTION, "n_boot", n_boot, 0, 1_000_000),
        random_state=read_integer(FUNCTION, "random_state", random_state, 0, 2**63),
    )
    first, others = read_models(dense, sparse, val, kind, sparsity)
    models = (first, *others)
    t = read_labels(labels, missing, first)
    read = (
        []
        if groups is None or (isinstance(groups, Mapping) and not groups)
        else read_groups(FUNCTION, "groups", groups, group_names)
    )
    if read:
        same_length(FUNCTION, labels=t, groups=read[0].codes)
    train, groups_of_train = read_training(train_labels, train_groups, read, t.shape[1], missing)
    inputs = Inputs(
        dense=first,
        sparse=others,
        y_true=t,
        groups=tuple(read),
        y_train=train,
        train_groups=groups_of_train,
        y_val=read_validation(val, models, missing),
        attribute_names=names_or_default("attribute_names", attribute_names, t.shape[1], "attribute"),
        sample_ids=names_or_default("sample_ids", sample_ids, len(t), "sample"),
        images=read_images(images, len(t)),
        clusters=read_clusters(FUNCTION, clusters, len(t)),
        seeds=names_or_default("seeds", seeds, max(len(m.logits) for m in models), "run"),
    )
    frame = build_frame(inputs)
    scores = {(i, r): measure_scores(inputs, m, r, settings) for i, m in enumerate(models) for r in _seeds(m)}
    chosen = _read_threshold(threshold, kind, inputs)
    runs = _evaluate_all(inputs, frame, settings, scores, chosen)
    flips, churn = _flips(inputs, runs, scores, primary=chosen[0][0])
    return BiasAudit(inputs, settings, frame, runs, scores, flips, churn, primary=chosen[0][0])


def _seeds(model: ModelOutputs) -> range:
    return range(len(model.logits))


def _read_threshold(threshold: str | ArrayLike, kind: str, inputs: Inputs) -> list[tuple[str, np.ndarray | None]]:
    """Return the sets of thresholds to evaluate, that of the argument first; None is fitted on validation."""
    columns = inputs.y_true.shape[1]
    if isinstance(threshold, str):
        if threshold not in ("default", "calibrated"):
            fail(FUNCTION, "threshold", f"value {threshold!r}", "'default', 'calibrated', a number or float[K]")
        first = (threshold, np.zeros(columns) if threshold == "default" else None)
    else:
        theta = check_thresholds(FUNCTION, threshold, columns)
        if kind == "probs":
            if not ((theta > 0) & (theta < 1)).all():
                fail(FUNCTION, "threshold", f"value {threshold}", "probabilities in (0, 1), as kind is 'probs'")
            theta = np.log(theta) - np.log1p(-theta)
        first = ("custom", theta)
    if first[1] is None and inputs.y_val is None:
        fail(FUNCTION, "val", "no value", "outputs and labels of a validation split for threshold='calibrated'")
    both: list[tuple[str, np.ndarray | None]] = [first]
    if inputs.y_val is not None:
        both.append(("default", np.zeros(columns)) if first[1] is None else ("calibrated", None))
    return both


def _fitted(inputs: Inputs, model: ModelOutputs, seed: int) -> np.ndarray:
    assert model.val_logits is not None and inputs.y_val is not None
    return np.atleast_1d(calibrate_thresholds(model.val_logits[seed], inputs.y_val))


def _evaluate_all(
    inputs: Inputs,
    frame: Frame,
    settings: Settings,
    scores: Mapping[tuple[int, int], ScoreMeasures],
    thresholds: Sequence[tuple[str, np.ndarray | None]],
) -> tuple[EvaluatedRun, ...]:
    runs: list[EvaluatedRun] = []
    for name, fixed in thresholds:
        dense_runs: list[tuple[EvaluatedRun, Resampled]] = []
        for index, model in enumerate((inputs.dense, *inputs.sparse)):
            for seed in _seeds(model):
                theta = _fitted(inputs, model, seed) if fixed is None else fixed
                run, values = evaluate(inputs, frame, settings, model, seed, scores[index, seed], (name, theta))
                if index == 0:
                    dense_runs.append((run, values))
                else:
                    dense, dense_values = dense_runs[inputs.dense_seed(model, seed)]
                    run = with_changes(run, dense, values, dense_values)
                runs.append(run)
    return tuple(runs)


def _flips(
    inputs: Inputs, runs: Sequence[EvaluatedRun], scores: Mapping[tuple[int, int], ScoreMeasures], *, primary: str
) -> tuple[dict[tuple[int, int], FlipCoverage], tuple[FlipCoverage, ...]]:
    """Return the flips of each sparse run, and between each dense run and the next one."""
    shown = [run for run in runs if run.thresholds == primary]
    dense = [run for run in shown if run.model.role == "dense"]
    flips = {}
    for index, model in enumerate(inputs.sparse, start=1):
        for run in (run for run in shown if run.model is model):
            base = inputs.dense_seed(model, run.seed)
            flips[index, run.seed] = cover(run, dense[base], scores[0, base])
    pairs = [(i, (i + 1) % len(dense)) for i in range(len(dense))] if len(dense) > 2 else [(0, 1)][: len(dense) - 1]
    return flips, tuple(cover(dense[b], dense[a], scores[0, a]) for a, b in pairs)
