"""Starting the processes of a run on this machine, each on its share of the processor cores."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import IO

from sparsejax._checks import fail

# A process that is started by another one ends with it.
STARTED_BY = "SPARSEJAX_STARTED_BY"
# Status of a process that ends because another one is gone.
LOST_ANOTHER = 3
_POLL, _SETTLE, _GRACE = 0.05, 0.5, 5.0


def launch(words: Sequence[str], count: int, refused: Callable[[BaseException], int]) -> int:
    """Run a command in several new processes that share the cores of this one, and wait for them.

    Process 0 has the output and the error output of this one. When a process fails, the others are ended.

    Args:
      words: name of the command and its arguments, without ``--processes``.
      count: of processes.
      refused: reports an error of the user and returns the exit status.

    Returns:
      0, or the status of the process that failed first.
    """
    try:
        shares = core_shares(count)
    except ValueError as error:
        return refused(error)
    with contextlib.ExitStack() as stack:
        address = f"127.0.0.1:{free_port()}"
        files = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(1, count)]
        stack.enter_context(_signals())
        started: list[subprocess.Popen[bytes]] = []
        stack.callback(_end, started)
        for i, share in enumerate(shares):
            joining = ["--coordinator", address, "--process-id", str(i), "--process-count", str(count)]
            started.append(_start([*words, *joining], share, files[i - 1] if i else None))
        return _wait(started, files, refused)


def core_shares(count: int) -> list[list[int]]:
    """Divide the cores that this process may use into ``count`` blocks of neighbours; [] where none can be chosen.

    Raises:
      ValueError: there are fewer cores than processes.

    >>> len(core_shares(1)), len(core_shares(1)[0]) == len(os.sched_getaffinity(0))
    (1, True)
    """
    chosen = hasattr(os, "sched_getaffinity")  # not on macOS
    cores = sorted(os.sched_getaffinity(0)) if chosen else list(range(os.cpu_count() or 1))
    if not 1 <= count <= len(cores):
        fail("train", "processes", f"value {count}", f"1 to {len(cores)}, the cores that may be used")
    ends = [len(cores) * i // count for i in range(count + 1)]
    return [cores[a:b] for a, b in itertools.pairwise(ends)]


def free_port() -> int:
    """Return a TCP port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _start(words: Sequence[str], share: Sequence[int], errors: IO[bytes] | None) -> subprocess.Popen[bytes]:
    """Start a process that has its cores from the first instruction: it inherits them."""
    package = str(Path(__file__).resolve().parents[3])
    path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH", ""))))
    variables = os.environ | {"NPROC": str(len(share)), STARTED_BY: str(os.getpid()), "PYTHONPATH": path}
    output = None if errors is None else subprocess.DEVNULL
    all_cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    try:
        if all_cores is not None:
            os.sched_setaffinity(0, share)
        command = [sys.executable, "-m", "sparsejax", *words]
        return subprocess.Popen(command, env=variables, stdin=subprocess.DEVNULL, stdout=output, stderr=errors)
    finally:
        if all_cores is not None:
            os.sched_setaffinity(0, all_cores)


def _wait(
    started: Sequence[subprocess.Popen[bytes]], files: Sequence[IO[bytes]], refused: Callable[[BaseException], int]
) -> int:
    while not any(states := [process.poll() for process in started]):
        if all(status == 0 for status in states):
            return 0
        time.sleep(_POLL)
    time.sleep(_SETTLE)  # others end at once because of it, or for the same reason
    states = [process.poll() or 0 for process in started]
    failed = min((i for i, status in enumerate(states) if status), key=lambda i: (_rank(states[i]), i))
    _end(started)
    status = states[failed]
    if status < 0 or failed:  # process 0 has printed its own error
        refused(RuntimeError(f"train: process {failed} {_reason(status, files[failed - 1] if failed else None)}"))
    return 128 - status if status < 0 else status


def _rank(status: int) -> int:
    """Order of causes: a signal from outside, an error, the loss of another process, JAX's abort after such a loss."""
    return {LOST_ANOTHER: 2, -signal.SIGABRT: 3}.get(status, 0 if status < 0 else 1)


def _reason(status: int, errors: IO[bytes] | None) -> str:
    if status < 0:
        return f"was ended by {signal.Signals(-status).name}; the run goes on from its last checkpoint when repeated."
    lines: list[str] = []
    if errors is not None:
        errors.seek(0)
        lines = errors.read().decode(errors="replace").strip().splitlines()
    said = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return f"ended with status {status}: {(said or lines or ['no message'])[-1]}"


def _end(started: Sequence[subprocess.Popen[bytes]]) -> None:
    """End what still runs: ask, then force."""
    for process in started:
        if process.poll() is None:
            process.terminate()
    deadline = time.monotonic() + _GRACE
    for process in started:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def _signals() -> Generator[None]:
    """Let SIGTERM end the processes too."""

    def stop(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
