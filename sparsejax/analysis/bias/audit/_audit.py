"""The result of a comparison: a tidy table, views of it, pictures, and a test for use in CI."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sparsejax._checks import fail
from sparsejax.analysis.bias.audit import _mitigations, _plots, _regression, _tidy, _views
from sparsejax.analysis.bias.audit._evaluate import Outputs, Run, Settings
from sparsejax.analysis.bias.audit._frame import Frame
from sparsejax.analysis.bias.audit._inputs import Inputs, Model
from sparsejax.analysis.bias.audit._table import Table
from sparsejax.analysis.bias.metrics._flips import FlipCoverage
from sparsejax.analysis.bias.metrics._rates import Method
from sparsejax.analysis.bias.metrics._risk import BiasRisk, risk_of
from sparsejax.analysis.bias.metrics._uncertainty import uncertain_cells


class Report:
    """What `compare` found. Everything is computed from the arrays it was given; nothing is sampled twice.

    Every table is a `Table`: iterate over rows (dicts), index columns, or use ``where``, ``to_pandas``, ``to_csv`` and
    ``to_json``.
    """

    def __init__(
        self,
        inputs: Inputs,
        settings: Settings,
        frame: Frame,
        runs: Sequence[Run],
        outputs: dict[tuple[int, int], Outputs],
        flip_coverage: dict[tuple[int, int], FlipCoverage],
        churn: Sequence[FlipCoverage],
        *,
        primary: str,
    ) -> None:
        self.inputs = inputs
        self.settings = settings
        self.frame = frame
        self.runs = list(runs)
        self.outputs = outputs
        self.flip_coverage = flip_coverage
        self.churn = list(churn)
        self.primary = primary

    @property
    def models(self) -> tuple[Model, ...]:
        """The dense model, then the sparse ones by strategy and sparsity."""
        return (self.inputs.dense, *self.inputs.sparse)

    @property
    def pair_names(self) -> tuple[str, ...]:
        """Names of the pairs of sides that bias amplification and gaps compare."""
        return tuple(pair.name for pair in self.frame.pairs)

    def runs_of(self, model: Model, thresholds: str | None = None) -> list[Run]:
        """Return the runs of a model, at the thresholds asked for in `compare` unless others are named."""
        wanted = self.primary if thresholds is None else thresholds
        return [run for run in self.runs if run.model is model and run.thresholds == wanted]

    @property
    def has_calibrated(self) -> bool:
        """Whether thresholds fitted on a validation split were evaluated."""
        return any(run.thresholds == "calibrated" for run in self.runs)

    @cached_property
    def warnings(self) -> list[str]:
        """What a reader must know before reading a number: cells lost, small groups, no control, no training labels."""
        return _views.warnings(self)

    @cached_property
    def table(self) -> Table:
        """Every number, one per row.

        Columns: model, sparsity, strategy, seed, thresholds, attribute, group, level, metric, value, n, n_pos, ci_low,
        ci_high, reason. ``group`` and ``level`` are empty for a number over all samples; for gaps and bias
        amplification ``level`` is side 1. Metrics that end in "_change" are sparse minus dense of the same seed.
        """
        return _tidy.table(self)

    @cached_property
    def overall(self) -> Table:
        """Plain means over attributes and seeds; bias amplification over the cells that all runs share."""
        return _views.overall(self)

    @cached_property
    def by_attribute(self) -> Table:
        """One row per attribute, model and metric, over all samples, means over seeds."""
        return _views.by_attribute(self)

    @cached_property
    def by_group(self) -> Table:
        """Rates in each level of each group; the values and the ends of the intervals are means over seeds."""
        return _views.by_group(self)

    def difference(self, method: Method = "between_groups") -> Table:
        """Largest absolute difference of each rate, between levels or from a level to all samples, as in fairlearn."""
        return _views.spread(self, "difference", method)

    def ratio(self, method: Method = "between_groups") -> Table:
        """Smallest ratio of each rate, between levels or of a level to all samples, as in fairlearn."""
        return _views.spread(self, "ratio", method)

    @cached_property
    def bias(self) -> Table:
        """Bias amplification of each cell (attribute, group), one row per run, with change and reason."""
        return _views.bias(self)

    @cached_property
    def flips(self) -> Table:
        """Flips of each sparse run, and the control: flips between dense models ("churn")."""
        return _views.flips(self)

    @cached_property
    def reliability(self) -> Table:
        """Reliability table of each model, over all attributes (attribute "") and for each one, pooled over seeds."""
        return _views.reliability(self)

    @cached_property
    def exemplars(self) -> Table:
        """Pruning identified exemplars per attribute and sparse model; empty unless both are populations."""
        return _views.exemplars(self)

    def susceptible(self, w: float | None = None) -> Table:
        """Samples that the dense model marks as exposed, and the flips they cover, for a half width of the band."""
        return _views.susceptible(self, self.settings.uncertainty_band if w is None else w)

    @cached_property
    def risk(self) -> BiasRisk:
        """Exploratory ranking of the cells by the dense model, mean over seeds; see `bias_risk`.

        Raises:
          ValueError: no validation split was given.
        """
        inputs = self.inputs
        if inputs.y_val is None or inputs.dense.val_logits is None:
            fail("Report.risk", "val", "no value", "a validation split in compare")
        band = self.settings.uncertainty_band
        # The mean of the risks of single seeds, since risk is linear in the uncertain share.
        unsure = np.mean([uncertain_cells("Report.risk", z, band, "logits") for z in inputs.dense.val_logits], axis=0)
        train = inputs.y_true if inputs.y_train is None else inputs.y_train
        return risk_of(inputs.y_val, unsure, train, self.frame.known, self.pair_names)

    def mitigations(self, w: float | None = None) -> Table:
        """Countermeasures before and after: thresholds, overrides on the exposed cells, both.

        Args:
          w: half width of the band in which decisions are overridden; that of `compare` if None.

        Returns:
          A table: sparsity, strategy, countermeasure, overridden (share of cells), accuracy, bias_amplification (mean
          over the ``cells`` that are defined in every row and seed; abstention, which loses some, does not count),
          mean absolute gaps. Means over seeds. The rows "override: label" are an upper bound by construction.
        """
        return _mitigations.mitigations(self, self.settings.uncertainty_band if w is None else w)

    def safe_sparsity(self) -> tuple[float | None, str]:
        """Return the largest sparsity up to which no effect on decisions was measured, and the reason.

        No effect: on average over seeds, no more decisions flip than between dense models that differ in the seed.

        Returns:
          (sparsity, explanation); None without the control, or if the lowest sparsity is already above it.
        """
        return _views.safe_sparsity(self)

    def assert_no_regression(
        self,
        *,
        max_ba_increase: float | None = None,
        max_gap_increase: float | None = None,
        max_accuracy_drop: float | None = None,
        max_flip_rate: float | None = None,
    ) -> None:
        """Fail if pruning made a cell worse than allowed; for use in CI.

        Args:
          max_ba_increase: of bias amplification, per (attribute, group). A cell that is defined in the dense model and
            lost in the sparse one because nothing is predicted positive is an offence as well.
          max_gap_increase: of the absolute FPR and FNR gap, per (attribute, group).
          max_accuracy_drop: per attribute.
          max_flip_rate: share of all decisions.

        Raises:
          AssertionError: listing every offending cell, worst first. Means over seeds.
          ValueError: no limit is given.
        """
        _regression.assert_no_regression(
            self,
            max_ba_increase=max_ba_increase,
            max_gap_increase=max_gap_increase,
            max_accuracy_drop=max_accuracy_drop,
            max_flip_rate=max_flip_rate,
        )

    def plot_overview(self, axes: Any = None) -> Any:
        """Draw the main numbers against density; see `Report.overall`. Returns an array of matplotlib axes."""
        return _plots.overview(self, axes)

    def plot_bias(self, ax: Any = None, *, model: Model | None = None) -> Any:
        """Draw the change of bias amplification, attributes by groups. Returns the matplotlib axes."""
        return _plots.bias_heat_map(self, ax, model or self.inputs.sparse[-1])

    def plot_groups(self, ax: Any = None, *, metric: str = "false_negative_rate", model: Model | None = None) -> Any:
        """Draw a rate per group, dense to sparse, as arrows. Returns the matplotlib axes."""
        return _plots.group_arrows(self, ax, metric, model or self.inputs.sparse[-1])

    def plot_reliability(self, ax: Any = None) -> Any:
        """Draw the reliability curves of all models. Returns the matplotlib axes."""
        return _plots.reliability(self, ax)

    def to_html(self, path: str | os.PathLike[str] | None = None, *, hash_ids: bool = False) -> str:
        """Return the report as one self-contained page, and write it to ``path`` if given.

        The page asks for nothing from the network and is the same, byte for byte, for the same input.

        Args:
          path: the file.
          hash_ids: replace sample ids by a hash, so that they cannot be read off the page.
        """
        from sparsejax.analysis.bias.html import page

        text = page(self, hash_ids=hash_ids)
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text

    def to_folder(self, path: str | os.PathLike[str], *, hash_ids: bool = False) -> None:
        """Write the report for a gallery too large to embed: ``index.html``, and its pictures in ``images``.

        ``python -m sparsejax.analysis.bias serve FOLDER`` shows it, on this machine only. `to_html` makes one file,
        which needs no server, with at most 200 thumbnails.

        Args:
          path: the folder, made if it is not there.
          hash_ids: as in `to_html`.
        """
        from sparsejax.analysis.bias.html import page

        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "index.html").write_text(page(self, hash_ids=hash_ids, folder=folder), encoding="utf-8")

    def _repr_html_(self) -> str:
        from sparsejax.analysis.bias.html import fragment

        return fragment(self)

    def __repr__(self) -> str:
        names = ", ".join(model.label for model in self.inputs.sparse)
        n, attributes = self.inputs.y_true.shape
        return f"Report(dense against {names}; {n} samples, {attributes} attributes)\n{_views.summary(self)}"
