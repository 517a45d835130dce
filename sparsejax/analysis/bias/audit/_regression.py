"""A test for use in CI: did pruning make a cell worse than allowed?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from sparsejax._checks import fail
from sparsejax.analysis.bias.audit._inputs import Model
from sparsejax.analysis.bias.metrics._measured import nanmean

if TYPE_CHECKING:
    from sparsejax.analysis.bias.audit._audit import Report

# Offences listed in the message.
_SHOWN = 20


def assert_no_regression(
    report: Report,
    *,
    max_ba_increase: float | None,
    max_gap_increase: float | None,
    max_accuracy_drop: float | None,
    max_flip_rate: float | None,
) -> None:
    """See `Report.assert_no_regression`."""
    if max_ba_increase is max_gap_increase is max_accuracy_drop is max_flip_rate is None:
        fail("assert_no_regression", "limits", "no value", "at least one max_...")
    offences: list[tuple[float, str]] = []
    for index, model in enumerate(report.inputs.sparse, start=1):
        if max_ba_increase is not None:
            offences += _amplification(report, model, max_ba_increase)
        if max_gap_increase is not None:
            offences += _gaps(report, model, max_gap_increase)
        if max_accuracy_drop is not None:
            offences += _accuracy(report, model, max_accuracy_drop)
        if max_flip_rate is not None:
            rate = float(np.mean([report.flip_coverage[index, r.seed].flip_rate for r in report.runs_of(model)]))
            if rate > max_flip_rate:
                offences.append((rate - max_flip_rate, f"{model.label}: flip rate {rate:.4f} > {max_flip_rate}"))
    if offences:
        offences.sort(key=lambda offence: -offence[0])
        lines = [text for _, text in offences[:_SHOWN]]
        more = [f"and {len(offences) - _SHOWN} more"] if len(offences) > _SHOWN else []
        raise AssertionError("\n".join([f"{len(offences)} regressions of the sparse model:", *lines, *more]))


def _amplification(report: Report, model: Model, limit: float) -> Iterator[tuple[float, str]]:
    runs = report.runs_of(model)
    changes = nanmean(np.stack([run.changes["bias_amplification"].value for run in runs]), axis=0)
    lost = np.stack([run.changes["bias_amplification"].reason == "no_predicted_positives" for run in runs])
    dense = report.runs_of(report.inputs.dense)
    was = np.stack(
        [dense[report.inputs.dense_seed(model, r.seed)].measures["bias_amplification"].reason == "" for r in runs]
    )
    gone = (lost & was).max(axis=0)
    for p, name in enumerate(report.pair_names):
        for i, attribute in enumerate(report.inputs.attribute_names):
            cell = f"{model.label}, {attribute} / {name}: bias amplification"
            if gone[p, i]:
                yield np.inf, f"{cell} undefined, the sparse model never predicts {attribute}"
            elif changes[p, i] > limit:
                yield changes[p, i] - limit, f"{cell} +{changes[p, i]:.4f} > {limit}"


def _gaps(report: Report, model: Model, limit: float) -> Iterator[tuple[float, str]]:
    dense = report.runs_of(report.inputs.dense)
    for rate, short in (("false_positive_rate_gap", "FPR gap"), ("false_negative_rate_gap", "FNR gap")):
        changes = nanmean(
            np.stack(
                [
                    np.abs(run.measures[rate].value)
                    - np.abs(dense[report.inputs.dense_seed(model, run.seed)].measures[rate].value)
                    for run in report.runs_of(model)
                ]
            ),
            axis=0,
        )
        for p, name in enumerate(report.pair_names):
            for i, attribute in enumerate(report.inputs.attribute_names):
                if changes[p, i] > limit:
                    cell = f"{model.label}, {attribute} / {name}: absolute {short}"
                    yield changes[p, i] - limit, f"{cell} +{changes[p, i]:.4f} > {limit}"


def _accuracy(report: Report, model: Model, limit: float) -> Iterator[tuple[float, str]]:
    drops = -nanmean(np.stack([run.changes["accuracy"].value[0] for run in report.runs_of(model)]), axis=0)
    for attribute, drop in zip(report.inputs.attribute_names, drops, strict=True):
        if drop > limit:
            yield drop - limit, f"{model.label}, {attribute}: accuracy -{drop:.4f}, more than {limit}"
