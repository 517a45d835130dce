"""The command line ``sparsejax multisource run``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}\n")


def main(argv: Sequence[str]) -> int:
    """Run a study and print the mean over seeds of each metric.

    Returns:
      Exit status: 0, or 2 after an error of the user.
    """
    top = _Parser(prog="sparsejax multisource", description="Fair learning when some data sources lie.")
    command = top.add_subparsers(required=True, metavar="run", parser_class=_Parser)
    text = "Manipulate sources of a data set, filter, learn, and judge. Resumes what was stopped."
    add = command.add_parser("run", help=text, description=text).add_argument
    add("--data", required=True, help="adult, compas, drugs or germancredit")
    add("--path", required=True, help="its CSV file, or the folder of it")
    add("--adversary", nargs="+", help="how sources are manipulated (default: in every way)")
    add("--learner", nargs="+", help="learners (default: all)")
    add("--method", nargs="+", help="methods (default: all)")
    add("--classifier", default="linear", choices=["linear", "xgboost"])
    add("-n", dest="n_sources", type=int, default=5, help="number of sources (default 5)")
    add("-N", dest="n_malicious", type=int, default=2, help="how many of them are manipulated (default 2)")
    add("--seeds", type=int, default=10, help="number of seeds (default 10)")
    add("--jobs", type=int, default=1, help="processes (default 1)")
    add("--out", required=True, help="folder of the results")
    add("--json", action="store_true", help="print numbers as JSON and nothing else")
    options = top.parse_args(argv)
    try:
        return _run(options)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


def _run(options: argparse.Namespace) -> int:
    from sparsejax.analysis import multisource as ms

    every = ms.LEARNERS if options.classifier == "linear" else ("none", "resample")
    results = ms.run_study(
        ms.load_dataset(options.data, options.path),
        options.out,
        adversaries=options.adversary or ms.ADVERSARIES,
        learners=options.learner or every,
        methods=options.method or ms.METHODS,
        classifier=options.classifier,
        n_sources=options.n_sources,
        n_malicious=options.n_malicious,
        seeds=options.seeds,
        n_jobs=options.jobs,
    )
    results.to_csv(f"{options.out}/results.csv", index=False)
    keys = ["adversary", "learner", "method", "metric"]
    table = results.groupby(keys, sort=False)["value"].mean()
    if options.json:
        print(table.reset_index().to_json(orient="records"))
    else:
        print(table.unstack("metric")[["accuracy", "dp_violation"]].dropna().round(4).to_string())
    return 0
