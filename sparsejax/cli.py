"""The command line: every command of ``sparsejax``, loaded when it is used."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import NoReturn

import sparsejax

# To add a command: a line here, and a module with add_arguments(parser) and run(arguments, refused) -> exit status.
# Modules are imported when their command is used.
_COMMANDS = {
    "doctor": ("sparsejax._doctor", "Show versions and processor, and test every kernel."),
    "demo": (
        "sparsejax.train._demo",
        "Train a small network on real digits, dense and at 90-percent sparsity, and compare the two.",
    ),
    "train": (
        "sparsejax.train._cli",
        "Train a network sparse, on the sparse kernels wherever its weights are. Resumes what was killed.",
    ),
    "finetune": (
        "sparsejax.train._finetune_cli",
        "Fine-tune a pruned network inside its mask, on the sparse kernels. Resumes what was killed.",
    ),
    "evaluate": (
        "sparsejax.train._evaluate_cli",
        "Measure a network: accuracy, sparsity and operations of each layer, latency dense and sparse.",
    ),
    "export": (
        "sparsejax.train._export_cli",
        "Write a trained network for PyTorch, as safetensors, or as a program that runs without its code.",
    ),
    "bench": ("sparsejax_bench._cli", "Measure layers and models against other libraries and against the machine."),
    "bias": (
        "sparsejax.analysis.bias._cli",
        "Audit what pruning did to a model's outputs, by group, and write a report that opens in a browser.",
    ),
    "multisource": (
        "sparsejax.analysis.multisource._cli",
        "Study which of several data sources to trust before fair learning.",
    ),
    "audit": (
        "sparsejax.analysis.transfer._audit_cli",
        "Audit trained networks, dense and sparse, on a data set: predicts and compares, and trains nothing.",
    ),
    "transfer": (
        "sparsejax.analysis.transfer._cli",
        "Adapt trained networks, dense and sparse, to other data sets, and compare them. Resumes what was stopped.",
    ),
}
_WITH_SUBCOMMANDS = ("bench", "multisource")  # these have subcommands: main(words) -> exit status


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, like all errors of this program."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
      argv: arguments without the program's name; those of the process if None.

    Returns:
      Exit status: 0, or 1 if ``doctor`` detected a wrong kernel, 2 after an error of the user, 130 after Ctrl-C.

    >>> main(["train", "--epochs", "0", "--out", "run"])
    2
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if argv is None:  # else the process, and its allocator, are the caller's
        sparsejax.configure()
    name = words[0] if words else ""
    try:
        if name not in _COMMANDS:
            _overview().parse_args(words)
            return 0
        try:
            command = importlib.import_module(_COMMANDS[name][0])
        except ImportError as error:
            return _refused(error)
        if name in _WITH_SUBCOMMANDS:
            return command.main(words[1:])
        parser = _Parser(
            prog=f"sparsejax {name}",
            description=_COMMANDS[name][1],
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        parser.add_argument("--json", action="store_true", help="print numbers as JSON and nothing else")
        command.add_arguments(parser)
        return command.run(parser.parse_args(words[1:], argparse.Namespace(words=words)), _refused)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _overview() -> argparse.ArgumentParser:
    """The parser of a command line that names no command: it prints the list of commands, or an error."""
    parser = _Parser(prog="sparsejax", description="Sparse training on CPUs with JAX.")
    parser.add_argument("--version", action="version", version=f"sparsejax {sparsejax.__version__}")
    commands = parser.add_subparsers(required=True, metavar=" | ".join(_COMMANDS))
    for name, (_, text) in _COMMANDS.items():
        commands.add_parser(name, help=text)
    return parser


def _refused(error: BaseException) -> int:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return 2
