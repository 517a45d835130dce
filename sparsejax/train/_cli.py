"""The command ``sparsejax train``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

from sparsejax import models, train
from sparsejax.data._augmentation import Crop
from sparsejax.data._load import SPECS
from sparsejax.train._config import MethodName, Scope
from sparsejax.train.results._tables import percent, result_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    defaults = train.TrainConfig()

    def option(flag: str, field: str, kind: Any, help: str, **more: Any) -> None:
        parser.add_argument(flag, dest=field, type=kind, default=getattr(defaults, field), help=help, **more)

    option("--data", "data", str, SPECS, metavar="SPEC")
    option("--size", "size", int, "pixels of the square that pictures are cropped to; none takes them as they are")
    option("--resize", "resize", int, "pixels of the shorter side before that; --size by default")
    option("--crop", "crop", str, "random crops of training images", choices=get_args(Crop))
    flag = argparse.BooleanOptionalAction
    parser.add_argument("--flip", action=flag, default=defaults.flip, help="mirror training images half of the time")
    text = "leave out pictures that cannot be read; by default they are an error"
    parser.add_argument("--skip-corrupt", action="store_true", help=text)
    option("--model", "model", str, "network", choices=models.MODEL_NAMES)
    option("--method", "method", str, "how to prune; dense is the baseline", choices=get_args(MethodName))
    option("--sparsity", "sparsity", float, "fraction of zeros in each pruned layer at the end")
    option("--scope", "scope", str, "how it is shared among layers", choices=get_args(Scope))
    option("--epochs", "epochs", int, "passes over the data")
    option("--batch-size", "batch_size", int, "examples per step")
    option("--lr", "learning_rate", float, "highest learning rate")
    option("--momentum", "momentum", float, "of SGD")
    option("--weight-decay", "weight_decay", float, "L2 coefficient")
    option("--seed", "seed", int, "of initial weights and order of the data")
    option("--dense-fraction", "dense_fraction", float, "magnitude: part of the steps before the first weight goes")
    option("--prune-fraction", "prune_fraction", float, "magnitude: part of the steps over which the sparsity rises")
    option("--phase-fraction", "phase_fraction", float, "acdc: length of a phase as part of the steps")
    option("--update-every", "update_every", int, "rigl, set: steps between changes of the mask")
    parser.add_argument(
        "--against-dense",
        action="store_true",
        help="also train dense, alternating every few steps, and compare; its folder is OUT/dense",
    )
    parser.add_argument("--out", type=Path, required=True, default=argparse.SUPPRESS, help="folder of the run")
    parser.add_argument("--checkpoint-every", type=int, default=100, help="steps between checkpoints")
    parser.add_argument(
        "--resume",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="continue from the last checkpoint in the folder; --no-resume discards the run in it",
    )


def run(arguments: argparse.Namespace, refused: Callable[[BaseException], int]) -> int:
    """Train, and print the numbers.

    Args:
      arguments: the parsed options.
      refused: reports an error of the user and returns the exit status.
    """
    fields = train.TrainConfig.__dataclass_fields__
    quiet, paired = arguments.json, arguments.against_dense
    try:
        config = train.TrainConfig(**{name: getattr(arguments, name) for name in fields})
        prepare = train.DensePair if paired else train.TrainRun
        job = prepare(config, arguments.out, checkpoint_every=arguments.checkpoint_every, resume=arguments.resume)
        if isinstance(job, train.DensePair):
            outcome = job.fit((train.reporter(quiet=quiet, lines=True), train.reporter(quiet=quiet, lines=True)))
            result, text = outcome.sparse, str(outcome)
        else:
            outcome = result = job.fit(train.reporter(quiet=quiet))
            text = result_table(result)
    except (ValueError, OSError, ImportError) as error:
        return refused(error)
    if arguments.json:
        print(json.dumps(outcome.to_dict()))
        return 0
    print(text)
    print(f"test accuracy {percent(result.accuracy)} at sparsity {result.sparsity:.3f}; files in {result.out}")
    return 0
