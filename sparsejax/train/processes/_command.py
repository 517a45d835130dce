"""Options of commands that train on several processes, and the way from them to a group."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sparsejax._checks import fail
from sparsejax.train.processes._group import ALONE, Group
from sparsejax.train.processes._join import AUTO, join
from sparsejax.train.processes._launch import LOST_ANOTHER, STARTED_BY, launch

_TIMEOUT = 120.0
_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG


def add_process_options(parser: argparse.ArgumentParser) -> None:
    """Declare which processes share the work."""
    text = "start so many processes on this machine, each on its share of the cores, and divide each batch over them"
    parser.add_argument("--processes", type=int, default=1, metavar="N", help=text)
    text = f"join processes on several machines at this address of process 0; '{AUTO}' asks Slurm, Open MPI or the like"
    parser.add_argument("--coordinator", metavar="HOST:PORT", help=text)
    parser.add_argument("--process-id", type=int, metavar="I", help="number of this process, from 0")
    parser.add_argument("--process-count", type=int, metavar="N", help="number of all processes")
    text = "seconds to wait for a process that does not arrive, and until one that has stopped is noticed"
    parser.add_argument("--join-timeout", type=float, default=_TIMEOUT, metavar="SECONDS", help=text)


def run_in_processes(
    arguments: argparse.Namespace,
    same: Callable[[argparse.Namespace], dict[str, Any]],
    work: Callable[[argparse.Namespace, Group], int],
    refused: Callable[[BaseException], int],
) -> int:
    """Run a command alone, as one of several processes, or by starting them.

    Args:
      arguments: the parsed options; ``words`` are the command's name and arguments.
      same: the options that must be equal in all processes, by name.
      work: runs the command.
      refused: reports an error of the user and returns the exit status.
    """
    try:
        shared = same(arguments)
        _check(arguments)
    except (ValueError, OSError) as error:
        return refused(error)
    if arguments.processes > 1:
        return launch([*arguments.words, "--processes", "1"], arguments.processes, refused)
    if arguments.coordinator is None:
        return work(arguments, ALONE)
    _end_with_parent()
    status, group = 1, ALONE
    try:
        group = join(arguments.coordinator, arguments.process_id, arguments.process_count, arguments.join_timeout)
        group.same("argument", shared)
        status = _work(arguments, group, work)
        if status == 0:
            group.leave()
    except (ValueError, OSError, RuntimeError) as error:
        status = refused(error)
    except KeyboardInterrupt:
        status = 130
    except BaseException:
        traceback.print_exc()
    finally:
        if status:  # JAX's exit would wait for the others, also where nobody reads the error
            with contextlib.suppress(OSError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(LOST_ANOTHER if group.has_lost else status)
    return status


def _work(arguments: argparse.Namespace, group: Group, work: Callable[[argparse.Namespace, Group], int]) -> int:
    """Run the command; processes that do not write have a folder of their own that is removed, and no output."""
    if group.writes:
        return work(arguments, group)
    with tempfile.TemporaryDirectory() as folder, Path(os.devnull).open("w") as nowhere:
        sys.stdout = nowhere
        try:
            return work(argparse.Namespace(**vars(arguments) | {"out": Path(folder), "json": True}), group)
        finally:
            sys.stdout = sys.__stdout__


def _check(arguments: argparse.Namespace) -> None:
    if arguments.processes < 1:
        fail("train", "processes", f"value {arguments.processes}", "at least 1")
    if not 0 < arguments.join_timeout < float("inf"):
        fail("train", "join-timeout", f"value {arguments.join_timeout}", "seconds, more than 0")
    named = arguments.process_id is not None or arguments.process_count is not None
    if arguments.coordinator is None and named:
        fail("train", "coordinator", "no value", "one, with --process-id and --process-count")
    if arguments.coordinator is not None and arguments.processes > 1:
        fail("train", "processes", f"value {arguments.processes} with --coordinator", "one of both")


def _end_with_parent() -> None:
    """On Linux: end when the process that started this one ends, however that happens."""
    if os.environ.get(STARTED_BY) == str(os.getppid()) and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)
