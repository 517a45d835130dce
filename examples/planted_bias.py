"""Does the audit find planted bias, and does it stay silent where there is none?

    python examples/planted_bias.py --seeds 20

Predictions of a dense and a sparse model are drawn for made-up faces with known attributes: the right answer is known.
The dense model errs at random. Where bias is planted, the sparse model turns some negatives of the favoured group into
positives and as many positives of the other group into negatives, so the number of positives stays and the association
with the group is exaggerated. Where none is planted, the sparse model makes as many errors, at random. The audit raises
an alarm for a cell (attribute, group) if the 95-percent interval of the change of bias amplification is above 0.

Printed: power, the share of planted cells with an alarm, and false alarms, the share of the other cells with one.
"""

from __future__ import annotations

import argparse
from typing import Any, NamedTuple

import numpy as np

from sparsejax.analysis import bias

# Name, share of positives in the favoured and in the other group: correlated, correlated and rare, weakly correlated.
ATTRIBUTES = (("smile", 0.6, 0.3), ("hat", 0.12, 0.04), ("glasses", 0.45, 0.3), ("beard", 0.5, 0.35))
PLANTED = ("smile", "hat")
_ERRORS = 0.04  # share of wrong decisions of each model
_EFFECT = 0.15  # planted decisions, as a share of the positives that the sparse model predicts in the favoured group


class Planted(NamedTuple):
    """Made-up data and predictions.

    Attributes:
      labels: int8[n, K].
      group: int8[n].
      dense, sparse: logits float64[n, K].
    """

    labels: np.ndarray
    group: np.ndarray
    dense: np.ndarray
    sparse: np.ndarray


def make(seed: int, samples: int = 6000, effect: float = _EFFECT) -> Planted:
    """Draw labels and the predictions of both models; attributes of `PLANTED` are amplified in the sparse one."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 2, samples).astype(np.int8)
    rates = np.array([[other, favoured] for _, favoured, other in ATTRIBUTES])[:, group].T
    labels = (rng.random(rates.shape) < rates).astype(np.int8)
    dense, sparse = (_with_errors(labels, rng) for _ in range(2))
    for column, (name, *_) in enumerate(ATTRIBUTES):
        if name in PLANTED:
            favoured, other = group == 1, group == 0
            count = round(effect * (favoured & (sparse[:, column] == 1)).sum())
            up = rng.permutation(np.flatnonzero(favoured & (sparse[:, column] == 0)))[:count]
            down = rng.permutation(np.flatnonzero(other & (sparse[:, column] == 1)))[:count]
            sparse[up[: len(down)], column], sparse[down, column] = 1, 0
    return Planted(labels, group, _logits(dense, rng), _logits(sparse, rng))


def _with_errors(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Swap as many positives as negatives within each attribute, so that errors keep the share of positives."""
    decided = labels.copy()
    for column in decided.T:
        count = round(_ERRORS / 2 * len(column))
        up, down = (rng.permutation(np.flatnonzero(column == value)) for value in (0, 1))
        count = min(count, len(down) // 4)
        column[up[:count]], column[down[:count]] = 1, 0
    return decided


def _logits(decided: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.where(decided == 1, 1, -1) * rng.uniform(0.2, 4.0, decided.shape)


def alarms(planted: Planted, resamples: int = 100) -> dict[str, bool]:
    """Return for each attribute whether the audit's interval of the change of bias amplification is above 0."""
    names = [name for name, *_ in ATTRIBUTES]
    report = bias.compare(
        planted.dense,
        {0.9: planted.sparse},
        planted.labels,
        {"group": planted.group},
        attribute_names=names,
        n_boot=resamples,
    )
    rows = report.bias.where(model="90 %") if "90 %" in report.bias["model"] else report.bias.where(sparsity=0.9)
    return {row["attribute"]: row["change_low"] > 0 for row in rows}


def study(seeds: int, samples: int = 6000, resamples: int = 100, effect: float = _EFFECT) -> dict[str, Any]:
    """Return alarms over all seeds: ``found`` of ``planted`` cells, and ``false`` of ``absent`` ones."""
    counts = {"found": 0, "planted": 0, "false": 0, "absent": 0}
    for seed in range(seeds):
        for name, alarm in alarms(make(seed, samples, effect), resamples).items():
            counts["planted" if name in PLANTED else "absent"] += 1
            counts["found" if name in PLANTED else "false"] += alarm
    return counts


def main() -> None:
    """Run the study and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--samples", type=int, default=6000)
    parser.add_argument("--resamples", type=int, default=200)
    parser.add_argument("--effect", type=float, default=_EFFECT, help="size of the plant")
    arguments = parser.parse_args()
    counts = study(arguments.seeds, arguments.samples, arguments.resamples, arguments.effect)
    print(f"power: {counts['found']} of {counts['planted']} planted cells ({counts['found'] / counts['planted']:.1%})")
    print(
        f"false alarms: {counts['false']} of {counts['absent']} other cells ({counts['false'] / counts['absent']:.1%})"
    )


if __name__ == "__main__":
    main()
