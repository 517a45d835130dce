"""What a fitted filter found, as files: kept sources, diagnosis, distances, heat maps, and one page."""

# pandas declares unions that are too wide for its results.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sparsejax._files import write_atomically
from sparsejax.analysis._frames import write_csv
from sparsejax.analysis._page import page_template
from sparsejax.analysis.multisource.filter._flea import FLEA
from sparsejax.analysis.multisource.study._plots import plot_scores

if TYPE_CHECKING:
    import pandas as pd

_FUNCTION = "write_filter_report"
_MATRICES = ("discrepancy", "disparity", "disbalance")


def write_filter_report(
    flea: FLEA,
    out: str | Path,
    *,
    name: str = "sources",
    facts: Mapping[str, str] | None = None,
    warnings: Sequence[str] = (),
) -> None:
    """Write what a fitted filter found into a folder.

    Files: ``kept.csv``, the labels of the kept sources; ``diagnosis.csv``, one row per source; ``distances.csv``, one
    row per pair; ``discrepancy.svg``, ``disparity.svg`` and ``disbalance.svg``, heat maps; ``report.html``, all of it
    on one page that asks for nothing from the network.

    Args:
      flea: fitted.
      out: the folder, made if absent.
      name: of the data, for the title.
      facts: lines for the head of the page.
      warnings: notes for the head of the page.

    Raises:
      NotFittedError: before ``fit``.
      ImportError: no matplotlib or Jinja2.
    """
    from sklearn.utils.validation import check_is_fitted

    check_is_fitted(flea)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    import pandas as pd

    write_csv(pd.DataFrame({"source": flea.kept_sources_}), folder / "kept.csv")
    write_csv(flea.diagnosis_.reset_index(), folder / "diagnosis.csv")
    write_csv(pair_table(flea), folder / "distances.csv")
    pictures = {matrix: _heat_map(flea, matrix) for matrix in _MATRICES}
    for matrix, svg in pictures.items():
        write_atomically(folder / f"{matrix}.svg", svg)
    table = flea.diagnosis_.reset_index()
    page = page_template(_FUNCTION, Path(__file__).parent / "templates", "filter.html").render(
        name=name,
        facts=_facts(flea) | dict(facts or {}),
        warnings=list(warnings),
        keep=len(flea.kept_sources_),
        columns=[column.replace("_", " ") for column in table.columns],
        rows=[[_cell(value) for value in row] for row in table.astype(object).to_numpy()],
        pictures=[(matrix.capitalize(), _data_address(svg)) for matrix, svg in pictures.items()],
    )
    write_atomically(folder / "report.html", page)


def pair_table(flea: FLEA) -> pd.DataFrame:
    """Return one row for each pair of sources: discrepancy, disparity, disbalance, D-score, and convergence."""
    import pandas as pd

    first, second = np.triu_indices(len(flea.sources_), 1)
    columns = {"source": flea.sources_[first], "other": flea.sources_[second]}
    matrices = {matrix: getattr(flea, f"{matrix}_") for matrix in _MATRICES}
    matrices |= {"d_score": flea.d_scores_, "converged": flea.converged_}
    return pd.DataFrame(columns | {matrix: values[first, second] for matrix, values in matrices.items()})


def _facts(flea: FLEA) -> dict[str, str]:
    dropped = [str(label) for label in flea.sources_ if label not in flea.kept_sources_]
    return {
        "kept": f"{len(flea.kept_sources_)} of {len(flea.sources_)} sources",
        "dropped": ", ".join(dropped) or "none",
        "rows": str(len(flea.support_)),
        "disparity": flea.disparity,
        "aggregation": flea.aggregation,
    }


def _heat_map(flea: FLEA, matrix: str) -> str:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    count = len(flea.sources_)
    side = min(12.0, 3.2 + 0.16 * count)
    out = io.StringIO()
    style = {"svg.hashsalt": matrix, "text.parse_math": False, "font.size": 9 if count <= 25 else 7}
    with mpl.rc_context(style):
        figure = Figure((side + 0.8, side), layout="constrained")
        dropped = [label for label in flea.sources_.tolist() if label not in flea.kept_sources_]
        ax = plot_scores(getattr(flea, f"{matrix}_"), flea.sources_, dropped, figure.add_subplot(), matrix)
        ax.tick_params(axis="x", labelrotation=90)
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


def _data_address(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def _cell(value: object) -> str:
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
