"""Requests to another process: one line of JSON to it, one line back. Standard library only, for any interpreter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

# An implementation that takes longer to end has hung.
_PATIENCE_AT_END = 10


class Child:
    """A process that runs `serve`.

    Args:
      command: of the process.
      environment: its variables.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]):
        self._process = subprocess.Popen(
            command, env=dict(environment), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, request: str, **arguments: Any) -> Any:
        """Send a request and wait for its answer.

        Raises:
          RuntimeError: the request failed there, or the process died.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            print(json.dumps([request, arguments]), file=self._process.stdin, flush=True)
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise RuntimeError(f"the process {self._process.args} ended with status {self._process.wait()}")
        good, value = json.loads(answer)
        if not good:
            raise RuntimeError(value)
        return value

    def sampler(self, request: str, **arguments: Any) -> Callable[[int], float]:
        """Return a function of a number of calls that gives their seconds, timed in that process."""
        return lambda calls: float(self.ask(request, calls=calls, **arguments))

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(_PATIENCE_AT_END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def serve(service: object) -> None:
    """Answer requests by the methods of an object until the input ends; what libraries print goes to standard error."""
    with os.fdopen(os.dup(sys.stdout.fileno()), "w") as answers:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        for line in sys.stdin:
            request, arguments = json.loads(line)
            try:
                answer = [True, getattr(service, request)(**arguments)]
            except Exception as error:  # the asking process must hear of anything
                answer = [False, f"{type(error).__name__}: {error}"]
            print(json.dumps(answer), file=answers, flush=True)


def seconds(call: Callable[[], object], calls: int) -> float:
    """Time so many calls."""
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return time.perf_counter() - start
