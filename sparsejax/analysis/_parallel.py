"""Independent jobs of a study through joblib: on this machine, on a Dask cluster, or on Ray."""

from __future__ import annotations

import argparse
import contextlib
import warnings
from collections.abc import Callable, Generator, Sequence
from typing import Any, Literal, TypeVar, get_args

from sparsejax._checks import fail
from sparsejax._extras import require

T = TypeVar("T")

Backend = Literal["loky", "dask", "ray"]
# Times that jobs are started again after a worker was lost; what they have finished is in files and is not repeated.
_REPEATS = 3
# Errors of a lost worker, by name: their packages are optional.
_LOST = ("BrokenExecutor", "KilledWorker", "RayActorError", "WorkerCrashedError", "NodeDiedError")


def add_backend_options(parser: argparse.ArgumentParser) -> None:
    """Declare where the jobs of a study run."""
    text = "what runs the jobs: processes of this machine, Dask, or Ray; workers on other machines need a shared disk"
    parser.add_argument("--backend", choices=get_args(Backend), default="loky", help=text)
    text = "of the Dask scheduler or the Ray cluster; without it, one is started on this machine"
    parser.add_argument("--address", default=None, help=text)


def run_jobs(
    function: str,
    work: Callable[..., T],
    jobs: Sequence[tuple[Any, ...]],
    *,
    n_jobs: int = 1,
    backend: Backend | None = None,
    address: str | None = None,
) -> list[T]:
    """Call ``work(*job)`` for each job, and return the results in their order.

    A job whose worker was killed is run again, up to three times: it must keep what it has finished in files.

    Args:
      function: name of the caller, for messages.
      work: of one job.
      jobs: arguments of each call; they can be pickled.
      n_jobs: processes, -1 for all cores; with an address, the cluster decides.
      backend: "loky", "dask" or "ray"; None is what an enclosing ``joblib.parallel_config`` says, or loky.
      address: of a running cluster; None starts one on this machine.

    Raises:
      ValueError: an unknown backend, an address for none, or ``n_jobs`` of 0.
      ImportError: a package of the backend is missing (extras ``dask`` and ``ray``).
      OSError: there is no cluster at the address.

    >>> run_jobs("study", pow, [(2, 3), (3, 2)])
    [8, 9]
    """
    joblib = require("joblib", function)
    if backend is not None and backend not in get_args(Backend):
        fail(function, "backend", f"value {backend!r}", f"one of {', '.join(get_args(Backend))}")
    if address is not None and backend not in ("dask", "ray"):
        fail(function, "address", f"value {address!r} with backend {backend!r}", "none, or backend 'dask' or 'ray'")
    if n_jobs == 0:
        fail(function, "n_jobs", "value 0", "a number of processes, or -1 for all cores")
    calls = [joblib.delayed(work)(*job) for job in jobs]
    for attempt in range(_REPEATS + 1):
        with _BACKENDS[backend](function, n_jobs, address) as workers:
            try:
                return joblib.Parallel(n_jobs=workers)(calls)
            except Exception as error:
                if attempt == _REPEATS or not _is_lost(error):
                    raise
    raise AssertionError


def _is_lost(error: BaseException) -> bool:
    """Whether a worker ended before its job."""
    return any(kind.__name__ in _LOST for kind in type(error).__mro__)


@contextlib.contextmanager
def _as_configured(function: str, n_jobs: int, address: str | None) -> Generator[int]:
    yield n_jobs


@contextlib.contextmanager
def _loky(function: str, n_jobs: int, address: str | None) -> Generator[int]:
    with require("joblib", function).parallel_config(backend="loky"):
        yield n_jobs


@contextlib.contextmanager
def _dask(function: str, n_jobs: int, address: str | None) -> Generator[int]:
    distributed = require("distributed", function, "dask")
    if address is None:
        options: Any = {"n_workers": n_jobs, "threads_per_worker": 1, "dashboard_address": None}
    else:
        options = {"address": address}
    joblib = require("joblib", function)
    with distributed.Client(**options) as client, joblib.parallel_config(backend="dask", client=client):
        yield -1


@contextlib.contextmanager
def _ray(function: str, n_jobs: int, address: str | None) -> Generator[int]:
    ray = require("ray", function, "ray")
    require("ray.util.joblib", function, "ray").register_ray()
    started = not ray.is_initialized()
    if started:
        size: Any = {"num_cpus": n_jobs, "include_dashboard": False} if address is None else {"address": address}
        try:
            with warnings.catch_warnings():
                # Ray forks to start its daemons, which run another program at once: JAX's threads are not touched.
                warnings.filterwarnings("ignore", "os.fork", RuntimeWarning)
                ray.init(log_to_driver=False, logging_level="error", **size)
        except (ConnectionError, ValueError) as error:
            fail(function, "address", f"value {address!r} ({error})", "that of a Ray cluster", error=OSError)
    try:
        with require("joblib", function).parallel_config(backend="ray"):
            yield max(1, int(ray.cluster_resources().get("CPU", 1)))
    finally:
        if started:
            ray.shutdown()


_BACKENDS: dict[str | None, Any] = {None: _as_configured, "loky": _loky, "dask": _dask, "ray": _ray}
