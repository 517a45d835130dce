"""The command line: ``sparsejax doctor | demo | train | bench | bias | multisource | transfer``."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from sparsejax import train
from sparsejax._allocator import keep_memory
from sparsejax._doctor import doctor
from sparsejax._xla_flags import add_flag
from sparsejax.analysis.bias import _cli as _bias
from sparsejax.analysis.transfer import _cli as _transfer
from sparsejax.train import _cli as _train
from sparsejax.train._paired import Demo

# What a user can get wrong and put right: bad values, unreadable files, missing packages.
_USER_ERRORS = (ValueError, OSError, ImportError)


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, like all errors of this program."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
      argv: arguments without the program's name; those of the process if None.

    Returns:
      Exit status: 0, or 1 if ``doctor`` found a wrong kernel, 2 after an error of the user, 130 after Ctrl-C.

    >>> main(["train", "--epochs", "0", "--out", "run"])
    2
    """
    words = list(sys.argv[1:] if argv is None else argv)
    add_flag()
    if argv is None:  # else the process, and its allocator, are the caller's
        keep_memory()
    try:
        if words[:1] == ["bench"]:  # its options are the harness's business, which is not imported for anything else
            return _bench(words[1:])
        if words[:1] == ["multisource"]:
            return _multisource(words[1:])
        arguments = _parser().parse_args(words)
        return arguments.command(arguments)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="sparsejax", description="Sparse training on CPUs with JAX.")
    commands = parser.add_subparsers(
        required=True, metavar="doctor | demo | train | bench | bias | multisource | transfer", parser_class=_Parser
    )
    _add_doctor(commands)
    _add_demo(commands)
    _train.add_arguments(_add_command(commands, "train", lambda words: _train.run(words, _refused), _train.HELP))
    commands.add_parser("bench", help="Measure layers and models against other libraries and against the machine.")
    _bias.add_arguments(_add_command(commands, "bias", lambda words: _bias.run(words, _refused), _bias.HELP))
    commands.add_parser("multisource", help="Study which of several data sources to trust before fair learning.")
    _transfer.add_arguments(
        _add_command(commands, "transfer", lambda words: _transfer.run(words, _refused), _transfer.HELP)
    )
    return parser


def _add_command(commands: Any, name: str, run: Callable[[Any], int], help: str) -> argparse.ArgumentParser:
    formatter = argparse.ArgumentDefaultsHelpFormatter
    parser = commands.add_parser(name, help=help, description=help, formatter_class=formatter)
    parser.add_argument("--json", action="store_true", help="print numbers as JSON and nothing else")
    parser.set_defaults(command=run)
    return parser


def _add_doctor(commands: Any) -> None:
    _add_command(commands, "doctor", _doctor, "Show versions and processor, and test every kernel.")


def _add_demo(commands: Any) -> None:
    text = "Train a small network on real digits, dense and at 90-percent sparsity, and compare the two."
    parser = _add_command(commands, "demo", _demo, text)
    parser.add_argument("--out", type=Path, default=Path("sparsejax-demo"), help="folder for runs and picture")
    parser.add_argument("--seed", type=int, default=0, help="of split, initial weights and order of the data")
    parser.add_argument("--epochs", type=int, default=12, help="passes over the data, for each network")


def _doctor(arguments: argparse.Namespace) -> int:
    if not arguments.json:
        print("testing every kernel: some 40 small compilations ...", file=sys.stderr)
    found = doctor()
    _print(found, arguments)
    return 0 if found.ok else 1


def _demo(arguments: argparse.Namespace) -> int:
    try:
        demo = Demo(arguments.out, seed=arguments.seed, epochs=arguments.epochs)
    except _USER_ERRORS as error:
        return _refused(error)
    result = demo.run(train.reporter(quiet=arguments.json))
    _print(result, arguments)
    if not arguments.json:
        print(f"\n{result.seconds:.0f} s in all; curves in {result.picture}")
    return 0


def _bench(words: Sequence[str]) -> int:
    try:
        harness = importlib.import_module("sparsejax_bench._cli")
    except ModuleNotFoundError as error:
        return _refused(error)
    return harness.main(words)


def _multisource(words: Sequence[str]) -> int:
    try:
        multisource = importlib.import_module("sparsejax.analysis.multisource._cli")
    except ImportError as error:
        return _refused(error)
    return multisource.main(words)


def _print(result: Any, arguments: argparse.Namespace) -> None:
    print(json.dumps(result.to_dict()) if arguments.json else result)


def _refused(error: BaseException) -> int:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return 2
