"""``sparsejax audit``: from trained networks to an audit, without training."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sparsejax._files import place_for, write_atomically
from sparsejax._npz import read_npz

_FUNCTION = "audit"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    add = parser.add_argument
    again: Any = {"action": "append", "required": True, "default": argparse.SUPPRESS}
    text = "folder of `sparsejax train`, or a file in `outputs` of a `sparsejax transfer` folder; repeat for seeds"
    add("--dense", metavar="RUN", help=text, **again)
    text = "the same of a sparse network; repeat for seeds and sparsities"
    add("--sparse", metavar="[SPARSITY=]RUN", help=text, **again)
    text = "the data whose test split is predicted: digits, npz:PATH, idx:PATH, folder:PATH, or NAME:PATH of the twelve"
    add("--data", metavar="SPEC", required=True, default=argparse.SUPPRESS, help=text)
    add("--groups", type=Path, metavar="FILE", help=".npz with one array [n] per group attribute, of the test split")
    text = "the same of the training split; without it, the test split says which side of a group a class favours"
    add("--train-groups", type=Path, metavar="FILE", help=text)
    add("--out", type=Path, required=True, default=argparse.SUPPRESS, metavar="FILE", help="the report, .html")
    add("--table", type=Path, metavar="FILE", help="all numbers as a tidy table, .csv or .json")
    text = "one row per test picture of the first dense and sparse run, as CSV, such as `multisource filter` reads"
    add("--predictions", type=Path, metavar="FILE", help=text)
    add("--band", type=float, default=0.4, help="half width of the uncertain band around p = 0.5")
    add("--min-count", type=int, default=10, help="least samples behind a rate")
    add("--bootstrap", type=int, default=0, help="resamples for 95-percent intervals")
    add("--resize", type=int, default=256, help="pixels of the shorter side, for image files")
    add("--size", type=int, default=224, help="pixels of the crop, for image files")
    add("--seed", type=int, default=0, help="of resamples and gallery")


def run(arguments: argparse.Namespace, refuse: Callable[[BaseException], int]) -> int:
    """Run the command; ``refuse`` reports an error of the user."""
    try:
        place_for(_FUNCTION, arguments.out, "file")
        audit = _audit(arguments)
        write_atomically(arguments.out, audit.to_html())
        if arguments.table is not None:
            write = audit.table.to_json if arguments.table.suffix == ".json" else audit.table.to_csv
            write(arguments.table)
    except (ValueError, OSError, ImportError) as error:
        return refuse(error)
    if arguments.json:
        overall = json.loads(audit.overall.to_json())
        print(json.dumps({"out": str(arguments.out), "warnings": audit.warnings, "overall": overall}))
        return 0
    print(audit)
    for warning in audit.warnings:
        print(f"note: {warning}")
    print(f"report in {arguments.out}")
    return 0


def _audit(arguments: argparse.Namespace) -> Any:
    from sparsejax._csv import csv_text
    from sparsejax.analysis.transfer._audit import audit_runs, predictions_table, read_run, run_outputs
    from sparsejax.data import Preprocessing, load_task

    dense, sparse = ([read_run(word) for word in words] for words in (arguments.dense, arguments.sparse))
    task = load_task(arguments.data, Preprocessing(resize=arguments.resize, size=arguments.size))
    groups = None if arguments.groups is None else read_npz(_FUNCTION, arguments.groups)
    audit = audit_runs(
        dense,
        sparse,
        task,
        groups,
        train_groups=None if arguments.train_groups is None else read_npz(_FUNCTION, arguments.train_groups),
        uncertainty_band=arguments.band,
        min_count=arguments.min_count,
        n_boot=arguments.bootstrap,
        random_state=arguments.seed,
    )
    if arguments.predictions is not None:
        columns = predictions_table(run_outputs(dense[0], task), run_outputs(sparse[0], task), groups)
        write_atomically(arguments.predictions, csv_text(columns, zip(*columns.values(), strict=True)))
    return audit
