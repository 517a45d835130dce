"""The command line ``sparsejax multisource run | filter | compare``."""

# pandas declares unions that are too wide for its results.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

import argparse
import functools
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from sparsejax._files import write_atomically
from sparsejax._folder_lock import folder_lock
from sparsejax.analysis._parallel import add_backend_options
from sparsejax.analysis.multisource._cli_data import add_data_options, add_selection_options, number_to_keep, read_data
from sparsejax.analysis.multisource._cli_filter import add_filter

if TYPE_CHECKING:
    import pandas as pd


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}\n")


def main(argv: Sequence[str]) -> int:
    """Run a study, filter the sources of a table, or compare results with published ones.

    Returns:
      Exit status: 0, or 2 after an error of the user.
    """
    top = _Parser(
        prog="sparsejax multisource", description="Fair learning from several data sources, some of them manipulated."
    )
    commands = top.add_subparsers(required=True, metavar="run | filter | compare", parser_class=_Parser)
    _add_run(commands)
    add_filter(commands)
    _add_compare(commands)
    options = top.parse_args(argv)
    try:
        return options.command(options)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


def _add_run(commands: Any) -> None:
    text = "Manipulate sources of a data set, filter them, train, and evaluate. Resumes an interrupted study."
    parser = commands.add_parser("run", help=text, description=text)
    parser.set_defaults(command=_run)
    add = parser.add_argument
    add_data_options(parser, "adult, compas, drugs, germancredit, folktables")
    add("--adversary", nargs="+", help="how sources are manipulated (default: in every way)")
    add("--learner", nargs="+", help="learners (default: all)")
    add("--method", nargs="+", help="methods (default: all)")
    add("--classifier", default="linear", choices=["linear", "xgboost"])
    text = "number of sources, equal blocks of a table that has none of its own (default 5)"
    add("-n", dest="n_sources", type=int, default=5, help=text)
    add("-N", dest="n_malicious", type=int, help="how many of them are manipulated (default 2, or less than half)")
    add_selection_options(parser, "all that are not manipulated")
    add("--eta", type=float, default=0.5, help="weight of fairness, learners reg and adv (default 0.5)")
    add("--lambda", dest="l2", type=float, default=0.0, help="weight of half the squared weights (default 0)")
    add("--t", type=float, default=-2.0, help="tilt over sources of hterm (default -2)")
    add("--tau", type=float, default=2.0, help="tilt over groups of hterm (default 2)")
    add("--ablation", action="store_true", help="FLEA with each subset of the three distances, and no other method")
    add("--seeds", type=int, default=10, help="number of seeds (default 10)")
    add("--legacy", action="store_true", help="hterm and dro with the defects of the published numbers")
    add("--jobs", type=int, default=1, help="processes (default 1)")
    add_backend_options(parser)
    add("--out", type=Path, required=True, help="folder of the results, tables and plots")
    add("--json", action="store_true", help="print numbers as JSON and nothing else")


def _add_compare(commands: Any) -> None:
    text = "Compare results with published ones: which means agree within two standard errors of the difference."
    parser = commands.add_parser("compare", help=text, description=text)
    parser.set_defaults(command=_compare)
    add = parser.add_argument
    add("results", nargs="+", type=Path, help="folders that `run` wrote")
    add("--published", type=Path, required=True, help="CSV with the columns of summary.csv")
    add("--metric", nargs="+", default=["accuracy", "dp_violation"], help="default: accuracy dp_violation")
    add("--method", nargs="+", help="methods (default: all)")
    add("--out", type=Path, help="file for the whole table, as CSV")
    add("--json", action="store_true", help="print the table as JSON and nothing else")


def _run(options: argparse.Namespace) -> int:
    from sparsejax.analysis import multisource as ms

    data, source = read_data(options)
    count = options.n_sources if source is None else len(set(source.tolist()))
    with folder_lock(options.out, "multisource"), warnings.catch_warnings():
        # One warning per cell says the same; `filter` shows those of the table as it is.
        warnings.simplefilter("ignore", ms.SourceWarning)
        results = ms.run_study(
            data,
            options.out,
            adversaries=options.adversary or ms.ADVERSARIES,
            learners=options.learner or ms.LEARNERS,
            methods=options.method or ms.METHODS,
            classifier=options.classifier,
            n_sources=options.n_sources,
            n_malicious=min(2, (count - 1) // 2) if options.n_malicious is None else options.n_malicious,
            seeds=options.seeds,
            legacy=options.legacy,
            n_jobs=options.jobs,
            backend=options.backend,
            address=options.address,
            source=source,
            n_keep=number_to_keep(options, count),
            aggregation=options.aggregation,
            ablation=options.ablation,
            hyperparameters=ms.Hyperparameters(options.eta, options.l2, options.t, options.tau),
        )
        summary = ms.summarise(results)
        _write(results, summary, options.out)
    if options.json:
        print(summary.to_json(orient="records"))
        return 0
    print("accuracy % / demographic parity violation %")
    for adversary in dict.fromkeys(summary["adversary"]):
        print(f"\n{adversary}\n{ms.results_table(summary, adversary).droplevel([0, 1, 2, 3]).to_string()}")
    return 0


def _write(results: pd.DataFrame, summary: pd.DataFrame, out: Path) -> None:
    """Write results, summary, tables and plots into the folder."""
    import matplotlib.pyplot as plt

    from sparsejax.analysis import multisource as ms
    from sparsejax.analysis._frames import write_csv

    write_csv(results, out / "results.csv")
    write_csv(summary, out / "summary.csv")
    text = [
        f"{name}\n\n{ms.results_table(summary, name).to_string()}\n" for name in dict.fromkeys(summary["adversary"])
    ]
    head = "accuracy % / demographic parity violation %, mean±standard deviation over seeds\n"
    write_atomically(out / "tables.txt", "\n".join([head, *text]))
    scored = summary[summary["metric"] == "accuracy"]
    for dataset, learner, classifier in scored[["dataset", "learner", "classifier"]].drop_duplicates().to_numpy():
        figure = ms.plot_bars(summary, dataset, learner, classifier)
        save = functools.partial(figure.savefig, format="png", dpi=150, bbox_inches="tight")
        write_atomically(out / f"{dataset}-{classifier}-{learner}.png", save)
        plt.close(figure)


def _compare(options: argparse.Namespace) -> int:
    import pandas as pd

    from sparsejax.analysis import multisource as ms
    from sparsejax.analysis._frames import one_of, read_csv, write_csv
    from sparsejax.analysis.multisource.study._tables import RESULT_COLUMNS, SUMMARY_COLUMNS

    numbers = ("n_sources", "n_malicious", "seed", "value")
    parts = [read_csv("compare", f / "results.csv", RESULT_COLUMNS, numbers) for f in options.results]
    published = read_csv("compare", options.published, SUMMARY_COLUMNS, SUMMARY_COLUMNS[-3:])
    for flag, column, names in (("--metric", "metric", options.metric), ("--method", "method", options.method or ())):
        for name in names:
            one_of("compare", flag, name, published[column].unique())
    comparison = ms.compare_published(pd.concat(parts), published)
    comparison = comparison[comparison["metric"].isin(options.metric)]
    if options.method:
        comparison = comparison[comparison["method"].isin(options.method)]
    if comparison.empty:
        raise ValueError("compare_published: results has no row with published numbers; expected the study's settings.")
    if options.out is not None:
        write_csv(comparison, options.out)
    if options.json:
        print(comparison.to_json(orient="records"))
        return 0
    print(ms.agreement(comparison).to_string())
    apart = comparison[~comparison["agrees"]]
    print(f"\n{len(comparison) - len(apart)} of {len(comparison)} means agree within two standard errors")
    if len(apart):
        dropped = ["n_sources", "n_malicious", "difference", "agrees"]
        print(apart.drop(columns=dropped).round(4).to_string(index=False))
    return 0
