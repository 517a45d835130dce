"""What a sample of the tests keeps."""

from dataclasses import dataclass

import pytest

from helpers.sampling import LEAST, one_in


@dataclass(frozen=True)
class Item:
    nodeid: str


ALONE = [Item("a.py::test_alone"), Item("b.py::test_alone")]
FEW = [Item(f"a.py::test_few[{i}-x]") for i in range(LEAST)]
MANY = [Item(f"a.py::test_many[{i}[0]]") for i in range(41)]


@pytest.mark.parametrize(("n", "kept"), [(1, 41), (4, 11), (100, LEAST)])
def test_no_function_is_left_out(n, kept):
    items = [*ALONE[:1], *MANY, *FEW, *ALONE[1:]]
    sample = one_in(items, n)
    assert sample == [item for item in items if item in set(sample)]
    assert set(ALONE + FEW) <= set(sample) and len(sample) == len(ALONE + FEW) + kept
    assert sample == one_in(items, n)
