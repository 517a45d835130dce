"""Every public name of 0.1.0 still works; one that has moved or changed says what replaces it."""

from __future__ import annotations

import importlib
import warnings
from collections import defaultdict
from pathlib import Path

import pytest

NAMES: dict[str, list[str]] = defaultdict(list)
for line in (Path(__file__).parent / "helpers" / "names_of_0_1.txt").read_text().splitlines():
    module_name, public_name = line.split()
    NAMES[module_name].append(public_name)


def resolve(module: str, name: str) -> list[str]:
    """The warnings that reading ``name`` from ``module`` gives."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert getattr(importlib.import_module(module), name) is not None
    return [str(w.message) for w in caught if issubclass(w.category, DeprecationWarning)]


@pytest.mark.parametrize("module", NAMES)
def test_names_of_0_1_work_and_warn_unless_they_are_public_still(module: str) -> None:
    public = set(importlib.import_module(module).__all__)
    for name in NAMES[module]:
        messages = resolve(module, name)
        if name in public:
            assert not messages, f"{module}.{name} is public and warns"
        else:
            assert len(messages) == 1, f"{module}.{name} gives {messages or 'no warning'}"
            assert f"{module}.{name} is deprecated" in messages[0] and "; use " in messages[0]


@pytest.mark.parametrize("module", [name for name in NAMES if "__dir__" in vars(importlib.import_module(name))])
def test_dir_of_a_package_lists_public_names_only(module: str) -> None:
    package = importlib.import_module(module)
    assert sorted(dir(package)) == sorted(package.__all__)
    for name in package.__all__:
        assert getattr(package, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    for module in NAMES:
        with pytest.raises(AttributeError, match="no_such_name"):
            _ = importlib.import_module(module).no_such_name
