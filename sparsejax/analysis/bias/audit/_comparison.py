"""The data of a comparison: the inputs, and the numbers of every run. Views read it, and it imports none of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from sparsejax.analysis.bias.audit._frame import Frame
from sparsejax.analysis.bias.audit._inputs import Inputs, ModelOutputs
from sparsejax.analysis.bias.metrics._flips import FlipCoverage
from sparsejax.analysis.bias.metrics._measured import Measured
from sparsejax.analysis.bias.metrics._reliability import ReliabilityTable

Interval = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Settings:
    """The numeric settings of `compare`, see there."""

    uncertainty_band: float
    min_count: float
    min_rel_gap: float
    n_bins: int
    n_boot: int
    random_state: int


@dataclass(frozen=True, eq=False)
class EvaluatedRun:
    """One model, one seed and one set of thresholds, with every number about its decisions.

    Attributes:
      model: the model.
      seed: index of the run in its population.
      thresholds: "default", "calibrated" or "custom".
      y_pred: bool[n, K].
      measures: name -> `Measured`, of shape [K] (attributes), [S, K] (rates by subset) or [P, K] (pairs of sides).
      n: number of labelled samples [S, K].
      n_pos: number of true positives [S, K].
      intervals: name -> (low, high) of the same shape, for those that are functions of counts.
      mean_intervals: rate -> (low, high) of its mean over attributes, [S].
      changes: name -> `Measured`, sparse minus dense; empty for dense models.
      change_intervals: name -> (low, high) of the change, on the same resamples for both models.
    """

    model: ModelOutputs
    seed: int
    thresholds: str
    y_pred: np.ndarray
    measures: Mapping[str, Measured]
    n: np.ndarray
    n_pos: np.ndarray
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    mean_intervals: Mapping[str, Interval] = field(default_factory=dict)
    changes: Mapping[str, Measured] = field(default_factory=dict)
    change_intervals: Mapping[str, Interval] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class ScoreMeasures:
    """The numbers of one model and seed that do not depend on thresholds.

    Attributes:
      uncertain: bool[n, K].
      reliability: the table of all buckets.
      measures: name -> `Measured` [K].
    """

    uncertain: np.ndarray
    reliability: ReliabilityTable
    measures: Mapping[str, Measured]


@dataclass(frozen=True, eq=False)
class Comparison:
    """Everything that `compare` computed.

    Attributes:
      inputs: the arrays that were compared.
      settings: the numeric settings.
      frame: subsets of samples, pairs of sides and their associations in training.
      runs: one entry per set of thresholds, model and seed.
      score_measures: (index of the model, seed) -> numbers that do not depend on thresholds.
      flip_coverage: (index of the sparse model, seed) -> its flips from the dense run.
      churn: the control: flips between dense runs that differ in the seed alone.
      primary: the thresholds that `compare` was asked for.
    """

    inputs: Inputs
    settings: Settings
    frame: Frame
    runs: tuple[EvaluatedRun, ...]
    score_measures: Mapping[tuple[int, int], ScoreMeasures]
    flip_coverage: Mapping[tuple[int, int], FlipCoverage]
    churn: tuple[FlipCoverage, ...]
    primary: str

    @property
    def models(self) -> tuple[ModelOutputs, ...]:
        """The dense model, then the sparse ones by strategy and sparsity."""
        return (self.inputs.dense, *self.inputs.sparse)

    @property
    def pair_names(self) -> tuple[str, ...]:
        """Names of the pairs of sides that bias amplification and gaps compare."""
        return tuple(pair.name for pair in self.frame.pairs)

    @property
    def has_calibrated(self) -> bool:
        """Whether thresholds fitted on a validation split were evaluated."""
        return any(run.thresholds == "calibrated" for run in self.runs)

    def runs_of(self, model: ModelOutputs, thresholds: str | None = None) -> list[EvaluatedRun]:
        """Return the runs of a model, at the thresholds that `compare` was asked for unless others are named."""
        wanted = self.primary if thresholds is None else thresholds
        return [run for run in self.runs if run.model is model and run.thresholds == wanted]

    def dense_run(self, run: EvaluatedRun) -> EvaluatedRun:
        """Return the dense run that a sparse run is compared with, at the same thresholds."""
        return self.runs_of(self.inputs.dense, run.thresholds)[self.inputs.dense_seed(run.model, run.seed)]
