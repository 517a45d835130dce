"""Which tensors of a checkpoint are which variables of a model: by name and shape, projections fused or apart."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from sparsejax._checks import fail
from sparsejax.models._torch_names import (
    FAMILIES,
    is_buffer,
    may_be_transposed,
    projection,
    stores_transposed,
    translate,
)
from sparsejax.models._torch_slots import Slot

Names: TypeAlias = Mapping[str, str | None] | Callable[[str], str | None]
Shape: TypeAlias = tuple[int, ...]
_MOST_NEAREST = 4
_QKV = ("query", "key", "value")


@dataclass(frozen=True)
class Entry:
    """A tensor of a checkpoint and the variables that it holds.

    Attributes:
      name: in the checkpoint, without the prefixes of wrappers.
      slots: PyTorch names of the variables, which follow each other along the tensor's first axis.
      rows: where the tensor is a part of its variable: first row and the row after its last; else None.
      transposed: whether the checkpoint stores the matrix as (in, out).
      window: whether the checkpoint stores the matrix as a 1x1 convolution.
      prefix: of the name in the file, such as "module.".
    """

    name: str
    slots: tuple[str, ...]
    rows: tuple[int, int] | None = None
    transposed: bool = False
    window: bool = False
    prefix: str = ""


@dataclass
class Match:
    """How a checkpoint fits a model.

    Attributes:
      entries: tensors with a place in the model.
      missing: names of the model's variables without a tensor.
      unused: names of the checkpoint's tensors without a variable.
      wrong: sentences on tensors whose shape is not that of their variables, by the first variable's name.
      notes: sentences on names that were translated.
    """

    entries: list[Entry] = field(default_factory=list[Entry])
    missing: list[str] = field(default_factory=list[str])
    unused: list[str] = field(default_factory=list[str])
    wrong: dict[str, str] = field(default_factory=dict[str, str])
    notes: list[str] = field(default_factory=list[str])


def match(function: str, shapes: Mapping[str, Shape], slots: Mapping[str, Slot], names: Names | None) -> Match:
    """Find a place in the model for every tensor of a checkpoint.

    Args:
      function: public function named in errors.
      shapes: shape by name, of the tensors.
      slots: variables by name.
      names: names of the user's for names of the file; see ``load_torch``.

    Raises:
      ValueError: two tensors for one variable, or names of the user's that do not exist.
    """
    result = Match()
    shapes = {name: shape for name, shape in shapes.items() if name in slots or not is_buffer(name, len(shape))}
    targets = _targets(function, shapes, slots, names, result.notes)
    transposed = stores_transposed(shapes.items())
    finder = _Finder(slots)
    claimed: dict[tuple[str, tuple[int, int] | None], str] = {}
    for name, target in targets.items():
        slot_rows = None if target is None else finder.find(target)
        if slot_rows is None:
            if target is not None:
                result.unused.append(name)
            continue
        shape, flipped = shapes[name], transposed and may_be_transposed(name)
        entry = Entry(name, *slot_rows, flipped, _is_window(shape, slots[slot_rows[0][0]]))
        for slot in entry.slots:
            if (other := claimed.setdefault((slot, entry.rows), name)) != name:
                fail(function, "checkpoint", f"both {other!r} and {name!r} for {slot!r}", "one tensor for a variable")
        expected = expected_shape(entry, slots)
        if shape == expected:
            result.entries.append(entry)
        else:
            result.wrong[entry.slots[0]] = f"{name} {shape} instead of {expected}"
    filled = {slot for slot, _ in claimed}
    result.missing = [name for name in slots if name not in filled]
    return result


def expected_shape(entry: Entry, slots: Mapping[str, Slot]) -> Shape:
    """Return the shape that a tensor has in the checkpoint if it fits."""
    first, *rest = slots[entry.slots[0]].torch_shape
    rows = first if entry.rows is None else entry.rows[1] - entry.rows[0]
    rows += sum(slots[name].torch_shape[0] for name in entry.slots[1:])
    if not slots[entry.slots[0]].torch_shape:
        return ()
    if entry.transposed:
        return (*rest, rows)
    return (rows, *rest, 1, 1) if entry.window else (rows, *rest)


def nearest(missing: list[str], unused: list[str]) -> str:
    """Return a sentence on names that look alike, or an empty one."""
    pairs = ((name, difflib.get_close_matches(name, unused, n=1)) for name in missing[:_MOST_NEAREST] if unused)
    text = ", ".join(f"{near[0]} for {name}" for name, near in pairs if near)
    return f"Nearest names: {text}." if text else ""


def _is_window(shape: Shape, slot: Slot) -> bool:
    return slot.form == "matrix" and len(shape) == 4 and shape[2:] == (1, 1)


def _targets(
    function: str, shapes: Mapping[str, Shape], slots: Mapping[str, Slot], names: Names | None, notes: list[str]
) -> dict[str, str | None]:
    """Return the name in the model that each tensor is looked for under; None where the user wants it left out."""
    if names is not None:
        return _renamed(function, shapes, slots, names)
    finder = _Finder(slots)
    best, targets = "", {name: name for name in shapes}
    most = sum(finder.find(name) is not None for name in shapes)
    for family, rules in FAMILIES.items():
        translated = {name: translate(name, rules) for name in shapes}
        count = sum(finder.find(name) is not None for name in translated.values())
        if count > most:
            best, targets, most = family, translated, count
    if best:
        notes.append(f"names of {best} translated")
    return dict(targets)


def _renamed(
    function: str, shapes: Mapping[str, Shape], slots: Mapping[str, Slot], names: Names
) -> dict[str, str | None]:
    targets: dict[str, str | None] = {}
    used: set[str] = set()
    for name in shapes:
        if isinstance(names, Mapping):
            key = max((key for key in names if name == key or name.startswith(f"{key}.")), key=len, default=None)
            new = name if key is None else names[key]
            if key is not None:
                used.add(key)
                new = None if new is None else (new + name.removeprefix(key)).lstrip(".")
        else:
            new = names(name)
        if not isinstance(new, str | None):
            fail(function, f"names, for {name!r},", f"type {type(new).__name__}", "a name or None", error=TypeError)
        if new is not None and new != name and _Finder(slots).find(new) is None:
            hint = nearest([new], list(slots))
            fail(function, f"names, for {name!r},", f"the name {new!r}", "a name that the model has", hint)
        targets[name] = new
    if isinstance(names, Mapping) and (idle := [key for key in names if key not in used]):
        hint = nearest(idle, list(shapes))
        fail(function, "names", f"the name {idle[0]!r}", "a name of the checkpoint, or the first parts of one", hint)
    return targets


class _Finder:
    """Finds the variables that a name stands for, also where query, key and value are fused on one side only."""

    def __init__(self, slots: Mapping[str, Slot]):
        self._slots = slots
        self._roles: dict[tuple[str, str, str], str] = {}
        for name in slots:
            if parsed := projection(name):
                self._roles[parsed] = name

    def find(self, name: str) -> tuple[tuple[str, ...], tuple[int, int] | None] | None:
        """Return the names of the variables, and the rows of the one variable that the name is a part of."""
        if name in self._slots:
            return (name,), None
        if (parsed := projection(name)) is None:
            return None
        holder, role, kind = parsed
        parts = [self._roles.get((holder, part, kind)) for part in _QKV]
        fused = self._roles.get((holder, "qkv", kind))
        if role == "qkv":
            if fused is not None:
                return (fused,), None
            return (tuple(part for part in parts if part), None) if all(parts) else None
        if role == "out":
            weights = (self._roles.get((holder, part, "weight")) for part in ("qkv", *_QKV))
            out = self._roles.get((holder, role, kind))
            return ((out,), None) if out and any(weights) else None
        single = self._roles.get((holder, role, kind))
        if single is not None:
            return (single,), None
        if fused is None:
            return None
        rows = self._slots[fused].torch_shape[0] // 3
        return (fused,), (rows * _QKV.index(role), rows * (_QKV.index(role) + 1))
