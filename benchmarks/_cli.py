"""The command line ``sparsejax bench``: parse, pin threads in a separate process, run, report."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Sequence
from typing import Any, NoReturn

COMMANDS = {
    "layers": "time every layer against every peer, and against the limits of the machine",
    "crossover": "find the sparsity from which a layer is faster sparse than dense",
    "model": "time a training step of a whole network, profile it, or measure its memory",
    "settings": "time a training step in a program that sets nothing, and after sx.configure()",
    "small": "time forward products of batches of 1, 4 and 16 against sparse and dense libraries",
    "scaling": "time every layer with one thread and with more",
    "attention": "time attention against that of JAX and PyTorch",
    "blocks": "time patterns of blocks and of equal rows against scattered weights",
    "overhead": "time calls of tiny layers against empty calls",
    "rule": 'fit the cost model of sparsify(policy="rule") to the JSON of layers, and judge it',
    "peak": "measure multiply-adds and bandwidth of every instruction set",
}
_TWO_THREADS = {"scaling"}
_SPARSITY = {
    "layers": ([0.9, 0.95], "fractions of zeros"),
    "crossover": ([0.3, 0.95], "ends of the search"),
    "model": ([0.95], "fractions of zeros of all pruned kernels"),
    "settings": ([0.95], "fraction of zeros"),
    "scaling": ([0.9, 0.95], "fractions of zeros"),
    "blocks": ([0.9, 0.95], "fractions of zeros"),
    "small": ([0.9], "fractions of zeros"),
}
_SHAPES = {"layers", "crossover", "scaling"}
# The command line does not import the implementations: these are their names.
_PEERS = {"layers": [], "crossover": ["xla", "torch"], "model": []}
_MODELS = ["resnet18", "vit-small", "transformer-768", "vit_tiny", "vit_small", "vit_base", "gpt", "bert"]
_DTYPES = ["float32", "bfloat16"]
_DTYPE_HELP = {
    "layers": "bfloat16: ours in that type too, and compared with ours in float32 (default float32)",
    "model": "of activations and products of ours and of JAX dense; parameters are float32 (default float32)",
}


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}\n")


def _fraction(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"sparsity has value {text}; expected a fraction in [0, 1)")
    return value


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"value {text}; expected a positive number")
    return value


def parser() -> argparse.ArgumentParser:
    """The parser of all commands; each has the options that mean something to it."""
    top = _Parser(prog="sparsejax bench", description="Measure sparsejax against its peers and against the machine.")
    commands = top.add_subparsers(dest="command", required=True, metavar=" | ".join(COMMANDS), parser_class=_Parser)
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        add = command.add_argument
        threads = 2 if name in _TWO_THREADS else 1
        add("--json", metavar="PATH", help="also write JSON there; - prints JSON and nothing else")
        if name == "rule":  # measures nothing
            add("--from", dest="sources", nargs="+", required=True, metavar="PATH", help="JSON that 'layers' wrote")
            command.set_defaults(threads=threads)
            continue
        add("--threads", type=_positive, default=threads, help=f"processors to use, pinned (default {threads})")
        add("--rounds", type=int, default=7, help="samples of each implementation (default 7)")
        if name in _SPARSITY:
            default, meaning = _SPARSITY[name]
            shown = " ".join(map(str, default))
            add("--sparsity", type=_fraction, nargs="+", default=default, help=f"{meaning} (default {shown})")
        if name in _SHAPES:
            add("--shapes", nargs="+", default=[], metavar="SHAPE", help="sets, names or CSV files (default all)")
        if name in _PEERS:
            shown = " ".join(_PEERS[name]) or "all"
            add("--peers", nargs="+", default=_PEERS[name], metavar="PEER", help=f"implementations (default {shown})")
        if name in _DTYPE_HELP:
            add("--dtype", choices=_DTYPES, default=_DTYPES[0], help=_DTYPE_HELP[name])
            add("--no-amx", action="store_true", help="keep PyTorch from using AMX, as on processors without it")
        if name in ("model", "settings"):
            _add_network(command)
        if name == "model":
            instead = command.add_mutually_exclusive_group()
            instead.add_argument("--memory", action="store_true", help="measure memory instead of time")
            instead.add_argument("--breakdown", action="store_true", help="profile our step: where the time goes")
            add("--nothing-set", action="store_true", help="do not call sx.configure() first, as the commands do")
    return top


def _add_network(command: argparse.ArgumentParser) -> None:
    """Options of the commands that train a whole network."""
    add = command.add_argument
    add("--model", choices=_MODELS, default=_MODELS[0], help=f"network (default {_MODELS[0]})")
    add("--image", type=_positive, default=224, help="pixels of a side, ResNet-18 only (default 224)")
    add("--batch", type=_positive, help="inputs per step (default 16; 8 for transformers)")


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, and run the command in a child whose threads are pinned before anything heavy is imported.

    Returns:
      Exit status: 0, 2 after an error of the user, or that of the child.
    """
    from .harness import _machine

    words = list(sys.argv[1:] if argv is None else argv)
    options = parser().parse_args(words)
    command = [sys.executable, "-m", f"{__package__}", *words]
    environment = _machine.pinned_environment(options.threads)
    if getattr(options, "no_amx", False):
        environment |= _machine.WITHOUT_AMX
    if getattr(options, "nothing_set", False):
        environment[_machine.NOTHING_SET] = "1"
    with subprocess.Popen(command, env=environment) as child:
        try:
            with _exit_on_termination():
                return child.wait()
        except BaseException:
            child.terminate()  # its workers end with it: their input does
            raise


@contextlib.contextmanager
def _exit_on_termination() -> Generator[None]:
    """Raise SystemExit on SIGTERM, which would otherwise end this process and leave its child running."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run_pinned(argv: Sequence[str]) -> int:
    """Run a command in this process, which is pinned."""
    options = parser().parse_args(argv)
    from .harness._report import publish

    command: Any = importlib.import_module(f".{options.command}", __package__)
    try:
        report = command.run(options)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    shown = {name: value for name, value in vars(options).items() if name not in ("json", "command")}
    publish(report, shown, options.json)
    return 0
