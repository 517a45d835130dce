"""Arrays in Orbax's format: a full disk is noticed before Orbax writes, and a failure is one exception."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import sys
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

# Room for Orbax's own files: measured with 10 to 500 arrays, less than half of this.
_BYTES_PER_CHECKPOINT, _BYTES_PER_ARRAY = 65_536, 2_048


def save_arrays(folder: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays as an Orbax checkpoint. Orbax refuses arrays without elements: they are left out.

    Args:
      folder: is made; its parent exists.
      arrays: by name.

    Raises:
      OSError: the arrays cannot be written.
    """
    reserve = folder.with_name("space")
    size = sum(array.nbytes + _BYTES_PER_ARRAY for array in arrays.values()) + _BYTES_PER_CHECKPOINT
    with reserve.open("wb") as file:
        if hasattr(os, "posix_fallocate"):  # not on macOS
            os.posix_fallocate(file.fileno(), 0, size)
    reserve.unlink()
    with _quiet():
        try:
            _checkpointer().save(folder, {name: array for name, array in arrays.items() if array.size})
            return
        except Exception as error:  # Orbax has no class of its own for them
            reason = _first_line(error)
        gc.collect()  # what Orbax abandons reports its failure when it is collected: inside this block
    sys.unraisablehook = _without_closed_loops(sys.unraisablehook)  # its threads may fail later still
    raise OSError(reason)


def load_arrays(folder: Path, empty: Mapping[str, tuple[str, list[int]]]) -> dict[str, np.ndarray]:
    """Read arrays that `save_arrays` wrote.

    Args:
      folder: as written.
      empty: dtype and shape, by name, of the arrays without elements.

    Raises:
      OSError: the files cannot be read, or are no Orbax checkpoint.
    """
    with _quiet():
        try:
            arrays = {name: np.asarray(array) for name, array in _checkpointer().restore(folder).items()}
            return arrays | {name: np.zeros(shape, jnp.dtype(dtype)) for name, (dtype, shape) in empty.items()}
        except Exception as error:
            raise OSError(_first_line(error)) from error


def empty_arrays(arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[str, list[int]]]:
    """Return dtype and shape of the arrays without elements, by name."""
    return {name: (str(array.dtype), list(array.shape)) for name, array in arrays.items() if not array.size}


def _checkpointer() -> Any:
    """Orbax for this process alone: arrays are on the host, and no other process of the run waits for it."""
    import orbax.checkpoint as ocp

    index = jax.process_index()
    options = ocp.options.MultiprocessingOptions(
        primary_host=index, active_processes={index}, barrier_sync_key_prefix=f"process{index}"
    )
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=options)
    return ocp.Checkpointer(handler, multiprocessing_options=options)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Keep away what Orbax logs, and what its threads print, about an exception that is raised as well."""

    def passes(record: logging.LogRecord) -> bool:
        return "orbax" not in record.pathname and "orbax" not in record.getMessage()

    loggers, previous = [logging.getLogger(name) for name in ("absl", "asyncio")], sys.unraisablehook
    for logger in loggers:
        logger.addFilter(passes)
    sys.unraisablehook = _without_closed_loops(previous)
    try:
        yield
    finally:
        sys.unraisablehook = previous
        for logger in loggers:
            logger.removeFilter(passes)


def _without_closed_loops(report: Callable[[UnraisableHookArgs], object]) -> Callable[[UnraisableHookArgs], object]:
    """Leave out that a write ended after the event loop that waited for it."""

    def filtered(unraisable: UnraisableHookArgs) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            report(unraisable)

    return filtered
