"""The command ``sparsejax export``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

from sparsejax import models, train
from sparsejax.train._saved_forms import FORMS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    hidden = argparse.SUPPRESS
    text = "the network: the folder of a run, or a PyTorch file (then --model)"
    parser.add_argument("--from", dest="source", metavar="FILE_OR_RUN", required=True, default=hidden, help=text)
    parser.add_argument("--model", choices=models.MODEL_NAMES, default=None, help="network of a PyTorch file")
    text = "form to write; repeat for several"
    parser.add_argument("--save", action="append", choices=FORMS, required=True, default=hidden, help=text)
    text = "pixels a side of the images of an exported program; those of the run by default"
    parser.add_argument("--size", type=int, default=None, help=text)
    parser.add_argument("--out", type=Path, required=True, default=hidden, help="folder of the files")


def run(arguments: argparse.Namespace, refused: Callable[[BaseException], int]) -> int:
    """Write the files and print their names; ``refused`` reports an error of the user."""
    shape = None if arguments.size is None else (arguments.size, arguments.size, 3)
    try:
        files = train.save_network(
            arguments.source, arguments.save, arguments.out, model=arguments.model, image_shape=shape
        )
    except (ValueError, OSError, ImportError) as error:
        return refused(error)
    if arguments.json:
        print(json.dumps({"saved": [str(path) for path in files]}))
    else:
        print("\n".join(f"saved {path}" for path in files))
    return 0
