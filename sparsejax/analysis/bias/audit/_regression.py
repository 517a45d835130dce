"""A test for use in CI: did pruning make a cell worse than allowed?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sparsejax._checks import fail
from sparsejax.analysis._arrays import NumberLike, read_number
from sparsejax.analysis.bias.audit._comparison import Comparison
from sparsejax.analysis.bias.audit._inputs import ModelOutputs
from sparsejax.analysis.bias.metrics._measured import nanmean

# Offences listed in the message.
_SHOWN = 20


def assert_no_regression(
    comparison: Comparison,
    *,
    max_ba_increase: NumberLike | None = None,
    max_gap_increase: NumberLike | None = None,
    max_accuracy_drop: NumberLike | None = None,
    max_flip_rate: NumberLike | None = None,
) -> None:
    """Fail if pruning made a cell worse than allowed; for use in CI.

    Args:
      comparison: the comparison.
      max_ba_increase: of bias amplification, per (attribute, group). A cell that is defined in the dense model and
        lost in the sparse one because nothing is predicted positive is an offence as well.
      max_gap_increase: of the absolute FPR and FNR gap, per (attribute, group).
      max_accuracy_drop: per attribute.
      max_flip_rate: share of all decisions.

    Raises:
      AssertionError: listing every offending cell, worst first. Means over seeds.
      ValueError: no limit is passed.
    """
    if max_ba_increase is max_gap_increase is max_accuracy_drop is max_flip_rate is None:
        fail("assert_no_regression", "limits", "no value", "at least one max_...")
    ba_increase, gap_increase, accuracy_drop, largest_rate = (
        None if limit is None else read_number("assert_no_regression", name, limit)
        for name, limit in (
            ("max_ba_increase", max_ba_increase),
            ("max_gap_increase", max_gap_increase),
            ("max_accuracy_drop", max_accuracy_drop),
            ("max_flip_rate", max_flip_rate),
        )
    )
    offences: list[tuple[float, str]] = []
    for index, model in enumerate(comparison.inputs.sparse, start=1):
        if ba_increase is not None:
            offences += _amplification(comparison, model, ba_increase)
        if gap_increase is not None:
            offences += _gaps(comparison, model, gap_increase)
        if accuracy_drop is not None:
            offences += _accuracy(comparison, model, accuracy_drop)
        if largest_rate is not None:
            rate = float(
                np.mean([comparison.flip_coverage[index, r.seed].flip_rate for r in comparison.runs_of(model)])
            )
            if rate > largest_rate:
                offences.append((rate - largest_rate, f"{model.label}: flip rate {rate:.4f} > {largest_rate:g}"))
    if offences:
        offences.sort(key=lambda offence: -offence[0])
        lines = [text for _, text in offences[:_SHOWN]]
        more = [f"and {len(offences) - _SHOWN} more"] if len(offences) > _SHOWN else []
        raise AssertionError("\n".join([f"{len(offences)} regressions of the sparse model:", *lines, *more]))


def _cells(comparison: Comparison) -> Iterator[tuple[int, int, str, str]]:
    """Yield the index of the pair and of the attribute, and their names."""
    for p, name in enumerate(comparison.pair_names):
        for i, attribute in enumerate(comparison.inputs.attribute_names):
            yield p, i, name, attribute


def _amplification(comparison: Comparison, model: ModelOutputs, limit: float) -> Iterator[tuple[float, str]]:
    runs = comparison.runs_of(model)
    changes = nanmean(np.stack([run.changes["bias_amplification"].value for run in runs]), axis=0)
    lost = np.stack(
        [
            (run.changes["bias_amplification"].reason == "no_predicted_positives")
            & (comparison.dense_run(run).measures["bias_amplification"].reason == "")
            for run in runs
        ]
    ).max(axis=0)
    for p, i, name, attribute in _cells(comparison):
        cell = f"{model.label}, {attribute} / {name}: bias amplification"
        if lost[p, i]:
            yield np.inf, f"{cell} undefined, the sparse model never predicts {attribute}"
        elif changes[p, i] > limit:
            yield changes[p, i] - limit, f"{cell} +{changes[p, i]:.4f} > {limit}"


def _gaps(comparison: Comparison, model: ModelOutputs, limit: float) -> Iterator[tuple[float, str]]:
    for rate, short in (("false_positive_rate_gap", "FPR gap"), ("false_negative_rate_gap", "FNR gap")):
        rises = [
            np.abs(run.measures[rate].value) - np.abs(comparison.dense_run(run).measures[rate].value)
            for run in comparison.runs_of(model)
        ]
        changes = nanmean(np.stack(rises), axis=0)
        for p, i, name, attribute in _cells(comparison):
            if changes[p, i] > limit:
                cell = f"{model.label}, {attribute} / {name}: absolute {short}"
                yield changes[p, i] - limit, f"{cell} +{changes[p, i]:.4f} > {limit}"


def _accuracy(comparison: Comparison, model: ModelOutputs, limit: float) -> Iterator[tuple[float, str]]:
    drops = -nanmean(np.stack([run.changes["accuracy"].value[0] for run in comparison.runs_of(model)]), axis=0)
    for attribute, drop in zip(comparison.inputs.attribute_names, drops, strict=True):
        if drop > limit:
            yield drop - limit, f"{model.label}, {attribute}: accuracy -{drop:.4f}, more than {limit}"
