"""Views of a comparison: its numbers aggregated and joined, one table for one question."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from sparsejax._checks import fail
from sparsejax.analysis._arrays import NumberLike, read_number
from sparsejax.analysis.bias.audit._comparison import Comparison, EvaluatedRun, Interval
from sparsejax.analysis.bias.audit._inputs import ModelOutputs
from sparsejax.analysis.bias.audit._table import Table
from sparsejax.analysis.bias.metrics._amplification import mean_amplification
from sparsejax.analysis.bias.metrics._flips import FlipCoverage, flip_coverage
from sparsejax.analysis.bias.metrics._flips import flips as kinds_of_flips
from sparsejax.analysis.bias.metrics._measured import Measured, divide, nanmean
from sparsejax.analysis.bias.metrics._populations import pie
from sparsejax.analysis.bias.metrics._rates import RATES, SpreadMethod, difference_of_levels, ratio_of_levels
from sparsejax.analysis.bias.metrics._risk import BiasRisk, risk_of
from sparsejax.analysis.bias.metrics._uncertainty import uncertain_cells, uncertainty_score

MODEL = ("model", "sparsity", "strategy", "thresholds")


def _head(model: ModelOutputs, thresholds: str) -> tuple[Any, ...]:
    return (model.role, model.sparsity, model.strategy, thresholds)


def _sets(comparison: Comparison) -> Iterator[tuple[ModelOutputs, str, list[EvaluatedRun]]]:
    """Iterate over thresholds and models, each with its runs."""
    for thresholds in dict.fromkeys(run.thresholds for run in comparison.runs):
        for model in comparison.models:
            yield model, thresholds, comparison.runs_of(model, thresholds)


class Mean(NamedTuple):
    """One mean over attributes and seeds.

    Attributes:
      model: the model.
      thresholds: "default", "calibrated" or "custom".
      metric: name of the metric.
      value: the mean.
      sd: standard deviation over seeds; NaN for one seed.
      seeds: number of seeds.
      cells: for bias amplification, the number of cells that the mean is over; None otherwise.
      lost: for bias amplification, cells of all seeds in which nothing is predicted positive; None otherwise.
      reason: why ``value`` is NaN, a key of `REASONS`; "" where it is not.
    """

    model: ModelOutputs
    thresholds: str
    metric: str
    value: float
    sd: float
    seeds: int
    cells: int | None = None
    lost: int | None = None
    reason: str = ""


def means(comparison: Comparison) -> Iterator[Mean]:
    """Yield the mean of every metric; bias amplification over the cells common to all runs at all thresholds."""
    for model, thresholds, runs in _sets(comparison):
        for name, value in runs[0].measures.items():
            if value.value.ndim == 1 or name in RATES:
                cells = [_over_all_samples(run.measures[name]) for run in runs]
                values = [float(nanmean(value)) for value, _ in cells]
                yield _with_reason(Mean(model, thresholds, name, *_mean_sd(values), len(runs)), *(r for _, r in cells))
            elif name.endswith("_gap") and comparison.frame.pairs:
                values = [float(nanmean(np.abs(run.measures[name].value))) for run in runs]
                mean = Mean(model, thresholds, f"absolute_{name}", *_mean_sd(values), len(runs))
                yield _with_reason(mean, *(run.measures[name].reason for run in runs))
        yield from _mean_amplifications(comparison, model, thresholds)


def _with_reason(mean: Mean, *reasons: np.ndarray) -> Mean:
    """Give an undefined mean the most frequent reason of its cells."""
    if not np.isnan(mean.value):
        return mean
    names, counts = np.unique([name for cells in reasons for name in cells.ravel() if name], return_counts=True)
    return mean._replace(reason=str(names[counts.argmax()]) if len(names) else "no_common_cells")


def _over_all_samples(value: Measured) -> tuple[np.ndarray, np.ndarray]:
    """Return values and reasons [K]; the first row is that of all samples, for rates by subset."""
    return (value.value, value.reason) if value.value.ndim == 1 else (value.value[0], value.reason[0])


def _mean_sd(values: list[float]) -> tuple[float, float]:
    defined = [value for value in values if not np.isnan(value)]
    mean = float(np.mean(defined)) if defined else float("nan")
    sd = float(np.std(defined, ddof=1)) if len(defined) > 1 and np.isfinite(defined).all() else float("nan")
    return mean, sd


def _mean_amplifications(comparison: Comparison, model: ModelOutputs, thresholds: str) -> Iterator[Mean]:
    if not comparison.frame.pairs:
        return
    selected = [run.model is model and run.thresholds == thresholds for run in comparison.runs]
    choices: tuple[tuple[str, str, Literal["common", "nanmean"]], ...] = (
        ("bias_amplification", "bias_amplification", "common"),
        ("bias_amplification_per_run", "bias_amplification", "nanmean"),
        ("bias_amplification_directional", "bias_amplification_directional", "common"),
    )
    for metric, name, aggregate in choices:
        over = mean_amplification([run.measures[name] for run in comparison.runs], aggregate=aggregate)
        cells, lost = int(over.cells[selected].min()), int(over.lost[selected].sum())
        values = over.overall[selected].tolist()
        mean = Mean(model, thresholds, metric, *_mean_sd(values), len(values), cells, lost)
        reasons = [run.measures[name].reason for run, use in zip(comparison.runs, selected, strict=True) if use]
        yield _with_reason(mean, *reasons)


def mean_interval(intervals: Sequence[Interval | None], like: np.ndarray) -> Interval:
    """Return the mean over seeds of the ends of intervals; NaN, in the shape of ``like``, where there are none."""
    known = [interval for interval in intervals if interval is not None]
    if not known:
        return np.full_like(like, np.nan), np.full_like(like, np.nan)
    low, high = (nanmean(np.stack([interval[end] for interval in known]), axis=0) for end in (0, 1))
    return low, high


def overall(comparison: Comparison) -> Table:
    """Tabulate means over attributes and seeds; bias amplification over the cells that all runs share."""
    rows = [(*_head(mean.model, mean.thresholds), *mean[2:]) for mean in means(comparison)]
    return Table.of((*MODEL, *Mean._fields[2:]), rows)


def by_attribute(comparison: Comparison) -> Table:
    """Tabulate each metric per attribute and model, over all samples, means over seeds."""
    rows = []
    for model, thresholds, runs in _sets(comparison):
        for name, value in runs[0].measures.items():
            if value.value.ndim == 2 and name not in RATES:
                continue
            values = nanmean(np.stack([_over_all_samples(run.measures[name])[0] for run in runs]), axis=0)
            reasons = _over_all_samples(value)[1]
            for i, attribute in enumerate(comparison.inputs.attribute_names):
                reason = str(reasons[i]) if np.isnan(values[i]) else ""
                rows.append((*_head(model, thresholds), attribute, name, float(values[i]), reason))
    return Table.of((*MODEL, "attribute", "metric", "value", "reason"), rows)


def by_group(comparison: Comparison) -> Table:
    """Tabulate rates in each level of each group; values and ends of intervals are means over seeds."""
    rows = []
    for model, thresholds, runs in _sets(comparison):
        for name in RATES:
            values = nanmean(np.stack([run.measures[name].value for run in runs]), axis=0)
            first = runs[0]
            low, high = mean_interval([run.intervals.get(name) for run in runs], values)
            for s, (group, level) in enumerate(comparison.frame.subsets[1:], start=1):
                for i, attribute in enumerate(comparison.inputs.attribute_names):
                    reason = str(first.measures[name].reason[s, i]) if np.isnan(values[s, i]) else ""
                    numbers = (float(values[s, i]), int(first.n[s, i]), int(first.n_pos[s, i]))
                    ends = (float(low[s, i]), float(high[s, i]))
                    rows.append((*_head(model, thresholds), attribute, group, level, name, *numbers, *ends, reason))
    columns = ("attribute", "group", "level", "metric", "value", "n", "n_pos", "ci_low", "ci_high", "reason")
    return Table.of((*MODEL, *columns), rows)


def difference(comparison: Comparison, method: SpreadMethod = "between_groups") -> Table:
    """Tabulate the largest absolute difference of each rate, between levels or from a level to all samples.

    The methods are those of fairlearn.
    """
    return _spread(
        comparison, lambda rates, at: difference_of_levels(rates[at], rates[0], method, "BiasAudit.difference")
    )


def ratio(comparison: Comparison, method: SpreadMethod = "between_groups") -> Table:
    """Tabulate the smallest ratio of each rate, between levels or of a level to all samples; as in fairlearn."""
    return _spread(comparison, lambda rates, at: ratio_of_levels(rates[at], rates[0], method, "BiasAudit.ratio"))


def _spread(comparison: Comparison, spread: Callable[[np.ndarray, list[int]], np.ndarray]) -> Table:
    rows = []
    for model, thresholds, runs in _sets(comparison):
        for group in comparison.inputs.groups:
            at = [i for i, (name, _) in enumerate(comparison.frame.subsets) if name == group.name]
            for name in RATES:
                values = nanmean(np.stack([spread(run.measures[name].value, at) for run in runs]), axis=0)
                for attribute, value in zip(comparison.inputs.attribute_names, values, strict=True):
                    reason = "too_few_levels" if np.isnan(value) else ""
                    rows.append((*_head(model, thresholds), attribute, group.name, name, float(value), reason))
    return Table.of((*MODEL, "attribute", "group", "metric", "value", "reason"), rows)


def bias(comparison: Comparison) -> Table:
    """Tabulate bias amplification of each cell (attribute, group), one row per run, with change and reason."""
    rows = []
    undefined = np.full((len(comparison.frame.pairs), len(comparison.inputs.attribute_names)), np.nan)
    for model, thresholds, runs in _sets(comparison):
        for run in runs:
            value, reason = run.measures["bias_amplification"]
            change = run.changes["bias_amplification"].value if run.changes else undefined
            low, high = run.change_intervals.get("bias_amplification", (undefined, undefined))
            for p, name in enumerate(comparison.pair_names):
                for i, attribute in enumerate(comparison.inputs.attribute_names):
                    numbers = (float(each[p, i]) for each in (value, change, low, high))
                    at = (comparison.inputs.seeds[run.seed], attribute, name)
                    rows.append((*_head(model, thresholds), *at, *numbers, str(reason[p, i])))
    columns = ("seed", "attribute", "group", "value", "change", "change_low", "change_high", "reason")
    return Table.of((*MODEL, *columns), rows)


def _sparse_runs(comparison: Comparison) -> Iterator[tuple[int, EvaluatedRun, EvaluatedRun, tuple[Any, ...]]]:
    """Yield index of the model, sparse run, dense run, and the first columns of a row."""
    for index, model in enumerate(comparison.inputs.sparse, start=1):
        for run in comparison.runs_of(model):
            head = (model.label, model.sparsity, model.strategy, comparison.inputs.seeds[run.seed])
            yield index, run, comparison.dense_run(run), head


def flips(comparison: Comparison) -> Table:
    """Tabulate the flips of each sparse run, and of the control: flips between dense models ("churn")."""
    rows, inputs = [], comparison.inputs
    train = inputs.y_true if inputs.y_train is None else inputs.y_train
    for index, run, dense, head in _sparse_runs(comparison):
        kinds = kinds_of_flips(dense.y_pred, run.y_pred, y_true=inputs.y_true, y_train=train)
        shares = [
            float(divide(kind.sum(), kinds.flip.sum()))
            for kind in (kinds.right_to_wrong, kinds.wrong_to_right, kinds.to_common)
            if kind is not None
        ]
        coverage = comparison.flip_coverage[index, run.seed]
        rows.append((*head, *coverage, *shares, "" if coverage.flip_rate else "no_flips"))
    for index, coverage in enumerate(comparison.churn):
        # Neither of two dense models is the one that was changed, so flips between them have no direction.
        nan, reason = float("nan"), "no_direction" if coverage.flip_rate else "no_flips"
        rows.append(("churn", 0.0, "", f"pair {index}", *coverage, nan, nan, nan, reason))
    columns = ("model", "sparsity", "strategy", "seed", *FlipCoverage._fields)
    return Table.of((*columns, "right_to_wrong", "wrong_to_right", "to_common", "reason"), rows)


def susceptible(comparison: Comparison, w: NumberLike | None = None) -> Table:
    """Tabulate the exposed share of the decisions and the flips in it, per attribute and over all (attribute "").

    Args:
      comparison: the comparison.
      w: half width of the band of probabilities around 0.5; that of `compare` if None.
    """
    band = comparison.settings.uncertainty_band if w is None else read_number("BiasAudit.susceptible", "w", w)
    unsure, scores = {}, {}
    for run in comparison.runs_of(comparison.inputs.dense):
        z = run.model.logits[run.seed]
        unsure[run.seed] = uncertain_cells("BiasAudit.susceptible", z, band, "logits")
        scores[run.seed] = uncertainty_score(z)
    rows = []
    for _, run, dense, head in _sparse_runs(comparison):
        flip = run.y_pred != dense.y_pred
        for i, name in enumerate(("", *comparison.inputs.attribute_names)):
            columns = slice(None) if i == 0 else slice(i - 1, i)
            coverage = flip_coverage(flip[:, columns], unsure[dense.seed][:, columns], scores[dense.seed][:, columns])
            rows.append((*head, name, band, *coverage, "" if coverage.flip_rate else "no_flips"))
    columns = ("model", "sparsity", "strategy", "seed", "attribute", "band", *FlipCoverage._fields, "reason")
    return Table.of(columns, rows)


def reliability(comparison: Comparison) -> Table:
    """Tabulate the reliability of each model, over all attributes (attribute "") and for each, pooled over seeds."""
    rows = []
    for index, model in enumerate(comparison.models):
        buckets = [comparison.score_measures[index, seed].reliability for seed in range(len(model.logits))]
        count = np.sum([each.count for each in buckets], axis=0)
        prob = np.sum([np.nan_to_num(each.mean_prob) * each.count for each in buckets], axis=0)
        label = np.sum([np.nan_to_num(each.mean_label) * each.count for each in buckets], axis=0)
        for column, attribute in enumerate(("", *comparison.inputs.attribute_names)):
            n, p, t = ((x.sum(axis=1) if column == 0 else x[:, column - 1]) for x in (count, prob, label))
            for b, lower in enumerate(buckets[0].lower):
                numbers = (float(lower), float(divide(p[b], n[b])), float(divide(t[b], n[b])), int(n[b]))
                rows.append((model.role, model.sparsity, model.strategy, attribute, *numbers))
    columns = ("model", "sparsity", "strategy", "attribute", "lower", "mean_prob", "mean_label", "count")
    return Table.of(columns, rows)


def exemplars(comparison: Comparison) -> Table:
    """Tabulate pruning identified exemplars per attribute and sparse model; empty unless both are populations."""
    rows = []
    dense = comparison.runs_of(comparison.inputs.dense)
    t = comparison.inputs.y_true
    dense_pred = np.stack([run.y_pred for run in dense]).astype(np.int8)
    right = np.where(np.isnan(t), np.nan, (dense_pred == t).mean(axis=0))
    for model in comparison.inputs.sparse:
        runs = comparison.runs_of(model)
        if min(len(runs), len(dense)) < 2:
            continue
        changed = pie(dense_pred, np.stack([run.y_pred for run in runs]).astype(np.int8))
        for i, name in enumerate(("", *comparison.inputs.attribute_names)):
            mask, accuracy = (changed, right) if i == 0 else (changed[:, i - 1], right[:, i - 1])
            numbers = (float(mask.mean()), float(nanmean(accuracy[mask])), float(nanmean(accuracy)))
            rows.append((model.label, model.sparsity, model.strategy, name, int(mask.sum()), *numbers))
    columns = ("count", "share", "dense_accuracy_on_pie", "dense_accuracy")
    return Table.of(("model", "sparsity", "strategy", "attribute", *columns), rows)


def risk(comparison: Comparison) -> BiasRisk:
    """Rank the cells by the dense model, mean over seeds; exploratory, see `bias_risk`.

    Raises:
      ValueError: `compare` got no validation split.
    """
    inputs = comparison.inputs
    if inputs.y_val is None or inputs.dense.val_logits is None:
        fail("BiasAudit.risk", "val", "no value", "a validation split in compare")
    band = comparison.settings.uncertainty_band
    # The mean of the risks of single seeds, since risk is linear in the uncertain share.
    unsure = np.mean([uncertain_cells("BiasAudit.risk", z, band, "logits") for z in inputs.dense.val_logits], axis=0)
    train = inputs.y_true if inputs.y_train is None else inputs.y_train
    return risk_of(inputs.y_val, unsure, train, comparison.frame.known, comparison.pair_names)
