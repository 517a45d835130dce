"""``sparsejax multisource filter``: which sources of a table to trust, without training anything on it."""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path
from typing import Any

from sparsejax._checks import fail
from sparsejax._folder_lock import folder_lock
from sparsejax.analysis.multisource._cli_data import (
    add_data_options,
    add_selection_options,
    number_to_keep,
    read_data,
)


def add_filter(commands: Any) -> None:
    """Declare the command."""
    text = "Keep the sources of a table that a majority of them agrees with. Nothing is manipulated or trained."
    parser = commands.add_parser("filter", help=text, description=text)
    parser.set_defaults(command=_filter)
    add_data_options(parser, "folktables")
    add_selection_options(parser, "the smallest majority")
    parser.add_argument("--disparity", default="absolute", choices=["absolute", "signed"], help="(default absolute)")
    parser.add_argument("--out", type=Path, required=True, help="folder of the tables, heat maps and report.html")
    parser.add_argument("--json", action="store_true", help="print the verdict as JSON and nothing else")


def _filter(options: argparse.Namespace) -> int:
    from sparsejax.analysis import multisource as ms

    data, source = read_data(options)
    if source is None:
        fail("filter", "--data", f"value {options.data!r}, one source", "csv:FILE or folktables, which have sources")
    with folder_lock(options.out, "multisource"):  # first, so that a folder that cannot be written to is known early
        flea, notes = _fit(options, data, source)
        facts = {"data": options.data, "features": ", ".join(data.columns)}
        if options.target is not None:
            facts |= {"target": options.target, "sensitive": data.columns[data.protected], "source": options.source}
        ms.write_filter_report(flea, options.out, name=data.name, facts=facts, warnings=notes)
    _print(flea, notes, options)
    return 0


def _fit(options: argparse.Namespace, data: Any, source: Any) -> tuple[Any, list[str]]:
    """Return the fitted filter and what it warned of."""
    import numpy as np

    from sparsejax.analysis import multisource as ms

    keep = number_to_keep(options, len(np.unique(source.astype(str))))
    flea = ms.FLEA(n_keep=keep, disparity=options.disparity, aggregation=options.aggregation)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ms.SourceWarning)
        flea.fit(data.X, data.y, sensitive_features=data.a, source=source)
    return flea, [str(each.message) for each in caught if issubclass(each.category, ms.SourceWarning)]


def _print(flea: Any, notes: list[str], options: argparse.Namespace) -> None:
    table = flea.diagnosis_
    dropped = table[~table["kept"]]
    if options.json:
        verdict = {"kept": flea.kept_sources_.tolist(), "dropped": dropped["reason"].to_dict(), "warnings": notes}
        print(json.dumps(verdict | {"out": str(options.out)}))
        return
    shown = ["rows", "positive_rate", "group_share", "discrepancy", "disparity", "disbalance", "q", "kept", "reason"]
    print(table[shown].round(3).to_string())
    print(f"\nkept {len(flea.kept_sources_)} of {len(table)} sources: {', '.join(map(str, flea.kept_sources_))}")
    for note in notes:
        print(f"note: {note}")
    print(f"report in {options.out / 'report.html'}")
