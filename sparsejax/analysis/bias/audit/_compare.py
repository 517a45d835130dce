"""The entry point: dense against sparse outputs, everything measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sparsejax._checks import fail
from sparsejax.analysis.bias.audit._audit import Report
from sparsejax.analysis.bias.audit._evaluate import (
    Outputs,
    Run,
    Settings,
    add_changes,
    cover,
    measure_outputs,
    measure_run,
)
from sparsejax.analysis.bias.audit._frame import Frame, build_frame
from sparsejax.analysis.bias.audit._inputs import (
    FUNCTION,
    Inputs,
    Model,
    check_settings,
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
    dense: Any,
    sparse: Any,
    labels: Any,
    groups: Any = None,
    *,
    kind: str = "logits",
    train_labels: Any = None,
    train_groups: Any = None,
    val: Mapping[str, Any] | None = None,
    attribute_names: Sequence[str] | None = None,
    group_names: Sequence[str] | None = None,
    sample_ids: Sequence[Any] | None = None,
    images: Any = None,
    threshold: Any = "default",
    uncertainty_band: float = 0.4,
    min_count: int = 10,
    min_rel_gap: float = 0.1,
    n_bins: int = 10,
    n_boot: int = 0,
    clusters: Any = None,
    random_state: int = 0,
    missing: float | None = None,
    sparsity: float | None = None,
    seeds: Sequence[Any] | None = None,
) -> Report:
    """Audit what pruning did to the outputs of a model.

    Args:
      dense: outputs of the dense model on the evaluation split: [n], [n, K], or [R, n, K] for R seeds. With two or
        more seeds the flips between dense models ("churn") are the control for those between dense and sparse.
      sparse: the same for the sparse model, or a mapping from its sparsity, a fraction of zeros in [0, 1), or from
        (strategy, sparsity), to the outputs. Give the measured sparsity. Run r is compared with dense run r.
      labels: true labels [n] or [n, K] in {0, 1}, {-1, 1} or bool; NaN entries are left out.
      groups: group attributes: mapping name -> [n], [n], or [n, G]; binary or categorical. Ground truth.
      kind: what the outputs are, "logits" or "probs". Probabilities are clipped at 1e-7.
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
      `Report`. An interval speaks about these models on other samples; a claim about a pruning *method* needs several
      seeds. Nothing is tested for significance cell by cell.

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
    check_settings(uncertainty_band, n_bins, n_boot, min_count)
    first, others = read_models(dense, sparse, val, kind, sparsity)
    models = (first, *others)
    t = read_labels(labels, missing, first)
    found = [] if groups is None else read_groups(FUNCTION, "groups", groups, group_names)
    if found:
        same_length(FUNCTION, labels=t, groups=found[0].codes)
    train, found_train = read_training(train_labels, train_groups, found, t.shape[1], missing)
    inputs = Inputs(
        dense=first,
        sparse=others,
        y_true=t,
        groups=tuple(found),
        y_train=train,
        train_groups=found_train,
        y_val=read_validation(val, models, missing),
        attribute_names=names_or_default("attribute_names", attribute_names, t.shape[1], "attribute"),
        sample_ids=names_or_default("sample_ids", sample_ids, len(t), "sample"),
        images=read_images(images, len(t)),
        clusters=read_clusters(FUNCTION, clusters, len(t)),
        seeds=names_or_default("seeds", seeds, max(len(m.logits) for m in models), "run"),
    )
    settings = Settings(uncertainty_band, min_count, min_rel_gap, n_bins, n_boot, random_state)
    frame = build_frame(inputs)
    outputs = {(i, r): measure_outputs(inputs, m, r, settings) for i, m in enumerate(models) for r in _seeds(m)}
    chosen = _read_threshold(threshold, kind, inputs)
    runs = _measure(inputs, frame, settings, outputs, chosen)
    flips, churn = _flips(inputs, runs, outputs, primary=chosen[0][0])
    return Report(inputs, settings, frame, runs, outputs, flips, churn, primary=chosen[0][0])


def _seeds(model: Model) -> range:
    return range(len(model.logits))


def _read_threshold(threshold: Any, kind: str, inputs: Inputs) -> list[tuple[str, np.ndarray | None]]:
    """The sets of thresholds to evaluate, the one asked for first; None stands for those fitted on validation."""
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
        first = ("given", theta)
    if first[1] is None and inputs.y_val is None:
        fail(FUNCTION, "val", "no value", "outputs and labels of a validation split for threshold='calibrated'")
    both: list[tuple[str, np.ndarray | None]] = [first]
    if inputs.y_val is not None:
        both.append(("default", np.zeros(columns)) if first[1] is None else ("calibrated", None))
    return both


def _fitted(inputs: Inputs, model: Model, seed: int) -> np.ndarray:
    assert model.val_logits is not None and inputs.y_val is not None
    return calibrate_thresholds(model.val_logits[seed], inputs.y_val)


def _measure(
    inputs: Inputs,
    frame: Frame,
    settings: Settings,
    outputs: dict[tuple[int, int], Outputs],
    thresholds: Sequence[tuple[str, np.ndarray | None]],
) -> list[Run]:
    runs: list[Run] = []
    for name, fixed in thresholds:
        dense_runs: list[Run] = []
        for index, model in enumerate((inputs.dense, *inputs.sparse)):
            for seed in _seeds(model):
                theta = _fitted(inputs, model, seed) if fixed is None else fixed
                own = outputs[index, seed]
                run = measure_run(inputs, frame, settings, model, seed, own, (name, theta))
                if index == 0:
                    dense_runs.append(run)
                else:
                    add_changes(run, dense_runs[inputs.dense_seed(model, seed)])
                runs.append(run)
    for run in runs:
        run.resampled.clear()  # megabytes, and every interval has been taken
    return runs


def _flips(
    inputs: Inputs, runs: Sequence[Run], outputs: dict[tuple[int, int], Outputs], *, primary: str
) -> tuple[dict[tuple[int, int], FlipCoverage], list[FlipCoverage]]:
    """Flips of each sparse run, and between each dense run and the next one (none if there is one only)."""
    shown = [run for run in runs if run.thresholds == primary]
    dense = [run for run in shown if run.model.role == "dense"]
    found = {}
    for index, model in enumerate(inputs.sparse, start=1):
        for run in (run for run in shown if run.model is model):
            base = inputs.dense_seed(model, run.seed)
            found[index, run.seed] = cover(run, dense[base], outputs[0, base])
    pairs = [(i, (i + 1) % len(dense)) for i in range(len(dense))] if len(dense) > 2 else [(0, 1)][: len(dense) - 1]
    return found, [cover(dense[b], dense[a], outputs[0, a]) for a, b in pairs]
