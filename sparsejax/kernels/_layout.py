"""How activations lie in memory, as static parameters of the primitives."""

from __future__ import annotations

import enum
from typing import NamedTuple

import numpy as np


class Layout(enum.IntEnum):
    """Of an array ``(batch, ..., features)``.

    ``ROW_MAJOR`` is the order of its axes, in which JAX keeps arrays unless a program says otherwise. ``BATCH_MINOR``
    has the batch as the fastest axis and the features as the slowest.
    """

    BATCH_MINOR = 0
    ROW_MAJOR = 1

    def minor_to_major(self, rank: int) -> tuple[int, ...]:
        """Return the axes of an array of this rank from the fastest to the slowest."""
        if self is Layout.ROW_MAJOR or rank < 2:
            return tuple(range(rank - 1, -1, -1))
        return (0, *range(rank - 2, 0, -1), rank - 1)


class Layouts(NamedTuple):
    """Those of a product's input ``x`` and output ``y``. A gradient has the layout of what it is the gradient of."""

    x: Layout = Layout.ROW_MAJOR
    y: Layout = Layout.ROW_MAJOR

    def attribute(self) -> np.ndarray:
        """Return the form in which handlers take it (``handlers/layouts.h``)."""
        return np.array(self, np.int64)


ROW_MAJOR = Layouts(Layout.ROW_MAJOR, Layout.ROW_MAJOR)
BATCH_MINOR = Layouts(Layout.BATCH_MINOR, Layout.BATCH_MINOR)


def shared_layout(rank: int, layout: Layout | None) -> Layouts:
    """Return the layouts of an operation whose activations all have the same one.

    None is the layout that products give by default: row-major for two axes, as linear layers have, and batch-minor for
    more, as convolutions.
    """
    if layout is None:
        layout = Layout.ROW_MAJOR if rank == 2 else Layout.BATCH_MINOR
    return Layouts(layout, layout)
