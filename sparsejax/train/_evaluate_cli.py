"""The command ``sparsejax evaluate``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable

from sparsejax import models, train
from sparsejax.train._inputs import load_configured_task
from sparsejax.train._options import add_data_options, config_of, option_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    option = option_of(parser, train.TrainConfig())
    text = "the network: a PyTorch file (then --model), or the folder of a run"
    option("--from", "source", str, text, metavar="FILE_OR_RUN", required=True)
    parser.add_argument("--model", choices=models.MODEL_NAMES, default=None, help="network of a PyTorch file")
    add_data_options(option)
    text = "batch size of a latency; repeat for several; 1 and 64 by default"
    parser.add_argument("--batch", type=int, action="append", metavar="SIZE", help=text)


def run(arguments: argparse.Namespace, refused: Callable[[BaseException], int]) -> int:
    """Evaluate, and print the numbers; ``refused`` reports an error of the user."""
    try:
        options = {name: value for name, value in vars(arguments).items() if name != "model"}
        task = load_configured_task(config_of(argparse.Namespace(**options), train.TrainConfig()))
        shape = task.test.images([0]).shape[1:]
        network = train.load_network(arguments.source, arguments.model, num_classes=task.num_classes, image_shape=shape)
        evaluation = train.evaluate(network.model, task, batch_sizes=tuple(arguments.batch or (1, 64)))
    except (ValueError, OSError, ImportError) as error:
        return refused(error)
    if arguments.json:
        print(json.dumps(evaluation.to_dict()))
    else:
        print("\n".join([*network.notes, str(evaluation)]))
    return 0
