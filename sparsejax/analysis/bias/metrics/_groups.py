"""Group attributes, of people or of anything: the level of each sample."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparsejax._checks import fail
from sparsejax.analysis._arrays import ColumnsLike, read_categories, read_columns


@dataclass(frozen=True)
class Group:
    """One group attribute.

    Attributes:
      name: of the attribute.
      levels: its values, as text, in order.
      codes: int[n], the level of each sample; -1 for a level that is not in ``levels``.
    """

    name: str
    levels: tuple[str, ...]
    codes: np.ndarray

    def masks(self) -> np.ndarray:
        """Return bool[levels, n], the members of each level."""
        return self.codes[None, :] == np.arange(len(self.levels))[:, None]

    def like(self, other: Group) -> Group:
        """Return this group with the levels of ``other``: values unknown there are coded -1."""
        position = {level: index for index, level in enumerate(other.levels)}
        table = np.array([position.get(level, -1) for level in self.levels], np.int64)
        return Group(other.name, other.levels, table[self.codes])


@dataclass(frozen=True)
class Side:
    """Two sets of samples that are compared: a level of a group and its counterpart.

    Attributes:
      group: position of the group in the list of groups.
      level: position of the level called side 1.
      counterpart: position of the level called side 0; None stands for all other levels together.
      name: "group" for a group of two levels, else "group=level".
    """

    group: int
    level: int
    counterpart: int | None
    name: str


def sides(groups: Sequence[Group]) -> list[Side]:
    """Return the pairs that bias amplification and gaps compare.

    A group of two levels makes one pair, the second level against the first (1 against 0); more levels make
    one pair each, the level against all others; one level makes none.

    >>> [side.name for side in sides(read_groups("f", "g", {"a": [0, 1, 1], "h": ["x", "y", "z"]}))]
    ['a', 'h=x', 'h=y', 'h=z']
    """
    pairs = []
    for index, group in enumerate(groups):
        if len(group.levels) == 2:
            pairs.append(Side(index, 1, 0, group.name))
        elif len(group.levels) > 2:
            pairs += [Side(index, i, None, f"{group.name}={level}") for i, level in enumerate(group.levels)]
    return pairs


def side_masks(groups: Sequence[Group]) -> tuple[np.ndarray, np.ndarray]:
    """Return bool[P, n] twice: side 1 and side 0 of every pair of `sides`."""
    count = len(groups[0].codes) if groups else 0
    ones, zeros = [np.zeros((0, count), bool)], [np.zeros((0, count), bool)]
    for side in sides(groups):
        codes = groups[side.group].codes
        one = codes == side.level
        ones.append(one[None])
        zeros.append((~one if side.counterpart is None else codes == side.counterpart)[None])
    return np.concatenate(ones), np.concatenate(zeros)


def read_groups(function: str, operand: str, values: ColumnsLike, names: Iterable[Any] | None = None) -> list[Group]:
    """Read group attributes.

    Args:
      function: public function named in errors.
      operand: argument named in errors.
      values: mapping name -> [n], a data frame, or [n], or [n, G]. Each attribute is binary ({0, 1}, {-1, 1} or bool;
        both levels exist even if one is empty) or categorical (any integers or text).
      names: of the attributes when ``values`` is an array; "group 0", ... otherwise.

    Raises:
      ValueError: another rank, unequal lengths, a missing value, no attribute, or a wrong number of names.

    >>> read_groups("f", "g", [0, 1, 1])[0].levels
    ('0', '1')
    """
    columns = read_columns(function, operand, values, names)
    if not columns:
        fail(function, operand, "no attribute", "at least one")
    groups = [_read(name, read_categories(function, _named(operand, name), column)) for name, column in columns.items()]
    for group in groups[1:]:
        if len(group.codes) != len(groups[0].codes):
            got = f"{len(group.codes)} samples in {group.name!r}"
            fail(function, operand, got, f"{len(groups[0].codes)}, as {groups[0].name!r}")
    return groups


def _named(operand: str, name: str) -> str:
    return operand if name == "group 0" else f"{operand}[{name!r}]"


def _read(name: str, column: np.ndarray) -> Group:
    if column.dtype.kind in "biu" and (((column == 0) | (column == 1)).all() or (np.abs(column) == 1).all()):
        return Group(name, ("0", "1"), (column > 0).astype(np.int64))
    levels, codes = np.unique(column, return_inverse=True)
    return Group(name, tuple(str(level) for level in levels), codes.reshape(-1))
