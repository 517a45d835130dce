"""The options of the command line that say which table is read, and the reading of it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from sparsejax._checks import fail
from sparsejax.analysis.multisource.data._table import TabularDataset

_FUNCTION = "multisource"
_ROLES = ("target", "sensitive", "source")


def add_data_options(parser: argparse.ArgumentParser, known: str) -> None:
    """Declare ``--data`` and what belongs to it; ``known`` names the data sets other than the user's own."""
    add = parser.add_argument
    add("--data", required=True, metavar="NAME|csv:FILE", help=f"csv:FILE, your own table, or {known}")
    add("--path", help="the CSV file, or the folder, of a named data set; without it, it is downloaded where possible")
    add("--target", metavar="COL", help="of csv: column of the label, two distinct values; the second in order is 1")
    add("--sensitive", metavar="COL", help="of csv: column of the protected attribute, two distinct values")
    add("--source", metavar="COL", help="of csv: column that says where a row comes from")
    more = "; without --numeric and --categorical, all other columns are features"
    add("--numeric", nargs="+", metavar="COL", help="of csv: features that are numbers" + more)
    add("--categorical", nargs="+", metavar="COL", help="of csv: features that are categories" + more)


def read_data(options: argparse.Namespace) -> tuple[TabularDataset, np.ndarray | None]:
    """Return the table, and the source of each row where the table has one.

    Raises:
      ValueError: an option is missing or does not belong to the data; or the table is refused.
    """
    from sparsejax.analysis import multisource as ms

    kind, colon, file = options.data.partition(":")
    if colon and kind == "csv":
        missing = [f"--{role}" for role in _ROLES if getattr(options, role) is None]
        if missing:
            fail(_FUNCTION, "--data csv", f"no {', '.join(missing)}", "--target, --sensitive and --source with it")
        if options.path is not None:
            fail(_FUNCTION, "--path", f"value {options.path!r}", "none with --data csv:FILE")
        roles: dict[str, Any] = {role: getattr(options, role) for role in (*_ROLES, "numeric", "categorical")}
        return ms.load_table(Path(file), **roles)
    table_options = [f"--{role}" for role in (*_ROLES, "numeric", "categorical") if getattr(options, role) is not None]
    if table_options:
        fail(_FUNCTION, table_options[0], f"--data {options.data!r} beside it", "--data csv:FILE")
    if options.data == "folktables":
        return ms.census(data_home=options.path or "data")
    if options.path:
        return ms.load_dataset(options.data, options.path), None
    return ms.fetch_dataset(options.data), None


def number_to_keep(options: argparse.Namespace, count: int) -> int | float | None:
    """Return K of ``-K`` or ``--beta``, or None.

    Raises:
      ValueError: both; or not above half of the sources.
    """
    from sparsejax.analysis.multisource.filter._select import number_to_keep as checked

    if options.n_keep is not None and options.beta is not None:
        fail(_FUNCTION, "-K", f"--beta {options.beta:g} beside it", "one of the two")
    wanted = options.beta if options.n_keep is None else options.n_keep
    return None if wanted is None else checked(wanted, count)


def add_selection_options(parser: argparse.ArgumentParser, default: str) -> None:
    """Declare ``-K``, ``--beta`` and ``--aggregation``."""
    add = parser.add_argument
    add("-K", dest="n_keep", type=int, help=f"number of sources that FLEA keeps (default: {default})")
    add("--beta", type=float, help="share of clean sources, above 0.5; FLEA keeps that share, rounded up")
    add("--aggregation", default="sum", choices=["sum", "max"], help="of the three distances (default sum)")
