"""A meeting before JAX's own: processes that do not arrive, or do not belong together, are named in one line.

``jax.distributed.initialize`` ends a process with a stack trace where another one does not arrive.
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
from typing import Any, NoReturn

from sparsejax._checks import fail

_RETRY = 0.1
_LONGEST = 1 << 16


def address_of(coordinator: str) -> tuple[str, int]:
    """Return host and port.

    Raises:
      ValueError: not of the form HOST:PORT.

    >>> address_of("localhost:1234")
    ('localhost', 1234)
    """
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        fail("train", "coordinator", f"value {coordinator!r}", "HOST:PORT, the address of process 0")
    return host.strip("[]"), int(port)


def is_loopback(host: str) -> bool:
    """Whether only processes of this machine reach the address."""
    return host in ("localhost", "::1") or host.startswith("127.")


def meet(coordinator: str, index: int, count: int, timeout: float) -> None:
    """Wait until all processes are there.

    Args:
      coordinator: HOST:PORT of process 0, where nobody listens yet.
      index, count: number of this process, and of all.
      timeout: seconds.

    Raises:
      TimeoutError: a process is missing; the message has its number.
      OSError: the port is in use, or the host is unknown.
      ValueError: two processes have one number, or another count.
    """
    deadline = time.monotonic() + timeout
    if index == 0:
        _receive(coordinator, count, deadline, timeout)
    else:
        _announce(coordinator, index, count, deadline, timeout)


def _receive(coordinator: str, count: int, deadline: float, timeout: float) -> None:
    host, port = address_of(coordinator)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(_listening(host, port))
        arrived: set[int] = set()
        guests: list[socket.socket] = []
        try:
            while missing := sorted(set(range(1, count)) - arrived):
                server.settimeout(max(0.0, deadline - time.monotonic()) or 1e-3)
                try:
                    guest = stack.enter_context(server.accept()[0])
                except TimeoutError:
                    _missing(", ".join(map(str, missing)), coordinator, timeout)
                said = _read(guest, deadline)
                if said is None:  # not one of ours
                    continue
                guests.append(guest)
                if said["count"] != count or not 0 < said["index"] < count or said["index"] in arrived:
                    got = f"number {said['index']} of {said['count']}, as a process says"
                    fail("train", "process", got, f"each of 0 to {count - 1} once, of {count}")
                arrived.add(said["index"])
        except (ValueError, OSError) as error:
            for guest in guests:
                _send(guest, {"error": str(error)})
            raise
        for guest in guests:
            _send(guest, {})


def _announce(coordinator: str, index: int, count: int, deadline: float, timeout: float) -> None:
    host, port = address_of(coordinator)
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            _missing("0", coordinator, timeout)
        try:
            with socket.create_connection((host, port), timeout=left) as connection:
                _send(connection, {"index": index, "count": count})
                answer = _read(connection, deadline)
        except socket.gaierror as error:
            fail("train", "coordinator", f"value {coordinator!r} ({error.strerror})", "the address of process 0")
        except OSError:
            answer = None
        if answer is not None:
            if "error" in answer:
                raise ValueError(answer["error"])
            return
        time.sleep(_RETRY)


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host if is_loopback(host) else "", port), family=family)
    except OSError as error:
        raise OSError(
            f"train: coordinator has port {port}, which cannot be opened ({error.strerror}); expected a free one."
        ) from error


def _missing(who: str, coordinator: str, timeout: float) -> NoReturn:
    got, rule = f"no process {who} after {timeout:g} s", "all processes"
    hint = "Start it with the same --coordinator and --process-count, or raise --join-timeout."
    fail("train", f"the meeting at {coordinator}", got, rule, hint, TimeoutError)


def _send(connection: socket.socket, content: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):
        connection.sendall(json.dumps(content).encode() + b"\n")


def _read(connection: socket.socket, deadline: float) -> dict[str, Any] | None:
    """One line of JSON; None if the other side closes, or says something else."""
    text = b""
    try:
        while not text.endswith(b"\n") and len(text) < _LONGEST:
            connection.settimeout(max(1e-3, deadline - time.monotonic()))
            if not (part := connection.recv(4096)):
                return None
            text += part
        content = json.loads(text)
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
