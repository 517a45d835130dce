"""The part of a comparison that all runs share: subsets of samples, pairs of sides, associations, and raw formulas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sparsejax.analysis.bias.audit._inputs import Inputs
from sparsejax.analysis.bias.metrics._amplification import (
    Association,
    amplification,
    amplification_with_reasons,
    association,
    equals_side,
)
from sparsejax.analysis.bias.metrics._amplification_other import positively_associated
from sparsejax.analysis.bias.metrics._counts import Counts, count
from sparsejax.analysis.bias.metrics._groups import Group, Side, side_masks, sides
from sparsejax.analysis.bias.metrics._measured import Measured
from sparsejax.analysis.bias.metrics._rates import gap, rates_with_reasons
from sparsejax.analysis.bias.metrics._systematic import positive_rate, rare_ratio_of_counts


@dataclass(frozen=True)
class Frame:
    """Subsets of the evaluation samples and their associations in the training split.

    Attributes:
      subsets: (group, level) of each of the S subsets; the first is ("", ""), all samples.
      members: bool[S, n].
      pairs: the P pairs of sides.
      rows: for each pair, the subsets of side 1 and of side 0; None stands for all samples outside side 1.
      known: associations of the training split, [K, P].
      is_self: bool[K, P], the attribute is the group.
      positive: float[K, P] in {0, 1}, label and side 1 are positively associated in training.
      train_rate: float64[K], share of positives in training.
    """

    subsets: tuple[tuple[str, str], ...]
    members: np.ndarray
    pairs: tuple[Side, ...]
    rows: tuple[tuple[int, int | None], ...]
    known: Association
    is_self: np.ndarray
    positive: np.ndarray
    train_rate: np.ndarray

    def sides(self, counts: Counts) -> tuple[Counts, Counts]:
        """Return the counts [P, ..., K] of both sides from those of the subsets [S, ..., K]."""
        one = counts.at([first for first, _ in self.rows])
        rest = counts.at([0] * len(self.rows)).minus(one)
        zero = counts.at([second or 0 for _, second in self.rows])
        is_rest = np.array([second is None for _, second in self.rows], bool)
        shape = (-1,) + (1,) * (counts.total.ndim - 1)
        chosen = (np.where(is_rest.reshape(shape), a, b) for a, b in zip(rest, zero, strict=True))
        return one, Counts(*chosen)


def build_frame(inputs: Inputs) -> Frame:
    """Prepare the part of a comparison that does not depend on a model."""
    groups, t = inputs.groups, inputs.y_true
    subsets, members, first_row = [("", "")], [np.ones((1, len(t)), bool)], []
    for group in groups:
        first_row.append(len(subsets))
        subsets += [(group.name, level) for level in group.levels]
        members.append(group.masks())
    pairs = tuple(sides(groups))
    rows = tuple(
        (first_row[p.group] + p.level, None if p.counterpart is None else first_row[p.group] + p.counterpart)
        for p in pairs
    )
    train = t if inputs.y_train is None else inputs.y_train
    if inputs.train_groups is None:  # no groups in training: the evaluation split gives the direction
        ones, zeros = _sides_or_none(groups, len(t))
        source = t
    else:
        ones, zeros = side_masks(inputs.train_groups)
        source = train
    return Frame(
        tuple(subsets),
        np.concatenate(members),
        pairs,
        rows,
        association(source, ones, zeros),
        _is_self(inputs, pairs),
        positively_associated(source, ones),
        positive_rate(train),
    )


def _sides_or_none(groups: Sequence[Group], samples: int) -> tuple[np.ndarray, np.ndarray]:
    if groups:
        return side_masks(groups)
    return np.zeros((0, samples), bool), np.zeros((0, samples), bool)


def _is_self(inputs: Inputs, pairs: Sequence[Side]) -> np.ndarray:
    ones, zeros = _sides_or_none(inputs.groups, len(inputs.y_true))
    named = [[name in (pair.name, inputs.groups[pair.group].name) for pair in pairs] for name in inputs.attribute_names]
    return equals_side(inputs.y_true, ones, zeros) | np.array(named, bool).reshape(len(named), len(pairs))


def raw_measures(counts: Counts, frame: Frame) -> dict[str, np.ndarray]:
    """Return every number that is a function of counts [S, ..., K], without rules of minimum size.

    Rates have the shape of the counts, gaps and bias amplification [P, ..., K], the rare value ratio [..., K].
    """
    one, zero = frame.sides(counts)
    result = dict(counts.rates())
    first, second = one.rates(), zero.rates()
    result |= {f"{name}_gap": first[name] - second[name] for name in first}
    favours = frame.known.favours_one.T
    between = (1,) * (one.total.ndim - 2)
    result["bias_amplification"] = amplification(one, zero, favours.reshape(len(favours), *between, favours.shape[1]))
    everyone = counts.at(0)
    ratio = rare_ratio_of_counts(everyone.predicted, everyone.positives, everyone.total, frame.train_rate)
    result["rare_value_ratio"] = ratio.value
    return result


def measures(counts: Counts, frame: Frame, min_count: float, min_rel_gap: float) -> dict[str, Measured]:
    """Return the same numbers for counts [S, K], with minimum sizes and reasons."""
    one, zero = frame.sides(counts)
    result = rates_with_reasons(counts, min_count)
    # Outside a one-vs-rest side there is no subset with rates: both sides are rated alike.
    both = {
        name: Measured(np.stack([a.value, b.value]), np.stack([a.reason, b.reason]))
        for (name, a), b in zip(
            rates_with_reasons(one, min_count).items(), rates_with_reasons(zero, min_count).values(), strict=True
        )
    }
    result |= {f"{name}_gap": gap(rates, 0, 1) for name, rates in both.items()}
    ba = amplification_with_reasons(one, zero, frame.known, frame.is_self, min_count, min_rel_gap)
    result["bias_amplification"] = Measured(ba.value.T, ba.reason.T)
    everyone = counts.at(0)
    result["rare_value_ratio"] = rare_ratio_of_counts(
        everyone.predicted, everyone.positives, everyone.total, frame.train_rate
    )
    return result


def count_subsets(flags: np.ndarray, frame: Frame, weights: np.ndarray | None = None) -> Counts:
    """Count `indicators` in every subset: [S, K], or [S, B, K] for B resamples with weights [B, n]."""
    if weights is None:
        return count(flags, frame.members)
    each = [count(flags[rows], weights[:, rows]) for rows in frame.members]
    return Counts(*(np.stack(field) for field in zip(*each, strict=True)))
