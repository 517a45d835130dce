"""Views of a comparison: the tidy numbers, aggregated and joined for one question each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from sparsejax._table import text_table
from sparsejax.analysis.bias.audit._evaluate import Interval, Run
from sparsejax.analysis.bias.audit._inputs import Model
from sparsejax.analysis.bias.audit._table import Table
from sparsejax.analysis.bias.metrics._amplification import mean_amplification
from sparsejax.analysis.bias.metrics._arrays import one_of, sigmoid
from sparsejax.analysis.bias.metrics._flips import FlipCoverage, flip_coverage
from sparsejax.analysis.bias.metrics._flips import flips as kinds_of_flips
from sparsejax.analysis.bias.metrics._measured import Measured, divide, nanmean
from sparsejax.analysis.bias.metrics._populations import pie
from sparsejax.analysis.bias.metrics._rates import RATES
from sparsejax.analysis.bias.metrics._uncertainty import uncertain_cells, uncertainty_score

if TYPE_CHECKING:
    from sparsejax.analysis.bias.audit._audit import Report

MODEL = ("model", "sparsity", "strategy", "thresholds")


def head(report: Report, model: Model, thresholds: str | None = None) -> tuple[Any, ...]:
    """Return the columns that say which model a row is about."""
    return (model.role, model.sparsity, model.strategy, thresholds or report.primary)


def sets(report: Report) -> Iterator[tuple[Model, str, list[Run]]]:
    """Iterate over models and thresholds, each with its runs."""
    for thresholds in dict.fromkeys(run.thresholds for run in report.runs):
        for model in report.models:
            yield model, thresholds, report.runs_of(model, thresholds)


def mean_over_attributes(value: Measured) -> float:
    """Return the mean of the defined values over all samples, the first row for rates by subset."""
    flat = value.value[0] if value.value.ndim == 2 else value.value
    with np.errstate(invalid="ignore"):
        return float(nanmean(flat))


class Mean(NamedTuple):
    """One mean over attributes and seeds.

    Attributes:
      model: whose.
      thresholds: at which thresholds.
      metric: of what.
      value: the mean.
      sd: standard deviation over seeds; NaN for one seed.
      seeds: number of seeds.
      cells: for bias amplification, the number of cells that the mean is over; None otherwise.
      lost: for bias amplification, cells of all seeds in which nothing is predicted positive; None otherwise.
    """

    model: Model
    thresholds: str
    metric: str
    value: float
    sd: float
    seeds: int
    cells: int | None = None
    lost: int | None = None


def means(report: Report) -> Iterator[Mean]:
    """Mean of every metric; bias amplification over the cells common to all runs at all thresholds."""
    for model, thresholds, runs in sets(report):
        for name, value in runs[0].measures.items():
            if value.value.ndim == 1 or name in RATES:
                values = [mean_over_attributes(run.measures[name]) for run in runs]
                yield Mean(model, thresholds, name, *_mean_sd(values), len(runs))
            elif name.endswith("_gap") and report.frame.pairs:
                values = [float(nanmean(np.abs(run.measures[name].value))) for run in runs]
                yield Mean(model, thresholds, f"absolute_{name}", *_mean_sd(values), len(runs))
        yield from _mean_amplifications(report, model, thresholds)


def mean_interval(found: Sequence[Interval | None], like: np.ndarray) -> Interval:
    """Return the mean over seeds of the ends of intervals; NaN, in the shape of ``like``, where there are none."""
    known = [interval for interval in found if interval is not None]
    if not known:
        return np.full_like(like, np.nan), np.full_like(like, np.nan)
    low, high = (nanmean(np.stack([interval[end] for interval in known]), axis=0) for end in (0, 1))
    return low, high


def overall(report: Report) -> Table:
    """Return `means` as a table."""
    rows = [(*head(report, mean.model, mean.thresholds), *mean[2:]) for mean in means(report)]
    return Table.of((*MODEL, *Mean._fields[2:]), rows)


def _mean_sd(values: list[float]) -> tuple[float, float]:
    finite = [value for value in values if not np.isnan(value)]
    mean = float(np.mean(finite)) if finite else float("nan")
    sd = float(np.std(finite, ddof=1)) if len(finite) > 1 and np.isfinite(finite).all() else float("nan")
    return mean, sd


def _mean_amplifications(report: Report, model: Model, thresholds: str) -> Iterator[Mean]:
    if not report.frame.pairs:
        return
    mine = [run.model is model and run.thresholds == thresholds for run in report.runs]
    choices: tuple[tuple[str, str, Literal["common", "nanmean"]], ...] = (
        ("bias_amplification", "bias_amplification", "common"),
        ("bias_amplification_per_run", "bias_amplification", "nanmean"),
        ("bias_amplification_directional", "bias_amplification_directional", "common"),
    )
    for metric, name, aggregate in choices:
        found = mean_amplification([run.measures[name] for run in report.runs], aggregate=aggregate)
        cells, lost = int(found.cells[mine].min()), int(found.lost[mine].sum())
        values = found.overall[mine].tolist()
        yield Mean(model, thresholds, metric, *_mean_sd(values), len(values), cells, lost)


def by_attribute(report: Report) -> Table:
    """One row per attribute and metric over all samples."""
    rows = []
    for model, thresholds, runs in sets(report):
        for name, value in runs[0].measures.items():
            if value.value.ndim == 2 and name not in RATES:
                continue
            values = np.stack([run.measures[name].value.reshape(-1, value.value.shape[-1])[0] for run in runs])
            reasons = value.reason.reshape(-1, value.value.shape[-1])[0]
            means = nanmean(values, axis=0)
            for i, attribute in enumerate(report.inputs.attribute_names):
                reason = str(reasons[i]) if np.isnan(means[i]) else ""
                rows.append((*head(report, model, thresholds), attribute, name, float(means[i]), reason))
    return Table.of((*MODEL, "attribute", "metric", "value", "reason"), rows)


def by_group(report: Report) -> Table:
    """Rates per level, means over seeds."""
    rows = []
    for model, thresholds, runs in sets(report):
        for name in RATES:
            means = nanmean(np.stack([run.measures[name].value for run in runs]), axis=0)
            first = runs[0]
            low, high = mean_interval([run.intervals.get(name) for run in runs], means)
            for s, (group, level) in enumerate(report.frame.subsets[1:], start=1):
                for i, attribute in enumerate(report.inputs.attribute_names):
                    reason = str(first.measures[name].reason[s, i]) if np.isnan(means[s, i]) else ""
                    numbers = (float(means[s, i]), int(first.n[s, i]), int(first.n_pos[s, i]))
                    ends = (float(low[s, i]), float(high[s, i]))
                    at = (attribute, group, level, name)
                    rows.append((*head(report, model, thresholds), *at, *numbers, *ends, reason))
    columns = ("attribute", "group", "level", "metric", "value", "n", "n_pos", "ci_low", "ci_high", "reason")
    return Table.of((*MODEL, *columns), rows)


def spread(report: Report, kind: str, method: str) -> Table:
    """Difference or ratio of each rate over the levels of each group."""
    one_of(f"Report.{kind}", "method", method, ("between_groups", "to_overall"))
    rows = []
    for model, thresholds, runs in sets(report):
        for group in report.inputs.groups:
            at = [i for i, (name, _) in enumerate(report.frame.subsets) if name == group.name]
            for name in RATES:
                values = np.stack([_spread(run.measures[name].value, at, kind, method) for run in runs])
                for attribute, value in zip(report.inputs.attribute_names, nanmean(values, axis=0), strict=True):
                    rows.append((*head(report, model, thresholds), attribute, group.name, name, float(value)))
    return Table.of((*MODEL, "attribute", "group", "metric", "value"), rows)


def _spread(values: np.ndarray, at: list[int], kind: str, method: str) -> np.ndarray:
    levels = values[at]
    if method == "to_overall":
        if kind == "difference":
            return np.fmax.reduce(np.abs(levels - values[0]), axis=0)
        return np.fmin.reduce(np.fmin(divide(levels, values[0]), divide(values[0], levels)), axis=0)
    low, high = np.fmin.reduce(levels, axis=0), np.fmax.reduce(levels, axis=0)
    return high - low if kind == "difference" else divide(low, high)


def bias(report: Report) -> Table:
    """Bias amplification of each cell and run, with its change."""
    rows = []
    nothing = np.full((len(report.frame.pairs), len(report.inputs.attribute_names)), np.nan)
    for model, thresholds, runs in sets(report):
        for run in runs:
            found = run.measures["bias_amplification"]
            change = run.changes["bias_amplification"].value if run.changes else nothing
            low, high = run.change_intervals.get("bias_amplification", (nothing, nothing))
            for p, name in enumerate(report.pair_names):
                for i, attribute in enumerate(report.inputs.attribute_names):
                    numbers = (found.value[p, i], change[p, i], low[p, i], high[p, i])
                    at = (report.inputs.seeds[run.seed], attribute, name)
                    reason = str(found.reason[p, i])
                    rows.append((*head(report, model, thresholds), *at, *map(float, numbers), reason))
    columns = ("seed", "attribute", "group", "value", "change", "change_low", "change_high", "reason")
    return Table.of((*MODEL, *columns), rows)


def flips(report: Report) -> Table:
    """Flips per sparse run, and of the control."""
    rows = []
    for index, model in enumerate(report.inputs.sparse, start=1):
        for run in report.runs_of(model):
            dense = report.runs_of(report.inputs.dense)[report.inputs.dense_seed(model, run.seed)]
            train = report.inputs.y_train if report.inputs.y_train is not None else report.inputs.y_true
            kinds = kinds_of_flips(dense.y_pred, run.y_pred, y_true=report.inputs.y_true, y_train=train)
            total = kinds.flip.sum()
            shares = [
                float(divide(kind.sum(), total))
                for kind in (kinds.right_to_wrong, kinds.wrong_to_right, kinds.to_common)
                if kind is not None
            ]
            seed = report.inputs.seeds[run.seed]
            rows.append(
                (model.label, model.sparsity, model.strategy, seed, *report.flip_coverage[index, run.seed], *shares)
            )
    nan = float("nan")
    for index, found in enumerate(report.churn):
        rows.append(("churn", 0.0, "", f"pair {index}", *found, nan, nan, nan))
    columns = ("model", "sparsity", "strategy", "seed", *FlipCoverage._fields)
    return Table.of((*columns, "right_to_wrong", "wrong_to_right", "to_common"), rows)


def reliability(report: Report) -> Table:
    """Pooled reliability tables."""
    rows = []
    for index, model in enumerate(report.models):
        tables = [report.outputs[index, seed].reliability for seed in range(len(model.logits))]
        count = sum(table.count for table in tables)
        prob = sum(np.nan_to_num(table.mean_prob) * table.count for table in tables)
        label = sum(np.nan_to_num(table.mean_label) * table.count for table in tables)
        names = ("", *report.inputs.attribute_names)
        for column, attribute in enumerate(names):
            pick = (lambda x: x.sum(axis=1)) if column == 0 else (lambda x, c=column: x[:, c - 1])
            n = pick(count)
            means, rates = divide(pick(prob), n), divide(pick(label), n)
            for b, lower in enumerate(tables[0].lower):
                numbers = (float(lower), float(means[b]), float(rates[b]), int(n[b]))
                rows.append((model.role, model.sparsity, model.strategy, attribute, *numbers))
    columns = ("model", "sparsity", "strategy", "attribute", "lower", "mean_prob", "mean_label", "count")
    return Table.of(columns, rows)


def exemplars(report: Report) -> Table:
    """PIE per attribute, and how accurate the dense models are on them."""
    rows = []
    dense = report.runs_of(report.inputs.dense)
    t = report.inputs.y_true
    dense_pred = np.stack([run.y_pred for run in dense]).astype(np.int8)
    right = np.where(np.isnan(t), np.nan, (dense_pred == t).mean(axis=0))
    for model in report.inputs.sparse:
        runs = report.runs_of(model)
        if min(len(runs), len(dense)) < 2:
            continue
        found = pie(dense_pred, np.stack([run.y_pred for run in runs]).astype(np.int8))
        columns = [("", found, right)] + [
            (name, found[:, i], right[:, i]) for i, name in enumerate(report.inputs.attribute_names)
        ]
        for name, mask, accuracy in columns:
            numbers = (float(mask.mean()), float(nanmean(accuracy[mask])), float(nanmean(accuracy)))
            rows.append((model.label, model.sparsity, model.strategy, name, int(mask.sum()), *numbers))
    columns = ("count", "share", "dense_accuracy_on_pie", "dense_accuracy")
    return Table.of(("model", "sparsity", "strategy", "attribute", *columns), rows)


def susceptible(report: Report, band: float) -> Table:
    """Exposed share and covered flips, per attribute and over all."""
    rows = []
    dense = report.runs_of(report.inputs.dense)
    unsure = [uncertain_cells("Report.susceptible", run.model.logits[run.seed], band, "logits") for run in dense]
    scores = [uncertainty_score(run.model.logits[run.seed]) for run in dense]
    for model in report.inputs.sparse:
        for run in report.runs_of(model):
            base = report.inputs.dense_seed(model, run.seed)
            flip = run.y_pred != dense[base].y_pred
            seed = report.inputs.seeds[run.seed]
            for i, name in enumerate(("", *report.inputs.attribute_names)):
                pick = slice(None) if i == 0 else slice(i - 1, i)
                found = flip_coverage(flip[:, pick], unsure[base][:, pick], scores[base][:, pick])
                rows.append((model.label, model.sparsity, model.strategy, seed, name, band, *found))
    return Table.of(("model", "sparsity", "strategy", "seed", "attribute", "band", *FlipCoverage._fields), rows)


def safe_sparsity(report: Report) -> tuple[float | None, str]:
    """Compare the flips with the control."""
    if not report.churn:
        return None, "no control: pass two or more dense seeds to know how many decisions flip without pruning"
    limit = float(np.mean([found.flip_rate for found in report.churn]))
    largest = None
    for index, model in sorted(enumerate(report.inputs.sparse, start=1), key=lambda item: item[1].sparsity):
        rate = np.mean([report.flip_coverage[index, run.seed].flip_rate for run in report.runs_of(model)])
        if rate > limit:
            if largest is None:
                return None, f"{model.label} flips {rate:.2%} of the decisions, dense seeds {limit:.2%}"
            break
        largest = model
    assert largest is not None
    return largest.sparsity, f"up to {largest.label} no more decisions flip than between dense seeds ({limit:.2%})"


def warnings(report: Report) -> list[str]:
    """What limits the comparison."""
    inputs, found = report.inputs, []
    if inputs.y_train is None:
        found.append("No training labels: the evaluation split gives the direction of bias and the rarer value.")
    elif inputs.train_groups is None and inputs.groups:
        found.append("No training groups: the evaluation split gives the direction of bias amplification.")
    if not report.churn:
        found.append("No churn control: with a single dense seed, flips may be no more than those between two seeds.")
    if inputs.y_val is None:
        found.append("No validation split: no calibrated thresholds and no risk ranking.")
    for subset, size in zip(report.frame.subsets[1:], report.frame.members[1:].sum(axis=1), strict=True):
        if size < report.settings.min_count:
            found.append(f"Small group: {subset[0]} = {subset[1]} has {int(size)} samples.")
    lost: dict[str, int] = {}
    for run in report.runs:
        if run.thresholds == report.primary:
            count = int((run.measures["bias_amplification"].reason == "no_predicted_positives").sum())
            lost[run.model.label] = lost.get(run.model.label, 0) + count
    found += [
        f"Cells lost: {label} predicts nothing positive in {count} (attribute, group, seed) cells."
        for label, count in lost.items()
        if count
    ]
    values = np.stack([run.measures["bias_amplification"].value for run in report.runs])
    if values.size and np.isnan(values).any(axis=0).all():
        found.append("No cell of bias amplification is defined in every run: read bias_amplification_per_run instead.")
    known = ~np.isnan(inputs.y_true)
    rate = divide((inputs.y_true == 1).sum(axis=0), known.sum(axis=0))
    single = [name for name, r in zip(inputs.attribute_names, rate, strict=True) if not 0 < r < 1]
    if single:
        found.append(f"One class only in the evaluation split: {', '.join(single)}.")
    return found


def summary(report: Report) -> str:
    """Return a text table of the main numbers."""
    names = ("accuracy", "auc", "uncertainty", "rare_value_ratio", "bias_amplification")
    cells = {
        (mean.model.label, mean.metric): f"{mean.value:.4f}"
        for mean in means(report)
        if mean.thresholds == report.primary
    }
    body = [(m.label, *(cells.get((m.label, name), "-") for name in names)) for m in report.models]
    return text_table(("", *names), body)


def prediction_histogram(report: Report, model: Model, bins: int = 20) -> np.ndarray:
    """Return the share of predicted probabilities in equal buckets, over all cells and seeds, float64[bins]."""
    counts = np.zeros(bins)
    for z in model.logits:
        counts += np.bincount(np.minimum((sigmoid(z).ravel() * bins).astype(int), bins - 1), minlength=bins)
    return counts / counts.sum()
