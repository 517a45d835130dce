"""Fixtures for the tests of the examples."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module", autouse=True)
def compiled_quickly(quick_compilation) -> None:
    """Compile the programs of these tests quickly."""
