"""The command ``sparsejax finetune``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable

from sparsejax import train
from sparsejax.train._cli import fit
from sparsejax.train._options import (
    add_data_options,
    add_run_options,
    add_training_options,
    compared,
    config_of,
    option_of,
)
from sparsejax.train._saved_forms import FORMS
from sparsejax.train.processes._command import add_process_options, run_in_processes
from sparsejax.train.processes._group import Group
from sparsejax.train.results._tables import percent

_DEFAULTS = train.TrainConfig(
    method="fixed", model="resnet18", learning_rate=0.01, weight_decay=5e-4, crop="shift", flip=True
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    option = option_of(parser, _DEFAULTS)
    text = "the network: a PyTorch file (then --model), or the folder of a run"
    option("--from", "source", str, text, metavar="FILE_OR_RUN", required=True)
    add_data_options(option)
    add_training_options(option)
    option("--freeze-backbone", "freeze_backbone", bool, "train the classifier alone")
    text = "also write the trained network in this form: for PyTorch, or as a program; repeat for several"
    parser.add_argument("--save", action="append", choices=FORMS, default=[], help=text)
    text = "choose by time which layers are stored compressed; --no-measure: all that are 80 %% sparse"
    parser.add_argument("--measure", action=argparse.BooleanOptionalAction, default=True, help=text)
    add_run_options(parser)
    add_process_options(parser)


def run(arguments: argparse.Namespace, refused: Callable[[BaseException], int]) -> int:
    """Fine-tune, save, and print the numbers; ``refused`` reports an error of the user."""
    return run_in_processes(
        arguments,
        lambda options: compared(options, config_of(options, _DEFAULTS)),
        lambda options, group: _run(options, group, refused),
        refused,
    )


def _run(arguments: argparse.Namespace, group: Group, refused: Callable[[BaseException], int]) -> int:
    try:
        outcome, result, text = fit(arguments, config_of(arguments, _DEFAULTS), group, measure=arguments.measure)
        keeps = bool(arguments.save) and group.writes
        files = train.save_network(result.out, arguments.save, arguments.out) if keeps else []
    except (ValueError, OSError, ImportError) as error:
        return refused(error)
    if arguments.json:
        print(json.dumps(outcome.to_dict() | {"saved": [str(path) for path in files]}))
        return 0
    print(text)
    print(f"test accuracy {percent(result.accuracy)} at sparsity {result.sparsity:.3f}; files in {result.out}")
    for path in files:
        print(f"saved {path}")
    return 0
