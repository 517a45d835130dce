"""The command ``sparsejax train``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any, get_args

from sparsejax import train
from sparsejax.train._config import MethodName, Scope
from sparsejax.train._options import (
    add_data_options,
    add_run_options,
    add_training_options,
    compared,
    config_of,
    option_of,
    run_options,
)
from sparsejax.train.processes._command import add_process_options, run_in_processes
from sparsejax.train.processes._group import Group
from sparsejax.train.results._result import TrainResult
from sparsejax.train.results._tables import percent, result_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    option = option_of(parser, train.TrainConfig())
    add_data_options(option)
    text = "start from this network: a PyTorch file or the folder of a run; a sparse one is pruned further"
    option("--from", "source", str, text, metavar="FILE_OR_RUN")
    add_training_options(option)
    option("--method", "method", str, "how to prune; dense is the baseline", choices=get_args(MethodName))
    option("--sparsity", "sparsity", float, "fraction of zeros in each pruned layer at the end")
    option("--scope", "scope", str, "how it is shared among layers", choices=get_args(Scope))
    option("--structure", "structure", str, "2:4 or the like, or block:4x1 or the like; single weights by default")
    option("--include", "include", str, "globs of layers to prune, such as 'layer4/*', separated by commas")
    option("--exclude", "exclude", str, "globs of layers that stay dense")
    option("--dense-fraction", "dense_fraction", float, "magnitude: part of the steps before the first weight goes")
    option("--prune-fraction", "prune_fraction", float, "magnitude: part of the steps over which the sparsity rises")
    option("--phase-fraction", "phase_fraction", float, "acdc: length of a phase as part of the steps")
    option("--update-every", "update_every", int, "rigl, set: steps between changes of the mask")
    add_run_options(parser)
    add_process_options(parser)


def run(arguments: argparse.Namespace, refused: Callable[[BaseException], int]) -> int:
    """Train, and print the numbers.

    Args:
      arguments: the parsed options.
      refused: reports an error of the user and returns the exit status.
    """
    return run_in_processes(
        arguments,
        lambda options: compared(options, config_of(options, train.TrainConfig())),
        lambda options, group: _run(options, group, refused),
        refused,
    )


def _run(arguments: argparse.Namespace, group: Group, refused: Callable[[BaseException], int]) -> int:
    try:
        outcome, result, text = fit(arguments, config_of(arguments, train.TrainConfig()), group)
    except (ValueError, OSError, ImportError) as error:
        return refused(error)
    if arguments.json:
        print(json.dumps(outcome.to_dict()))
        return 0
    print(text)
    print(f"test accuracy {percent(result.accuracy)} at sparsity {result.sparsity:.3f}; files in {result.out}")
    return 0


def fit(
    arguments: argparse.Namespace, config: train.TrainConfig, group: Group, *, measure: bool = True
) -> tuple[Any, TrainResult, str]:
    """Train by the options, with the dense twin if that is asked for.

    Args:
      arguments: the parsed options.
      config: the run.
      group: the processes that share it.
      measure: as for `TrainRun`.

    Returns:
      What JSON shows, the result of the run itself, and the table.
    """
    quiet = arguments.json
    options: dict[str, Any] = run_options(arguments) | {"group": group, "measure": measure}
    if arguments.against_dense:
        pair = train.DensePair(config, arguments.out, **options)
        reports = train.reporter(quiet=quiet, lines=True), train.reporter(quiet=quiet, lines=True)
        outcome = pair.fit(reports)
        return outcome, outcome.sparse, str(outcome)
    result = train.TrainRun(config, arguments.out, **options).fit(train.reporter(quiet=quiet))
    return result, result, result_table(result)
