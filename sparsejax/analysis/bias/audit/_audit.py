"""The result of `compare`: a comparison with its tables, plots, pages and checks."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path

from sparsejax._files import write_atomically
from sparsejax._folder_lock import folder_lock
from sparsejax.analysis.bias.audit import _mitigations, _plots, _regression, _summary, _tidy, _views
from sparsejax.analysis.bias.audit._comparison import Comparison
from sparsejax.analysis.bias.html import fragment, page


class BiasAudit(Comparison):
    """The result of `compare`: the data of a `Comparison`, with tables, plots, pages and checks made of them.

    Every table is a `Table`: iterate over rows (dicts), index columns, or use ``where``, ``to_pandas``, ``to_csv`` and
    ``to_json``. Tables without arguments are attributes, made at first use. Methods that make tables: `difference`,
    `ratio`, `susceptible`, `mitigations`; charts: `plot_overview`, `plot_bias`, `plot_groups`, `plot_reliability`;
    decisions: `safe_sparsity`, `assert_no_regression`; pages: `to_html`, `to_folder`.

    Attributes:
      warnings: list of str; read them before any number.
      table: every number of every run, one per row.
      overall: means over attributes and seeds.
      by_attribute: each metric per attribute, over all samples.
      by_group: rates in each level of each group.
      bias: bias amplification of each cell (attribute, group) and run.
      flips: flips of each sparse run, and of the control between dense seeds ("churn").
      reliability: the reliability table of each model.
      exemplars: pruning identified exemplars; empty unless both models are populations.
      risk: ranking of the cells by the dense model, a `BiasRisk`; needs a validation split.
    """

    warnings = cached_property(_summary.warnings)
    table = cached_property(_tidy.all_numbers)
    overall = cached_property(_views.overall)
    by_attribute = cached_property(_views.by_attribute)
    by_group = cached_property(_views.by_group)
    bias = cached_property(_views.bias)
    flips = cached_property(_views.flips)
    reliability = cached_property(_views.reliability)
    exemplars = cached_property(_views.exemplars)
    risk = cached_property(_views.risk)

    difference = _views.difference
    ratio = _views.ratio
    susceptible = _views.susceptible
    mitigations = _mitigations.mitigations
    safe_sparsity = _summary.safe_sparsity
    assert_no_regression = _regression.assert_no_regression

    plot_overview = _plots.plot_overview
    plot_bias = _plots.plot_bias
    plot_groups = _plots.plot_groups
    plot_reliability = _plots.plot_reliability

    def to_html(self, path: str | os.PathLike[str] | None = None, *, hash_ids: bool = False) -> str:
        """Return the audit as one self-contained page, and write it to ``path`` if there is one.

        The page requests nothing from the network and is the same, byte for byte, for the same input. Needs jinja2 and
        matplotlib.

        Args:
          path: the file.
          hash_ids: replace sample ids by a hash, so that they cannot be read off the page.
        """
        text = page(self, hash_ids=hash_ids)
        if path is not None:
            write_atomically(Path(path), text)
        return text

    def to_folder(self, path: str | os.PathLike[str], *, hash_ids: bool = False) -> None:
        """Write the audit with a gallery too large to embed: ``index.html``, and its images in ``images``.

        ``python -m sparsejax.analysis.bias serve FOLDER`` shows it, on this machine only. `to_html` makes one file,
        which needs no server, with at most 200 thumbnails.

        Args:
          path: the folder, made if it does not exist.
          hash_ids: as in `to_html`.

        Raises:
          OSError: another process writes to the folder, or it cannot be written to.
        """
        with folder_lock(path, "bias") as folder:
            write_atomically(folder / "index.html", page(self, hash_ids=hash_ids, folder=folder))

    def _repr_html_(self) -> str:
        return fragment(self)

    def __repr__(self) -> str:
        names = ", ".join(model.label for model in self.inputs.sparse)
        n, attributes = self.inputs.y_true.shape
        return f"BiasAudit(dense against {names}; {n} samples, {attributes} attributes)\n{_summary.summary(self)}"
