"""Layer shapes: the table of ``shapes.csv`` and how the command line selects from it."""

from __future__ import annotations

import csv
import dataclasses
import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import get_type_hints

from sparsejax._checks import fail

TABLE = Path(__file__).parents[1] / "shapes.csv"
UNTUNED = "untuned"  # the set of shapes for which nobody chose a tile
KINDS = ("linear", "conv", "conv1d")


@dataclasses.dataclass(frozen=True)
class Shape:
    """One layer.

    Attributes:
      set, name: how the command line selects it.
      kind: "linear", "conv" (two spatial axes) or "conv1d" (one: ``height`` and ``window_h`` are 1).
      batch: examples, or tokens of a linear layer.
      in_features, out_features: channels.
      height, width: pixels of the input; 1 for linear layers.
      window_h, window_w: of the kernel.
      stride: of every spatial axis.
      pad_h, pad_w: zeros on each side of an axis.
    """

    set: str
    name: str
    kind: str
    batch: int
    in_features: int
    out_features: int
    height: int = 1
    width: int = 1
    window_h: int = 1
    window_w: int = 1
    stride: int = 1
    pad_h: int = 0
    pad_w: int = 0

    def __post_init__(self) -> None:
        """Refuse sizes that no layer has."""
        if self.kind not in KINDS:
            fail("Shape", f"'{self.name}'", f"kind {self.kind!r}", f"one of {', '.join(KINDS)}")
        positive = ("batch", "in_features", "out_features", "height", "width", "window_h", "window_w", "stride")
        for field in positive:
            if getattr(self, field) < 1:
                fail("Shape", f"'{self.name}'", f"{field} {getattr(self, field)}", "a positive integer")
        flat = {"linear": ("height", "width", "window_h", "window_w", "stride"), "conv1d": ("height", "window_h")}
        for field in flat.get(self.kind, ()):
            if getattr(self, field) != 1:
                fail("Shape", f"'{self.name}'", f"{field} {getattr(self, field)}", f"1 in a {self.kind} layer")
        if min(self.pad_h, self.pad_w) < 0 or min(self.out_spatial, default=1) < 1:
            fail("Shape", f"'{self.name}'", f"output {self.out_spatial}", "a window that fits into the padded input")

    @property
    def axes(self) -> tuple[tuple[int, int, int], ...]:
        """``(size, window, padding)`` of each spatial axis; none for a linear layer."""
        h, w = (self.height, self.window_h, self.pad_h), (self.width, self.window_w, self.pad_w)
        return {"linear": (), "conv": (h, w), "conv1d": (w,)}[self.kind]

    @property
    def out_spatial(self) -> tuple[int, ...]:
        """Pixels of the output per spatial axis."""
        return tuple((size + 2 * pad - window) // self.stride + 1 for size, window, pad in self.axes)

    @property
    def kernel(self) -> tuple[int, ...]:
        """Flax kernel shape, ``(*window, in, out)``."""
        return (*(window for _, window, _ in self.axes), self.in_features, self.out_features)

    @property
    def x(self) -> tuple[int, ...]:
        """Input shape, ``(batch, *spatial, in)``."""
        return (self.batch, *(size for size, _, _ in self.axes), self.in_features)

    @property
    def y(self) -> tuple[int, ...]:
        """Output shape, ``(batch, *out_spatial, out)``."""
        return (self.batch, *self.out_spatial, self.out_features)

    @property
    def padding(self) -> list[tuple[int, int]]:
        """``(low, high)`` per spatial axis."""
        return [(pad, pad) for _, _, pad in self.axes]


def load(path: Path) -> list[Shape]:
    """Read shapes from a CSV file with the columns of ``shapes.csv``; missing ones take their defaults.

    Raises:
      ValueError: an unknown column, a value that is not an integer, or a shape that no layer has.
    """
    types = get_type_hints(Shape)
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        unknown = set(reader.fieldnames or ()) - types.keys()
        if unknown:
            fail("load", f"'{path}'", f"columns {sorted(unknown)}", f"columns among {', '.join(types)}")
        return [Shape(**{name: types[name](value) for name, value in row.items()}) for row in reader]


def select(words: Sequence[str]) -> list[Shape]:
    """Shapes that the words name: sets, names, or CSV files; each once, in the order of the words.

    Args:
      words: nothing selects the whole of ``shapes.csv``.

    Raises:
      ValueError: a word that is none of these.

    >>> [shape.name for shape in select(["paper-linear", "paper"])]
    ['paper-linear', 'paper-conv7', 'paper-conv224']
    """
    known = load(TABLE)
    chosen: dict[str, Shape] = {}
    for word in words:
        matches = [shape for shape in known if word in (shape.set, shape.name)]
        if not matches and word.endswith(".csv"):
            matches = load(Path(word))
        if not matches:
            names = {shape.set for shape in known} | {shape.name for shape in known}
            near = difflib.get_close_matches(word, names, n=1)
            sets = ", ".join(dict.fromkeys(shape.set for shape in known))
            hint = f"Did you mean '{near[0]}'?" if near else f"Sets are {sets}."
            fail("bench", "--shapes", f"value {word!r}", "sets, names or CSV files", hint)
        chosen |= {shape.name: shape for shape in matches}
    return list(chosen.values()) if words else known
