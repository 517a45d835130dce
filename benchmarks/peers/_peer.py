"""What every implementation has: a name, the reason if it cannot run, and calls that compute a layer."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..cases._case import TOLERANCE, Case
from ..harness._timing import Sampler, sampler


@dataclasses.dataclass(frozen=True)
class Call:
    """One thing to time.

    Attributes:
      run: does the work once and returns the library's own result when it is done.
      read: that result as NumPy arrays: "y" and "dx" channels last, "dw" at the stored positions.
      sample: seconds of several runs; by default they are timed from here.
    """

    run: Callable[[], Any]
    read: Callable[[Any], dict[str, np.ndarray]]
    sample: Sampler | None = None

    @property
    def sampler(self) -> Sampler:
        """What `interleave` takes."""
        return self.sample or sampler(self.run)


@dataclasses.dataclass(frozen=True)
class Variant:
    """One way in which a library computes a layer; the fastest counts. Calls by measure: "forward", "step", ..."""

    name: str
    calls: Mapping[str, Call]


@dataclasses.dataclass(frozen=True)
class Peer:
    """An implementation.

    Attributes:
      name: as in ``--peers``.
      absent: why it cannot run here at all, or None.
      unsupported: why it cannot compute a case, or None.
      prepare: its variants for a case, with operands in the layout they like best.
      tolerance: largest error of a right result, as `Case.error` gives it.
    """

    name: str
    absent: Callable[[], str | None]
    unsupported: Callable[[Case], str | None]
    prepare: Callable[[Case], list[Variant]]
    tolerance: float = TOLERANCE


def missing(module: str, install: str) -> str | None:
    """Why a module cannot be imported and how to install it, or None if it can."""
    try:
        importlib.import_module(module)
    except (ImportError, OSError, RuntimeError) as error:
        return f"{' '.join(str(error).split())} (to install: {install})"
    return None


def only_linear(case: Case) -> str | None:
    """The reason of libraries that know matrices only."""
    return None if case.shape.kind == "linear" else "linear layers only"
