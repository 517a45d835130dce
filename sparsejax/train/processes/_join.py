"""Joining a group: all processes arrive, speak to each other, and turn out to be alike."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from collections.abc import Generator
from importlib.metadata import version
from typing import Any

import jax

from sparsejax._checks import fail
from sparsejax.train.processes._group import AXIS, Group
from sparsejax.train.processes._meeting import address_of, is_loopback, meet

AUTO = "auto"
_PACKAGES = ("sparsejax", "jax", "jaxlib", "flax", "optax", "numpy")


def join(coordinator: str, index: int | None, count: int | None, timeout: float) -> Group:
    """Wait for the other processes, and connect to them.

    Args:
      coordinator: HOST:PORT of process 0; "auto" leaves address and numbers to JAX, which finds them under Slurm,
        Open MPI and Kubernetes.
      index, count: number of this process, and of all; None with "auto".
      timeout: seconds to wait for a process that does not arrive, and until one that has stopped is noticed.

    Raises:
      TimeoutError: a process did not arrive.
      ValueError: bad arguments, or a process has another version or another processor.
      OSError: the port is in use, or the processes cannot connect.
    """
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    seconds = max(1, round(timeout))
    options: dict[str, Any] = {"initialization_timeout": seconds, "heartbeat_timeout_seconds": max(10, seconds)}
    if coordinator == AUTO:
        try:
            jax.distributed.initialize(**options)
        except ValueError as error:
            got, rule = "value 'auto'", "a cluster that JAX recognizes (Slurm, Open MPI, Kubernetes)"
            fail(
                "train", "coordinator", f"{got} ({error})", rule, "Else give HOST:PORT, --process-id, --process-count."
            )
    else:
        host, port = address_of(coordinator)
        if index is None or count is None or count < 1 or not 0 <= index < count:
            got = f"values {index} and {count}"
            fail("train", "process-id and process-count", got, "0 to count - 1, and the number of all processes")
        meet(coordinator, index, count, timeout)
        if is_loopback(host):
            options["coordinator_bind_address"] = f"{host}:{port}"
        jax.distributed.initialize(coordinator, count, index, **options)
    return _connected()


def _connected() -> Group:
    """The group of the processes that have met; the first exchange connects each with each."""
    mesh = jax.make_mesh((jax.device_count(),), (AXIS,), axis_types=(jax.sharding.AxisType.Auto,))
    group = Group(jax.process_index(), jax.process_count(), mesh)
    with _without_output():  # of the collectives' library, about its connections
        group.exchange("")
    from sparsejax._cpu_info import cpu_info

    versions = {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES}
    group.same("version of", versions)
    group.same("processor's", {"instruction set": cpu_info().isa})
    group.same("number of", {"devices": len(jax.local_devices())})
    return group


@contextlib.contextmanager
def _without_output() -> Generator[None]:
    """Leave out what libraries print to file descriptor 1 inside the block."""
    sys.stdout.flush()
    kept, null = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(null)
