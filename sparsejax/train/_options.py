"""Options that several commands share, each a field of `TrainConfig`."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

from sparsejax import models
from sparsejax.data._augmentation import Crop
from sparsejax.data._load import SPECS
from sparsejax.train._config import OptimizerName, Precision, ScheduleName, TrainConfig
from sparsejax.train._source import model_name

Option = Callable[..., None]


def option_of(parser: argparse.ArgumentParser, defaults: TrainConfig) -> Option:
    """Return a function that declares an option for a field, with the default of that field."""

    def option(flag: str, field: str, kind: Any, help: str, **more: Any) -> None:
        default = getattr(defaults, field)
        if field == "model":  # a run has its own
            help, default = f"{help}; {default} by default, with --from RUN that of the run", argparse.SUPPRESS
        if kind is bool:
            action = argparse.BooleanOptionalAction
            parser.add_argument(flag, dest=field, action=action, default=default, help=help, **more)
        else:
            parser.add_argument(flag, dest=field, type=kind, default=default, help=help, **more)

    return option


def add_data_options(option: Option) -> None:
    """Declare what is read, and how."""
    option("--data", "data", str, SPECS, metavar="SPEC")
    option("--size", "size", int, "pixels of the square that pictures are cropped to; none takes them as they are")
    option("--resize", "resize", int, "pixels of the shorter side before that; --size by default")
    option("--skip-corrupt", "skip_corrupt", bool, "leave out pictures that cannot be read; else they are an error")


def add_training_options(option: Option) -> None:
    """Declare network, augmentation, optimizer and schedule."""
    option("--model", "model", str, "network", choices=models.MODEL_NAMES)
    option("--new-head", "new_head", bool, "replace a classifier whose classes are not those of the data")
    option("--crop", "crop", str, "random crops of training images", choices=get_args(Crop))
    option("--flip", "flip", bool, "mirror training images half of the time")
    option("--epochs", "epochs", int, "passes over the data")
    option("--batch-size", "batch_size", int, "examples per step")
    option("--optimizer", "optimizer", str, "of all weights", choices=get_args(OptimizerName))
    option("--lr", "learning_rate", float, "highest learning rate")
    option("--schedule", "schedule", str, "of the learning rate after the warm-up", choices=get_args(ScheduleName))
    option("--warmup", "warmup", float, "part of the steps over which the learning rate rises")
    option("--momentum", "momentum", float, "of SGD")
    option(
        "--weight-decay",
        "weight_decay",
        float,
        "L2 coefficient; 1e-4, or for acdc by the steps of a phase",
    )
    option("--label-smoothing", "label_smoothing", float, "part of the target spread over all classes")
    option("--precision", "precision", str, "of forward and backward passes", choices=get_args(Precision))
    option("--sync-batch-norm", "sync_batch_norm", bool, "on several processes: batch statistics of the whole batch")
    option("--seed", "seed", int, "of initial weights, order of the data and augmentation")


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Declare folder, checkpoints and comparison."""
    parser.add_argument(
        "--against-dense",
        action="store_true",
        help="also train dense, alternating every few steps, and compare; its folder is OUT/dense",
    )
    parser.add_argument("--out", type=Path, required=True, default=argparse.SUPPRESS, help="folder of the run")
    parser.add_argument("--checkpoint-every", type=int, default=100, help="steps between checkpoints")
    parser.add_argument("--tensorboard", action="store_true", help="write numbers of each epoch to OUT/tensorboard")
    parser.add_argument(
        "--resume",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="continue from the last checkpoint in the folder; --no-resume discards the run in it",
    )


def config_of(arguments: argparse.Namespace, defaults: TrainConfig) -> TrainConfig:
    """Return the configuration that the options name; ``defaults`` has the fields without an option.

    Raises:
      FileNotFoundError: the network is to come from a folder without a run.
      ValueError: a value out of range, or a model that is not that of the run.
    """
    values = {name: value for name, value in vars(arguments).items() if name in TrainConfig.__dataclass_fields__}
    config = dataclasses.replace(defaults, **values)
    name = model_name(config.source, values.get("model")) if config.source else None
    return config if name is None else dataclasses.replace(config, model=name)


def compared(arguments: argparse.Namespace, config: TrainConfig) -> dict[str, Any]:
    """Return, by name, what all processes of a run must agree on."""
    names = ("checkpoint_every", "resume", "against_dense")
    return config.to_dict() | {name: getattr(arguments, name) for name in names}


def run_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the options of `TrainRun` that the command line names."""
    from sparsejax.train.log._epochs import TensorBoardLogger

    logger = [TensorBoardLogger(arguments.out / "tensorboard")] if arguments.tensorboard else []
    common = {"checkpoint_every": arguments.checkpoint_every, "resume": arguments.resume}
    return common | {"callbacks": logger, "times_forward": True}
