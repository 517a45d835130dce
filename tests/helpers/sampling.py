"""Fewer cases of each kernel test, for runs that are many times slower: sanitize.sh sets SPARSEJAX_TEST_SAMPLE."""

from __future__ import annotations

import os
import zlib
from collections import defaultdict

import pytest

SAMPLE = int(os.environ.get("SPARSEJAX_TEST_SAMPLE", "1"))
LEAST = 4


def one_in(items: list[pytest.Item], n: int = SAMPLE) -> list[pytest.Item]:
    """About one in ``n`` of the parameter sets of every test function, at least four, in their order; always the same.

    No function is left out, so a new test is run without being named anywhere.
    """
    families: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        families[item.nodeid.split("[")[0]].append(item)
    kept = set()
    for family in families.values():
        family.sort(key=lambda item: zlib.crc32(item.nodeid.encode()))
        kept.update(family[: max(LEAST, -(-len(family) // n))])
    return [item for item in items if item in kept]
